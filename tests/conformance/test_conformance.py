"""Frozen networks on Lava: the recorded bits, on any stack; needs neither torch nor training."""

import sys
from pathlib import Path

import numpy as np
import pytest

from exports.lava import STOCK, LavaModels, run_on_lava
from exports.netx import read_net, write_net
from hw_models.lava_compat import needed_repairs
from toolchain.program.synapse import ConvSynapse, WindowSynapse
from toolchain.recording import Mode, Recording, compare

PACK = Path(__file__).with_name("pack")
NAMES = sorted(p.stem for p in PACK.glob("*.net"))


def load(name):
    inputs = np.load(PACK / f"{name}-inputs.npy").astype(np.int32)
    return read_net(PACK / f"{name}.net"), inputs, Recording.load(PACK / f"{name}.npz")


def test_the_pack_is_whole():
    names = {"borders", "branched", "digits", "heads", "overhang", "random", "sequences"}
    of_both = {f"{n}-{k}" for n in names | {"upsampled"} for k in ("cif", "if")}
    assert of_both | {"branched-graded", "heads-graded"} == set(NAMES)


def test_branches_and_pools_are_in_it():
    for name in ("branched-if", "branched-cif"):
        program, _, _ = load(name)
        kinds = {p.neuron.kind for p in program.populations}
        assert {"LIPOOL", "RELAY", "READOUT"} < kinds
        assert any(program.delay(p, s) for p in program.populations for s in p.synapses)


def test_graded_spikes_are_in_it():
    """In front of a max pool, a sum pool and sums that are passed on; each layer sends some."""
    for name in ("branched-graded", "heads-graded"):
        program, _, frozen = load(name)
        kinds = {p.neuron.kind for p in program.populations}
        assert kinds == {"GRADED_IF", "LIPOOL", "RELAY", "READOUT"}
        assert all(frozen.meta["synops"][p.name] for p in program.spiking)


def test_pools_that_hang_over_the_border_are_in_it():
    for name in ("overhang-if", "overhang-cif"):
        synapses = [s for p in load(name)[0].populations for s in p.synapses]
        overhangs = {s.overhang for s in synapses if isinstance(s, WindowSynapse)}
        assert len(overhangs - {(0, 0)}) == 2


def test_upsampled_convolutions_are_in_it():
    for name in ("upsampled-if", "upsampled-cif"):
        synapses = [s for p in load(name)[0].populations for s in p.synapses]
        convs = [s for s in synapses if isinstance(s, ConvSynapse) and s.upsample != (1, 1)]
        assert {s.groups for s in convs} == {1, 3}
        assert len({s.overhang for s in convs}) > 2


def test_borders_of_average_pools_are_in_it():
    """Recordings of version 3, whose digests combine; the other networks' are of version 2."""
    for name in ("borders-if", "borders-cif"):
        program, _, frozen = load(name)
        relays = [p for p in program.populations if p.neuron.kind == "RELAY"]
        assert len(relays) > 1
        assert frozen.meta["recording_version"] == 3
    assert {load(name)[2].meta["recording_version"] for name in NAMES} == {2, 3}


def test_inputs_that_change_over_time_are_in_it():
    for name in ("sequences-if", "sequences-cif"):
        program, inputs, _ = load(name)
        assert program.input.per_step
        assert (inputs[:, 1:] != inputs[:, :-1]).any(axis=(0, 2, 3, 4)).all()


def test_several_outputs_are_in_it():
    for name in ("heads-if", "heads-cif"):
        program, _, frozen = load(name)
        assert [len(p.shape) for p in program.readouts] == [3, 3, 1]
        assert list(frozen.outputs) == [p.name for p in program.readouts]


@pytest.mark.parametrize("models", [STOCK, LavaModels.fast(batch=4)], ids=["stock", "fast"])
@pytest.mark.parametrize("name", NAMES)
def test_lava_gives_the_frozen_bits(name, models):
    program, inputs, frozen = load(name)
    full, digest = (
        run_on_lava(program, inputs, models=models, mode=mode, time_limit=120)
        for mode in (Mode.FULL, Mode.DIGEST)
    )
    for comparison in (compare(frozen, full), compare(full, digest)):
        assert comparison.equal, comparison.first
        assert comparison.granularity.startswith("digests")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_written_as_they_were(name, tmp_path):
    program, _, frozen = load(name)
    assert program.hash == frozen.meta["program_hash"]
    write_net(program, tmp_path / "again.net")
    assert read_net(tmp_path / "again.net").hash == program.hash


def test_a_changed_bit_is_seen():
    program, inputs, frozen = load("random-if")
    inputs[0, 0, 0, 0] += 1 if inputs[0, 0, 0, 0] < program.input.range.high else -1
    comparison = compare(frozen, run_on_lava(program, inputs, time_limit=120))
    assert not comparison.equal
    assert comparison.first.layer == "conv0"


def test_the_stack_upstream_supports_needs_no_repair():
    """On Python 3.10 with numpy 1.26 Lava runs as it was released."""
    upstream = sys.version_info[:2] == (3, 10) and np.__version__.startswith("1.26")
    assert (needed_repairs() == ()) == upstream
