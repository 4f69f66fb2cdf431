"""Programs as modules of other simulators: every spike of every step, by the tools themselves."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeport
from exports.netx import read_net
from exports.simulators import FILES, TOOLS
from tests.command_line import here
from tests.networks import branched_program, random_inputs, random_program, renamed
from toolchain.errors import OutputError, TargetError, UsageError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule

PACK = Path(__file__).parents[1] / "conformance" / "pack"


def loaded(folder):
    """The written module, as its docstring says."""
    spec = importlib.util.spec_from_file_location("network", folder / FILES[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Network()


def check(program, inputs, folder, tool):
    """Spikes of IF layers step by step, and outputs, against the reference; and once more."""
    assert spikeport.export(program, folder, tool) == []
    network, sent = loaded(folder), {}
    for name, layer in network.named_children():
        if name.endswith("_if"):
            layer.register_forward_hook(
                lambda m, i, spikes, name=name: sent.setdefault(name, []).append(spikes.numpy())
            )
    recording = spikeport.Reference("stepwise").run(program, inputs)
    for _ in range(2):
        sent.clear()
        outputs = network(torch.from_numpy(inputs))
        assert outputs.keys() == recording.outputs.keys()
        for name, sums in outputs.items():
            assert np.array_equal(sums.numpy(), recording.outputs[name])
        layers = [p.name for p in program.populations if p.neuron.kind == "IF"]
        assert len(sent) == len(layers) > 0
        for name, spikes in zip(layers, sent.values(), strict=True):
            assert np.array_equal(np.stack(spikes), recording.spikes[name])
    return network


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("seed", range(3))
def test_every_spike_of_random_networks(seed, tool, tmp_path):
    """Strides, relays, upsampling, sums, padding on one side, max pools, concatenations."""
    rows = (("strided", "graded", "upsampled"), ("sum", "overhang", "max"), ("residual", "concat"))
    program = branched_program(
        seed, "if", rows[seed], signed_input=True, schedule=Schedule(5), heads=seed
    )
    check(program, random_inputs(program, 4), tmp_path / "net", tool)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", sorted(p.stem for p in PACK.glob("*.net")))
def test_the_conformance_pack(name, tool, tmp_path):
    program = read_net(PACK / f"{name}.net")
    inputs = np.load(PACK / f"{name}-inputs.npy").astype(np.int32)
    if any(p.neuron.kind in ("CIF", "GRADED_IF") for p in program.populations):
        with pytest.raises(TargetError, match=r"does not have this neuron|no sleep steps"):
            spikeport.export(program, tmp_path / "net", tool)
        assert not (tmp_path / "net").exists()
    else:
        check(program, inputs, tmp_path / "net", tool)


def test_samples_become_the_integers_of_the_quantizer(tmp_path):
    quantizer = InputQuantizer.for_interval(
        (2, 6, 5), 0.0, 1.0, bits=8, mean=(0.4914, 0.4465), std=(0.2023, 0.201)
    )
    program = replace(branched_program(1), input=quantizer)
    spikeport.export(program, tmp_path, "snntorch")
    network, x = loaded(tmp_path), np.random.default_rng(0).random((50, 2, 6, 5))
    assert np.array_equal(network.graded(torch.from_numpy(x)).numpy(), quantizer.quantize(x))
    with pytest.raises(ValueError, match="outside the range"):
        network.graded(torch.full((1, 2, 6, 5), 1.5))


def test_names_of_layers_that_python_has_for_something_else(tmp_path):
    names = ["train", "self", "class", "a.b", "a_b", 'x"""', "import os", "1"]
    program = renamed(branched_program(3), names)
    check(program, random_inputs(program, 2), tmp_path, "snntorch")


def test_what_a_module_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TargetError, match="cannot watch"):
        spikeport.export(replace(random_program(1), watch_ranges=True), tmp_path, "sinabs")
    with pytest.raises(TargetError, match="no sleep steps"):
        spikeport.export(random_program(1, schedule=Schedule(2, 2)), tmp_path, "sinabs")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_files_of_others_stay(name, tmp_path):
    (tmp_path / name).write_bytes(b"import mine  # and much more")
    with pytest.raises(OutputError):
        spikeport.export(random_program(1), tmp_path, "spikingjelly")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_command(tmp_path):
    spikeport.save(random_program(2), tmp_path / "a.net")
    for _ in range(2):
        command = ("export", str(tmp_path / "a.net"), "--to", "sinabs", "-o", str(tmp_path / "net"))
        result = here(*command)
        assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == sorted(FILES)
    result = here(*command[:-1], str(tmp_path / "net"), "--settled")
    assert isinstance(result.error, UsageError)
