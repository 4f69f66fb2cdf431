"""Names of layers never meet names of ours: in files, replays, comparisons and results."""

import json
from dataclasses import replace

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava, runner
from exports.netx import read_net, write_net
from exports.netx.replays import add_replay, read_replays
from exports.nir import read_nir, write_nir
from tests.command_line import ok, spikeport
from tests.networks import branched_program, random_inputs, random_program, renamed
from toolchain.errors import RecordingError, TargetError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, Recording, compare
from toolchain.recording.compare import SCHEDULE
from toolchain.recording.replay import Replay
from toolchain.simulator.reference import simulate

OURS = (
    *("logits", "labels", "meta", "output", "total", "schedule", "file", "allow_pickle"),
    *("x", "x.npy", "digest", "spikes", "layers", "outputs", "program", "name", "scale", "bias"),
)
"""Keys and parameters of ours, and two of which one is the other as a member of an archive."""


def named_as_ours(heads=0):
    """A program whose layers have names of ours, as many as it has."""
    blocks = ("residual", "max", "sum", "concat")
    return renamed(branched_program(1, blocks=blocks, heads=heads), OURS)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("heads", [0, 2])
def test_recordings_keep_every_layer(mode, heads, tmp_path):
    program = named_as_ours(heads)
    recording = simulate(program, random_inputs(program, 2), labels=np.arange(2), mode=mode)
    recording.save(tmp_path / "a.npz")
    again = Recording.load(tmp_path / "a.npz")
    for what in ("outputs", "spikes", "membrane", "counts", "digests", "spike_times"):
        kept, read = getattr(recording, what), getattr(again, what)
        assert set(kept) == set(read)
        assert all(np.array_equal(kept[name], read[name]) for name in kept), what
    assert np.array_equal(again.labels, np.arange(2))
    assert again.meta == recording.meta
    assert compare(recording, again).equal


@pytest.mark.parametrize("name", OURS)
def test_a_change_in_any_layer_is_seen(name, tmp_path):
    """Through a file, whatever the layer is called."""
    program = renamed(random_program(1), [name])
    recording = simulate(program, random_inputs(program, 2), mode=Mode.DIGEST)
    path = tmp_path / "a.net"
    write_net(program, path)
    kept = Replay.of(recording, "d", "x")
    add_replay(path, kept)
    assert read_replays(path) == [kept]
    recording.digests[name][1, 0, 3] ^= 1
    assert Replay.of(recording, "d", "x").differences(read_replays(path)[0]) == [name]


def test_an_output_differs_under_a_name_no_layer_has():
    program = named_as_ours()
    inputs = random_inputs(program, 2)
    kept = Replay.of(simulate(program, inputs, mode=Mode.DIGEST), "d", "x")
    changed = simulate(program, inputs, mode=Mode.DIGEST)
    changed.logits[0, 0] += 1
    (told,) = Replay.of(changed, "d", "x").differences(kept)
    assert told == "output/logits"
    heads = named_as_ours(heads=2)
    recording = simulate(heads, inputs, mode=Mode.DIGEST)
    kept = Replay.of(recording, "d", "x")
    first = next(iter(recording.outputs))
    recording.outputs[first][0, 0] += 1
    assert Replay.of(recording, "d", "x").differences(kept) == [f"output/{first}"]


def before_outputs(replay):
    """How a file of an earlier version describes a replay: outputs among the layers, of chains."""
    fields = replace(replay, version=2).describe()
    outputs = fields.pop("outputs")
    return {**fields, "layers": {**fields["layers"], **outputs}}


def test_earlier_files_are_read():
    for program in (random_program(1), branched_program(1, heads=2)):
        recording = simulate(program, random_inputs(program, 2), mode=Mode.DIGEST)
        now = Replay.of(recording, "d", "x")
        old = before_outputs(now)
        chained = replace(now, version=2)
        assert "outputs" not in old
        assert Replay.from_description(json.loads(json.dumps(old, sort_keys=True))) == chained
        first = program.populations[0].name
        recording.digests[first][0, 0, 0] ^= 1
        assert Replay.of(recording, "d", "x").differences(now) == [first]


def test_an_earlier_replay_that_lost_a_layer_is_refused():
    program = renamed(random_program(1), ["logits"])
    now = Replay.of(simulate(program, random_inputs(program, 2), mode=Mode.DIGEST), "d", "x")
    lost = Replay.from_description(before_outputs(now))
    with pytest.raises(RecordingError, match="layers differ"):
        replace(now, version=2).differences(lost)
    with pytest.raises(RecordingError, match="program differ"):
        now.differences(replace(now, program_hash="0" * 64))


def test_differences_come_in_the_order_of_the_program(tmp_path):
    """JSON in a file is sorted; the first that differs is where to look all the same."""
    program = renamed(random_program(1), ["z", "y", "a"])
    inputs = random_inputs(program, 2)
    write_net(program, tmp_path / "a.net")
    recording = simulate(program, inputs, mode=Mode.DIGEST)
    add_replay(tmp_path / "a.net", Replay.of(recording, "d", "x"))
    for digests in recording.digests.values():
        digests[0, 1, 0] ^= 1
    (kept,) = read_replays(tmp_path / "a.net")
    assert Replay.of(recording, "d", "x").differences(kept) == ["z", "y", "a"]


def test_a_schedule_is_no_layer():
    program = renamed(random_program(1), ["schedule"])
    inputs = random_inputs(program, 2)
    longer = replace(program, schedule=Schedule(4, 2))
    first = simulate(program, inputs, mode=Mode.FULL)
    found = compare(first, simulate(longer, inputs, mode=Mode.FULL))
    assert found.mismatches[SCHEDULE] == 1
    assert str(found.first).startswith("schedule, sleep_steps")
    changed = simulate(program, inputs, mode=Mode.FULL)
    changed.membrane["schedule"][0, 0, 0, 0, 0] += 1
    found = compare(first, changed)
    assert found.mismatches == {"schedule": 1}
    assert str(found.first).startswith("layer schedule, membrane")


def test_lava_takes_up_digests_of_any_layer():
    """Two chunks, the second of which takes up what the first one left."""
    program = renamed(random_program(1), ["file", "x.npy", "x"])
    inputs = random_inputs(program, runner.CHUNK_SAMPLES + 1)
    reference = simulate(program, inputs, mode=Mode.DIGEST)
    models = LavaModels.fast()
    lava = run_on_lava(program, inputs, models=models, mode=Mode.DIGEST, time_limit=120)
    assert compare(reference, lava).equal


def test_nir_has_nodes_of_its_own(tmp_path):
    program = renamed(random_program(1, schedule=Schedule(1)), ["output", "flatten"])
    write_nir(program, tmp_path / "a.nir")
    assert read_nir(tmp_path / "a.nir").hash == program.hash
    taken = renamed(random_program(1, schedule=Schedule(1)), ["a", "a:synapse0"])
    with pytest.raises(TargetError, match="is called what a node"):
        write_nir(taken, tmp_path / "b.nir")
    assert not (tmp_path / "b.nir").exists()


def test_commands(tmp_path):
    """verify --record and what follows, with a layer called logits that does something else."""
    program = renamed(random_program(1, shape=(1, 8, 8)), ["logits", "total"])
    pixels = replace(program.input, scale=1 / program.input.range.high)
    program = replace(program, input=pixels)
    write_net(program, tmp_path / "a.net")
    verify = ("verify", "a.net", "--data", "digits@test[:5]")
    ok(*verify, "--record", cwd=tmp_path)
    assert json.loads(ok(*verify, "--json", cwd=tmp_path).stdout)["differences"] == []
    (kept,) = read_replays(tmp_path / "a.net")
    assert set(kept.layers) == {p.name for p in program.populations}
    other = replace(kept, layers={**kept.layers, "logits": "0" * 64})
    add_replay(tmp_path / "a.net", other)
    failed = spikeport(*verify, "--json", cwd=tmp_path)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["differences"] == ["logits"]
    assert read_net(tmp_path / "a.net").hash == program.hash
