"""A chip of a partition as a block on Lava."""

import json

import numpy as np
import pytest

import spikeport
from exports.lava.chip_blocks import ChipBlocks
from tests.command_line import fails, ok
from tests.networks import branched_program, random_inputs, random_program
from toolchain.errors import FormatError, TargetError
from toolchain.program.int_program import Schedule
from toolchain.recording import compare

CHIP = """
description = "a chip of a few cores"
{limits}
[chip]
shares_kernels = true
[chip.cores]
value = {cores}
source = "hand"
[chip.neurons]
value = 60
source = "hand"
"""


@pytest.fixture
def chip(tmp_path):
    """A target of chips with a number of cores of 60 neurons."""

    def make(cores):
        sizes = {"weight_bits": 8, "max_weight_exponent": 7, "state_bits": 24}
        sizes |= {"threshold_max": 1 << 22, "bias_max": 1 << 22, "max_input_bits": 24}
        limits = "".join(f"[limits.{k}]\nvalue = {v}\nsource = 'hand'\n" for k, v in sizes.items())
        path = tmp_path / f"cores{cores}.toml"
        path.write_text(CHIP.format(limits=limits, cores=cores))
        return str(path)

    return make


def chips_of(path):
    """The chips of each layer, from the file."""
    found = {}
    for core in json.loads(path.read_text())["cores"]:
        found.setdefault(core["layer"], set()).add(core["chip"])
    return found


def test_the_same_bits_with_a_block_for_each_chip(chip, tmp_path):
    """Residual layers stay together; the layers on both sides have chips of their own."""
    blocks = ("residual", "strided")
    program = branched_program(2, "if", blocks, skip_to_readout=False, low=-9, high=9)
    path = tmp_path / "map.json"
    spikeport.export(program, path, "partition", target=chip(4), whole_layers=True)
    chips = chips_of(path)
    assert all(len(found) == 1 for found in chips.values())
    used = sorted({next(iter(found)) for found in chips.values()})
    assert used == list(range(len(used)))
    assert len(used) > 1
    assert json.loads(path.read_text())["chips"] == len(used)
    inputs = random_inputs(program, 3, 1)
    lava = spikeport.Lava("fast", blocks=path, time_limit=120)
    found = lava.run(program, inputs)
    assert found.meta["models"]["blocks"] == len(used)
    comparison = compare(spikeport.Reference("stepwise").run(program, inputs), found)
    assert comparison.equal, comparison.first


def test_chips_that_are_no_blocks_are_refused(chip, tmp_path):
    path, program = tmp_path / "map.json", branched_program(2, "if", ("residual", "strided"))
    spikeport.export(program, path, "partition", target=chip(1))
    with pytest.raises(TargetError, match="this layer is on several"):
        ChipBlocks.read(path).cuts(program)
    names = [p.name for p in program.populations]
    document = json.loads(path.read_text())
    for core in document["cores"]:
        core["chip"] = names.index(core["layer"])
    path.write_text(json.dumps(document))
    with pytest.raises(TargetError, match="spikes of several layers pass") as error:
        ChipBlocks.read(path).cuts(program)
    assert "with whole_layers=True" in str(error.value)
    with pytest.raises(TargetError, match="of another program"):
        ChipBlocks.read(path).cuts(random_program(1))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "spikeport.partition", "version": 2, "cores": []}']
    + [f'{{"format": "spikeport.partition", "version": 1, "cores": {c}}}' for c in ("[1]", "[{}]")],
)
def test_files_that_are_no_partition(text, tmp_path):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(FormatError, match="is not a partition"):
        spikeport.Lava("fast", blocks=tmp_path / "map.json")


def test_the_commands(tmp_path, chip):
    program = random_program(1, hidden=(70,), schedule=Schedule(2))
    spikeport.save(program, tmp_path / "a.net")
    samples, labels = random_inputs(program, 2).astype(float), np.array([0, 3])
    np.savez(tmp_path / "x.npz", test_samples=samples, test_labels=labels)
    target = chip(3)
    export = ("export", "a.net", "--to", "partition", "--target", target, "-o", "map.json")
    ok(*export, "--whole-layers", cwd=tmp_path)
    run = ("run", "a.net", "--data", "npz:x.npz@test", "--backend", "lava", "--models", "fast")
    ok(*run, "--blocks", "map.json", "-o", "lava.npz", cwd=tmp_path)
    ok("run", "a.net", "--data", "npz:x.npz@test", "-o", "ours.npz", cwd=tmp_path)
    ok("compare", "ours.npz", "lava.npz", cwd=tmp_path)
    ok(*run, "--blocks", "2", "-o", "two.npz", cwd=tmp_path)
    fails(2, "is not a partition", *run, "--blocks", "a.net", "-o", "b.npz", cwd=tmp_path)
    fails(2, "into that many blocks", *run, "--blocks", "0", "-o", "b.npz", cwd=tmp_path)
