"""Recordings: the file, digests, and finding the first divergence."""

import itertools
import json
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from tests.networks import random_inputs, random_program
from toolchain.errors import OutputError, RecordingError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, Recording, compare, join
from toolchain.simulator.reference import simulate

LABELS = np.array([0, 1, 2, 3, 0])


@pytest.fixture(scope="module")
def program():
    return random_program(2, "cif", schedule=Schedule(3, 2))


@pytest.fixture(scope="module")
def full(program):
    return simulate(program, random_inputs(program, 5), labels=LABELS)


def changed(recording, group, layer, index, by=1):
    """A copy with one value changed."""
    arrays = dict(getattr(recording, group))
    array = arrays[layer].copy()
    array[index] += by
    arrays[layer] = array
    return replace(recording, **{group: arrays})


@pytest.mark.parametrize("mode", list(Mode))
def test_round_trip(program, tmp_path, mode):
    recording = simulate(program, random_inputs(program, 3), mode=mode)
    path = tmp_path / "a.npz"
    recording.save(path)
    back = Recording.load(path)
    assert back.meta == json.loads(json.dumps(recording.meta))
    for group in ("spikes", "membrane", "counts", "digests"):
        ours, theirs = getattr(recording, group), getattr(back, group)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert np.array_equal(ours[name], theirs[name])
    assert compare(recording, back).equal
    again = tmp_path / "b.npz"
    back.save(str(again))
    assert again.read_bytes() == path.read_bytes()
    assert compare(recording, Recording.load(str(again))).equal


def test_types_of_the_file(full, tmp_path):
    full.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["spikes/conv0"].dtype == np.int8
        assert file["membrane/conv0"].dtype == np.int32
        assert file["counts/conv0"].dtype == np.int32
        assert file["logits"].dtype == np.int64
        assert file["digest/readout"].shape == (5, 2, 16)
        assert "spikes/readout" not in file


def polynomial(samples):
    """The digest of some samples as a sum of powers."""
    hashes = [xxhash.xxh3_128_intdigest(sample.tobytes()) for sample in samples]
    total = sum(h * 5**power for power, h in enumerate(reversed(hashes)))
    return (total % (2**128 - 159)).to_bytes(16, "big")


def test_digest_is_a_polynomial_of_xxh3_over_the_samples(full):
    for group, index in (("spikes", 0), ("membrane", 1)):
        samples = [sample.transpose(1, 2, 0) for sample in getattr(full, group)["conv0"][1]]
        assert full.digests["conv0"][1, index].tobytes() == polynomial(samples)


def test_digests_of_a_readout_have_no_spikes(full):
    assert not full.digests["readout"][:, 0].any()
    found = full.digests["readout"][4, 1].tobytes()
    assert found == polynomial(full.membrane["readout"][4].astype("<i4"))


def test_any_two_samples_that_change_places_change_a_digest():
    """5 has every power below P - 1: it is a primitive root of the prime P."""
    prime = 2**128 - 159
    factors = (2, 3, 10253, 29333, 4454477, 42113237, 62826870453001)
    assert 2**5 * math.prod(factors[1:]) == prime - 1
    assert all(pow(5, (prime - 1) // factor, prime) != 1 for factor in factors)
    assert pow(5, prime - 1, prime) == 1


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 2, 4), (2, 3)])
def test_parts_give_the_whole(program, mode, cuts, tmp_path):
    inputs = random_inputs(program, 5)
    edges = [0, *cuts, 5]
    parts = [
        simulate(program, inputs[a:b], mode=mode, labels=LABELS[a:b])
        for a, b in itertools.pairwise(edges)
    ]
    whole = tmp_path / "whole.npz"
    simulate(program, inputs, mode=mode, labels=LABELS).save(whole)
    join(parts).save(tmp_path / "joined.npz")
    assert (tmp_path / "joined.npz").read_bytes() == whole.read_bytes()
    join([join(parts[:-1]), parts[-1]]).save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == whole.read_bytes()


def test_parts_that_are_not_of_one_run(program, full):
    other = replace(full, meta={**full.meta, "versions": {"torch": "1"}})
    with pytest.raises(RecordingError, match="versions: the parts of a run were not made in one"):
        join([full, other])
    counts = simulate(program, random_inputs(program, 2), mode=Mode.COUNTS)
    with pytest.raises(RecordingError, match="mode: the parts"):
        join([full, counts])


def as_version_2(recording, full):
    """A recording as version 2 had it, with chains made of the values of a full one."""
    digests = {name: np.zeros((5, 2, 16), np.uint8) for name in full.layers}
    for name, digest in digests.items():
        for step in range(5):
            for index, group in enumerate((full.spikes, full.membrane)):
                chain = bytes(16)
                for sample in group[name][step] if name in group else ():
                    values = np.moveaxis(sample, 0, -1) if sample.ndim == 3 else sample
                    chain = xxhash.xxh3_128_digest(chain + values.tobytes())
                digest[step, index] = list(chain)
    return replace(recording, digests=digests, meta={**recording.meta, "recording_version": 2})


def test_version_2_is_read_as_before(program, full, tmp_path):
    """Its chains are compared with those of a full recording; with other digests they cannot be."""
    digest = simulate(program, random_inputs(program, 5), mode=Mode.DIGEST, labels=LABELS)
    as_version_2(digest, full).save(tmp_path / "old.npz")
    as_version_2(full, full).save(tmp_path / "old_full.npz")
    old, old_full = (Recording.load(tmp_path / f"{name}.npz") for name in ("old", "old_full"))
    for a, b in ((old, full), (full, old), (old_full, digest), (old, old), (old, old_full)):
        assert compare(a, b).equal
        assert compare(a, b).granularity.startswith("digests")
    assert compare(old_full, full).granularity == "every value"
    other = changed(full, "membrane", "dense0", (2, 0, 0))
    first = compare(old, other).first
    assert (first.layer, first.step, first.quantity) == ("dense0", 3, "membrane")
    assert not compare(changed(old_full, "spikes", "conv0", (1, 0, 0, 0, 0)), digest).equal
    with pytest.raises(RecordingError, match="digests of different versions"):
        compare(old, digest)
    with pytest.raises(RecordingError, match="cannot be joined"):
        join([old, old])


def test_digests_do_not_depend_on_batches(program, full):
    inputs = random_inputs(program, 5)
    for batch in (1, 2, 3):
        again = simulate(program, inputs, mode=Mode.DIGEST, batch=batch, labels=LABELS)
        assert compare(full, again).equal


def test_accuracy_and_ties(full):
    logits = np.array([[1, 3, 3], [2, 2, 1]])
    tied = replace(full, outputs={"readout": logits}, labels=np.array([1, 0]))
    assert tied.predictions.tolist() == [1, 0]
    assert tied.accuracy() == 1.0
    assert replace(full, labels=np.full(5, -1)).accuracy() is None


def test_first_divergence_names_layer_step_sample_and_neuron(full):
    other = changed(full, "membrane", "conv0", (3, 2, 1, 4, 0), by=7)
    other = changed(other, "spikes", "dense0", (0, 0, 2))
    result = compare(full, other)
    assert not result.equal
    assert result.mismatches == {"conv0": 1, "dense0": 1}
    first = result.first
    assert (first.layer, first.quantity, first.step) == ("conv0", "membrane", 4)
    assert (first.sample, first.neuron) == (2, (1, 4, 0))
    assert first.found == first.expected + 7
    assert "layer conv0, membrane, step 4, sample 2, neuron (1, 4, 0)" in str(first)


def test_readout_divergence(full):
    result = compare(full, changed(full, "membrane", "readout", (4, 0, 1)))
    assert result.first.layer == "readout"
    assert result.first.step == 5


def test_digests_find_layer_and_step(program, full):
    digest = simulate(program, random_inputs(program, 5), mode=Mode.DIGEST, labels=LABELS)
    assert compare(full, digest).equal
    assert compare(full, digest).granularity.startswith("digests")
    other = changed(digest, "digests", "dense0", (2, 1, 0))
    result = compare(full, other)
    assert (result.first.layer, result.first.step) == ("dense0", 3)
    assert result.first.quantity == "membrane"
    assert result.first.neuron is None


def test_events_are_the_spikes_of_a_full_recording(program, full):
    events = simulate(program, random_inputs(program, 5), mode=Mode.EVENTS, batch=2, labels=LABELS)
    assert set(events.spike_times) == set(full.spikes)
    for layer, rows in events.spike_times.items():
        spikes = np.zeros_like(full.spikes[layer])
        flat = spikes.reshape(*spikes.shape[:2], -1)
        for sample, step, neuron, spike in rows:
            flat[step - 1, sample, neuron] = spike
        assert np.array_equal(spikes, full.spikes[layer])
        assert len(rows) == np.count_nonzero(spikes)
        assert rows.tolist() == sorted(rows.tolist())
        assert events.meta["shapes"][layer] == list(spikes.shape[2:])
    assert not events.spikes
    assert compare(full, events).equal


def test_events_find_the_spike(program):
    events = simulate(program, random_inputs(program, 5), mode=Mode.EVENTS, labels=LABELS)
    again = compare(events, events)
    assert again.equal
    assert again.granularity.startswith("every spike")
    rows = events.spike_times["dense0"]
    place = np.flatnonzero(rows[:, 1] == 2)[0]
    missing = np.delete(rows, place, axis=0)
    result = compare(events, replace(events, spike_times={**events.spike_times, "dense0": missing}))
    assert result.mismatches == {"dense0": 1}
    first = result.first
    assert (first.sample, first.step) == tuple(rows[place][:2])
    assert first.neuron == (rows[place][2],)
    assert (first.expected, first.found) == (1, 0)
    # The potential of an earlier step comes first, in the same layer or one before.
    for layer, step in (("dense0", 0), ("conv0", 4)):
        other = changed(events, "digests", layer, (step, 1, 0))
        other = replace(other, spike_times={**events.spike_times, "dense0": missing})
        result = compare(events, other)
        assert (result.first.layer, result.first.quantity) == (layer, "membrane")
        assert result.total == 2


def test_counts(program, full):
    counts = simulate(program, random_inputs(program, 5), mode=Mode.COUNTS, labels=LABELS)
    assert compare(full, counts).equal
    result = compare(counts, changed(counts, "counts", "conv0", (1, 0, 0, 0)))
    assert (result.first.quantity, result.first.sample) == ("counts", 1)


def test_nothing_in_common(program):
    inputs = random_inputs(program, 2)
    with pytest.raises(RecordingError, match="nothing that can be compared"):
        compare(
            simulate(program, inputs, mode=Mode.COUNTS),
            simulate(program, inputs, mode=Mode.DIGEST),
        )


def test_equal_bits_of_another_program_are_not_equal(full):
    other = replace(full, meta={**full.meta, "program_hash": "0"})
    result = compare(full, other)
    assert result.total == 0
    assert not result.equal


def test_other_shapes_cannot_be_compared(program, full):
    with pytest.raises(RecordingError, match="num_samples"):
        compare(full, simulate(program, random_inputs(program, 4)))
    with pytest.raises(RecordingError, match="layers"):
        compare(full, simulate(other := random_program(1, convs=()), random_inputs(other, 5)))


def test_damaged_files(full, tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(RecordingError, match="no such file"):
        Recording.load(path)
    full.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordingError, match="not a recording"):
        Recording.load(path)
    path.write_bytes(b"x")
    with pytest.raises(RecordingError, match="not a recording"):
        Recording.load(path)
    np.savez(path, logits=np.zeros(1))
    with pytest.raises(RecordingError, match="not a recording"):
        Recording.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", b"junk")
    with pytest.raises(RecordingError, match="not a recording"):
        Recording.load(path)
    replace(full, meta={**full.meta, "recording_version": 99}).save(path)
    with pytest.raises(RecordingError, match="unknown recording version"):
        Recording.load(path)


def test_unwritable_place(full, tmp_path):
    with pytest.raises(OutputError, match="not there"):
        full.save(tmp_path / "no" / "a.npz")
    assert list(tmp_path.iterdir()) == []
