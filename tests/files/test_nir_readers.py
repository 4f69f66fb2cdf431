"""What other tools make of our NIR graphs: the table of docs/TARGETS.md, tool by tool."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import sinabs.nir
import torch
from snntorch.import_nir import import_from_nir as by_snntorch
from spikingjelly.activation_based.nir_exchange import import_from_nir as by_spikingjelly

import spikeport
from tests.networks import random_inputs, random_program
from toolchain.program.int_program import Schedule


def evened(program):
    """The program with one threshold per layer."""
    populations = []
    for population in program.populations:
        neuron = population.neuron
        if neuron.kind == "IF":
            threshold = np.full_like(neuron.threshold, int(np.median(neuron.threshold)))
            neuron = replace(neuron, threshold=threshold, initial_potential=threshold // 2)
        populations.append(replace(population, neuron=neuron))
    return replace(program, populations=tuple(populations))


def written(steps, path, *, even=True):
    """The NIR graph, its input (N, ...), and what its last layer gets in each step, (T, N, K)."""
    program = random_program(3, schedule=Schedule(steps))
    program = evened(program) if even else program
    spikeport.export(program, path, accept_hard_reset=True)
    x = random_inputs(program, 64)
    sums = spikeport.Reference("stepwise").run(program, x).membrane["readout"]
    return nir.read(path), torch.from_numpy(x).float(), np.diff(sums, axis=0, prepend=0)


@torch.no_grad()
def of_spikingjelly(graph, x, steps):
    network, state, outputs = by_spikingjelly(graph, dt=1.0), None, []
    for _ in range(steps):
        output, state = network(x, state)
        outputs.append(output.numpy())
    return np.stack(outputs)


def test_spikingjelly_is_exact_in_one_step(tmp_path):
    graph, x, expected = written(1, tmp_path / "a.nir")
    assert np.array_equal(of_spikingjelly(graph, x, 1), expected)


def test_spikingjelly_resets_to_zero_and_starts_there(tmp_path):
    graph, x, expected = written(4, tmp_path / "a.nir")
    assert np.mean(of_spikingjelly(graph, x, 4) != expected) > 0.5


def test_spikingjelly_wants_one_threshold_per_layer(tmp_path):
    graph, _, _ = written(1, tmp_path / "a.nir", even=False)
    with pytest.raises(ValueError, match="v_threshold"):
        by_spikingjelly(graph, dt=1.0)


@pytest.mark.filterwarnings("ignore:nirtorch.load:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 4])
def test_sinabs_sends_several_spikes_in_a_step(steps, tmp_path):
    graph, x, expected = written(steps, tmp_path / "a.nir")
    network = sinabs.nir.from_nir(graph, batch_size=len(x))
    sent = []
    network.get_submodule("conv0").register_forward_hook(lambda m, i, o: sent.append(o.max()))
    with torch.no_grad():
        found = np.stack([network(x)[0].numpy() for _ in range(steps)])
    assert max(sent) > 1
    assert np.mean(found != expected) > 0.5


def test_snntorch_does_not_pass_spikes_on(tmp_path):
    graph, x, _ = written(1, tmp_path / "a.nir")
    with pytest.raises(AttributeError, match="tuple"):
        by_snntorch(graph)(x)
