"""Cores as places: counted neuron by neuron from the connections themselves."""

import json
from collections import Counter
from math import prod

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import spikeport
from tests.command_line import here
from tests.networks import branched_program
from toolchain.audit.chip_fit import Chip, ChipLimit
from toolchain.audit.placement import place
from toolchain.errors import OutputError, TargetError, UsageError
from toolchain.program.synapse import DenseSynapse, WindowSynapse


def connections(synapse, shape):
    """bool (targets, sources), by one spike after the other through kernels of ones."""
    if isinstance(synapse, DenseSynapse):
        return np.ones(synapse.weight.shape, bool)
    spikes = torch.eye(prod(shape)).reshape(-1, *shape)
    (height, width), (rows, columns) = synapse.laid_out(shape)
    plane = torch.zeros(len(spikes), shape[0], height, width)
    plane[..., rows, columns] = spikes
    how = {"stride": synapse.stride, "dilation": synapse.dilation}
    if isinstance(synapse, WindowSynapse):
        found = F.max_pool2d(plane, synapse.kernel, **how)
    else:
        ones = torch.ones(synapse.weight.shape)
        found = F.conv2d(plane, ones, groups=synapse.groups, **how)
    return (found.flatten(1).T > 0).numpy()


@pytest.mark.parametrize(("shares", "whole"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize(
    "blocks",
    [
        ("strided", "graded", "upsampled"),
        ("sum", "overhang", "max"),
        ("residual", "concat"),
    ],
)
def test_every_core_is_counted_from_the_connections(blocks, shares, whole):
    program = branched_program(3, "if", blocks, heads=1)
    limits = {"neurons": ChipLimit(20, "hand")}
    chip = Chip("hand", ChipLimit(5, "hand"), limits, shares_kernels=shares)
    placement = place(program, chip, whole_layers=whole)
    home = {}
    for core in placement.cores:
        shape = (*program.population(core.layer).shape, 1, 1)[:3]
        box = tuple(slice(*ends) for ends in core.box)
        for neuron in np.arange(prod(shape)).reshape(shape)[box].ravel().tolist():
            assert home.setdefault((core.layer, neuron), core.index) == core.index
    assert len(home) == sum(prod(p.shape) for p in program.populations)
    assert max(Counter(home.values()).values()) <= 20
    axons = set()
    for population in program.populations:
        for synapse in population.synapses:
            shape = program.source_shape(synapse.source)
            for target, source in np.argwhere(connections(synapse, shape)).tolist():
                axons.add((synapse.source, source, home[population.name, target]))
    for core in placement.cores:
        assert core.chip == core.index // 5
        assert core.use["neurons"] == sum(index == core.index for index in home.values())
        assert core.use["in_axons"] == sum(target == core.index for _, _, target in axons)
        out = sum(home.get((name, source)) == core.index for name, source, _ in axons)
        assert core.use["out_axons"] == out
    between = Counter(
        (None if name == "input" else home[name, source] // 5, target // 5)
        for name, source, target in axons
    )
    assert placement.traffic == {k: v for k, v in between.items() if k[0] != k[1]}
    assert len({core.chip for core in placement.cores}) > 1


def test_the_file_and_its_command(tmp_path, caplog):
    spikeport.save(branched_program(2), tmp_path / "a.net")
    out = tmp_path / "map.json"
    result = here("export", str(tmp_path / "a.net"), "--to", "partition", "-o", str(out))
    assert result.exit_code == 0, result.output
    document = json.loads(out.read_text())
    assert document["format"] == "spikeport.partition"
    assert document["program"]["hash"] == spikeport.load(tmp_path / "a.net").hash
    assert document["chip"] == "loihi2"
    assert [core["core"] for core in document["cores"]] == list(range(len(document["cores"])))
    spikeport.export(tmp_path / "a.net", out, "partition", target="loihi1")
    assert json.loads(out.read_text())["chip"] == "loihi1"


def test_wrong_uses(tmp_path):
    program = branched_program(2)
    with pytest.raises(TargetError, match="is no chip"):
        spikeport.export(program, tmp_path / "a.json", "partition", target="stock-netx")
    with pytest.raises(UsageError, match="target="):
        spikeport.export(program, tmp_path / "a.onnx", "onnx", target="loihi2")
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(OutputError):
        spikeport.export(program, tmp_path / "mine.json", "partition")
