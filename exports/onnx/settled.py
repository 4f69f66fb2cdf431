"""The network that a CIF network settles to, without time, as one ONNX graph of integers.

Counts take the place of spikes: `N = clip(floor((v0 + X) / threshold), 0, Q)` with X the weighted
counts of the sources plus Q times the bias; the input counts its graded spikes of all
wake steps (docs/METHODS.md, "Settled CIF is lossless"). With one step, IF neurons compute the same,
and graded ones with `max_spike` in place of Q.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from exports.onnx.operators import EXACT, Nodes, largest, per_channel, summed
from exports.onnx.step import model_of
from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.count_growth import count_growths
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import (
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
    ThresholdNeuron,
)
from toolchain.program.spike_ranges import largest_sum
from toolchain.program.synapse import WindowSynapse


def settled(program: IntProgram, *, qonnx: bool = False) -> onnx.ModelProto:
    """The settled network: readouts' accumulators, int32 (N, ...), for graded input spikes.

    Parameters
    ----------
    qonnx:
        For one sample. Integers are float32, weights and counts marked by QONNX's `Quant` with
        their bits, as tools for FPGAs read them.

    Raises
    ------
    TargetError
        If sums are not exact, or IF neurons have several steps, which settle to no such network;
        with `qonnx`, also if the input has a tensor for each step.
    """
    schedule = program.schedule
    for population in program.spiking:
        neuron = population.neuron
        if isinstance(neuron, IntegrateAndFire | GradedIntegrateAndFire) and schedule.num_steps > 1:
            raise TargetError(
                "IF neurons over several steps do not settle to a network without time",
                node=population.name,
                found=f"{schedule.num_steps} steps",
                remedy='convert with neuron="cif", or steps=1',
            )
    growths = count_growths(program)

    def reach(source: str) -> IntRange:
        counts = growths[source].after(schedule.num_steps, schedule.wake_steps)
        return IntRange(min(counts.low, 0), max(counts.high, 0))

    nodes, counts, outputs = Nodes(qonnx=qonnx), {}, []
    wake = nodes.constant("wake_steps", schedule.wake_steps)
    counts[INPUT] = nodes.cast(_given(nodes, program, wake), "input/counts", TensorProto.FLOAT)
    for population in program.populations:
        name, neuron = population.name, population.neuron
        if isinstance(neuron, LIPool):
            found = _pooled(nodes, program, population, counts)
        else:
            found = summed(nodes, program, population, counts, reach)
        whole = population.bias.astype(np.int64) * schedule.wake_steps
        _check_total(population, reach, whole, EXACT if qonnx else 1 << 31)
        if whole.any():
            bias = per_channel(whole, population.shape)
            found = nodes.add("Add", f"{name}/biased", found, nodes.constant(f"{name}/bias", bias))
        if isinstance(neuron, Readout):
            nodes.add("Identity", name, found)
            shape = (nodes.samples, *population.shape)
            outputs.append(helper.make_tensor_value_info(name, nodes.kind, shape))
            continue
        if isinstance(neuron, ThresholdNeuron):
            found = _counted(nodes, population, neuron, found, reach(name).high)
        elif not isinstance(neuron, LIPool | Relay):
            raise TargetError("no ONNX operators for this neuron", node=name, found=neuron.kind)
        counts[name] = nodes.cast(found, f"{name}/counts", TensorProto.FLOAT)
    return model_of(program, nodes, outputs)


def _given(nodes: Nodes, program: IntProgram, wake: str) -> str:
    """The graded input spikes, summed over the wake steps."""
    quantizer = program.input
    if not nodes.qonnx:
        if not quantizer.per_step:
            return nodes.add("Mul", "input/times", INPUT, wake)
        axis = nodes.constant("input/steps", [1], np.int64)
        return nodes.add("ReduceSum", "input/times", INPUT, axis, keepdims=0)
    if quantizer.per_step:
        raise TargetError(
            "a network without time for FPGAs takes one tensor",
            node=INPUT,
            found=f"one for each of {program.schedule.wake_steps} wake steps",
            remedy='export to="onnx" with settled=True, whose graph sums them',
        )
    how = {"signed": quantizer.signed}
    given = nodes.quantized("input/quantized", INPUT, 1.0, quantizer.bits, **how)
    return nodes.add("Mul", "input/times", given, wake)


def _check_total(
    population: Population, reach: Callable[[str], IntRange], bias: np.ndarray, below: int
) -> None:
    """Raise TargetError unless the sum over all steps, int64 `bias` (C,) included, is `below`."""
    first = population.neuron.arrays().get("initial_potential", np.zeros(1, np.int32))
    bound = int(np.abs(bias).max()) + int(np.abs(first.astype(np.int64)).max())
    bound += sum(largest_sum(synapse, reach(synapse.source)) for synapse in population.synapses)
    if bound >= below:
        raise TargetError(
            f"sums over all steps may pass {below.bit_length() - 1} bits",
            node=population.name,
            found=bound,
            remedy="use fewer wake steps",
        )


def _counted(
    nodes: Nodes, population: Population, neuron: ThresholdNeuron, total: str, most: int
) -> str:
    """Counts of neurons, 0 .. `most`; ONNX cuts a quotient towards 0: negative sums become 0 first.

    In float32 the floor of a quotient is exact, since both are integers below 2^24: the quotient is
    at least 1 / threshold below the next integer, more than float32 rounds it by. `Quant` takes it,
    and cuts at 0.
    """
    name, shape = population.name, population.shape
    first = nodes.constant(f"{name}/v0", per_channel(neuron.initial_potential, shape))
    threshold = nodes.constant(f"{name}/threshold", per_channel(neuron.threshold, shape))
    v = nodes.add("Add", f"{name}/v", total, first)
    if nodes.qonnx:
        top = per_channel(neuron.threshold.astype(np.int64) * most, shape)
        capped = nodes.add("Min", f"{name}/capped", v, nodes.constant(f"{name}/top", top))
        steps = per_channel(neuron.threshold, shape)
        found = nodes.quantized(f"{name}/quantized", capped, steps, most.bit_length(), signed=False)
        return nodes.add("Div", f"{name}/count", found, threshold)
    positive = nodes.add("Max", f"{name}/positive", v, nodes.constant(f"{name}/none", 0))
    quotient = nodes.add("Div", f"{name}/quotient", positive, threshold)
    return nodes.add("Min", f"{name}/count", quotient, nodes.constant(f"{name}/most", most))


def _pooled(
    nodes: Nodes, program: IntProgram, population: Population, counts: Mapping[str, str]
) -> str:
    (synapse,) = population.synapses
    assert isinstance(synapse, WindowSynapse)
    source = program.source_shape(synapse.source)
    return largest(nodes, synapse, population.name, counts[synapse.source], source)
