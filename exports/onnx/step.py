"""One local step of a program as the body of a `Scan`, and the whole run around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from exports.onnx.operators import BATCH, QONNX, Nodes, largest, per_channel, summed
from toolchain.errors import TargetError
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    LIPool,
    Readout,
    Relay,
)
from toolchain.program.synapse import WindowSynapse

AWAKE, MOST = "awake", "most_spikes"
"""Inputs of a step: whether it is a wake step (1 or 0), and the wake steps until now."""
NOW = "input/now"
"""Graded spikes of a step, where the input has some for each; elsewhere all steps read `INPUT`."""


@dataclass
class _Step:
    """The body while it is made.

    Attributes
    ----------
    states:
        Name of a state before and after the step, and its shape without the batch, by name.
    initial:
        Constant with which a state begins, by name, one value per channel; absent for 0.
    spikes:
        float32 spikes by source.
    """

    nodes: Nodes = field(default_factory=Nodes)
    states: dict[str, tuple[str, str, tuple[int, ...]]] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    spikes: dict[str, str] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    potentials: dict[str, str] = field(default_factory=dict)

    def state(
        self, name: str, shape: tuple[int, ...], initial: np.ndarray | None = None
    ) -> tuple[str, str]:
        """A new state (N, *shape): its names before and after the step."""
        before, after = f"{name}/before", f"{name}/after"
        self.states[name] = (before, after, shape)
        if initial is not None:
            self.initial[name] = initial
        return before, after


def scan(program: IntProgram, *, trace: bool) -> onnx.ModelProto:
    """The program over all its steps, for graded input spikes int32 (N, *sample_shape).

    Parameters
    ----------
    trace:
        Outputs are spikes int8 (T, N, ...) and potentials int32 (T, N, ...) of each layer after
        each step, `spikes/<layer>` and `membrane/<layer>`; otherwise the accumulators of the
        readouts at the end, int32 (N, ...), by their names.

    Raises
    ------
    TargetError
        If sums are not exact, ranges are not proved, or a neuron is unknown.
    """
    if program.watch_ranges:
        raise TargetError(
            "an ONNX graph cannot watch states whose range is not proved",
            node=program.name,
            remedy="convert with fewer weight bits or steps",
        )
    step = _Step()
    nodes = step.nodes
    wake = nodes.cast(AWAKE, "awake/float", TensorProto.FLOAT)
    given = NOW if program.input.per_step else INPUT
    nodes.cast(given, "input/float", TensorProto.FLOAT)
    step.spikes[INPUT] = nodes.add("Mul", "input/sent", "input/float", wake)
    for population in program.populations:
        _add(step, program, population)
    return _model(program, step, trace=trace)


def _add(step: _Step, program: IntProgram, population: Population) -> None:
    nodes, name, neuron = step.nodes, population.name, population.neuron
    shape = population.shape
    if isinstance(neuron, LIPool):
        _add_pool(step, program, population)
        return
    total = summed(nodes, program, population, step.spikes, program.spike_range)
    if population.bias.any():
        bias = nodes.constant(f"{name}/bias", per_channel(population.bias, shape))
        now = nodes.add("Mul", f"{name}/bias/now", bias, AWAKE)
        total = nodes.add("Add", f"{name}/biased", total, now)
    if isinstance(neuron, Relay):
        _send(step, population, total)
        step.potentials[name] = nodes.add("Sub", f"{name}/zero", total, total)
        return
    if isinstance(neuron, Readout):
        before, after = step.state(name, shape)
        step.potentials[name] = nodes.add("Add", after, before, total)
        return
    if not isinstance(
        neuron, IntegrateAndFire | GradedIntegrateAndFire | ConsistentIntegrateAndFire
    ):
        raise TargetError("no ONNX operators for this neuron", node=name, found=neuron.kind)
    before, after = step.state(f"{name}/v", shape, neuron.initial_potential)
    v = nodes.add("Add", f"{name}/charged", before, total)
    threshold = nodes.constant(f"{name}/threshold", per_channel(neuron.threshold, shape))
    if isinstance(neuron, ConsistentIntegrateAndFire):
        above = nodes.add("GreaterOrEqual", f"{name}/above", v, threshold)
        spikes = _consistent(step, population, v, above)
    elif isinstance(neuron, GradedIntegrateAndFire):
        # ONNX cuts a quotient towards 0, so negative potentials become 0 first.
        positive = nodes.add("Max", f"{name}/positive", v, nodes.constant(f"{name}/none", 0))
        quotient = nodes.add("Div", f"{name}/quotient", positive, threshold)
        most = nodes.constant(f"{name}/most", neuron.max_spike)
        spikes = nodes.add("Min", f"{name}/fires", quotient, most)
    else:
        above = nodes.add("GreaterOrEqual", f"{name}/above", v, threshold)
        spikes = nodes.cast(above, f"{name}/fires")
    taken = nodes.add("Mul", f"{name}/taken", spikes, threshold)
    step.potentials[name] = nodes.add("Sub", after, v, taken)
    _send(step, population, spikes)


def _consistent(step: _Step, population: Population, v: str, above: str) -> str:
    """Spikes of CIF neurons: up to one per wake step so far, and none taken back below 0."""
    nodes, name = step.nodes, population.name
    before, after = step.state(f"{name}/count", population.shape)
    zero = nodes.constant(f"{name}/none", 0)
    may_fire = nodes.add("Less", f"{name}/may-fire", before, MOST)
    may_take = nodes.add("Greater", f"{name}/may-take", before, zero)
    below = nodes.add("Less", f"{name}/below", v, zero)
    up = nodes.add("And", f"{name}/up", above, may_fire)
    down = nodes.add("And", f"{name}/down", below, may_take)
    plus, minus = nodes.cast(up, f"{name}/plus"), nodes.cast(down, f"{name}/minus")
    spikes = nodes.add("Sub", f"{name}/net", plus, minus)
    nodes.add("Add", after, before, spikes)
    return spikes


def _add_pool(step: _Step, program: IntProgram, population: Population) -> None:
    """A LIPool: the change of the largest count of each window."""
    nodes, name = step.nodes, population.name
    (synapse,) = population.synapses
    assert isinstance(synapse, WindowSynapse)
    source = program.source_shape(synapse.source)
    counted, counts = step.state(f"{name}/counts", source)
    spikes = nodes.cast(step.spikes[synapse.source], f"{name}/arrived")
    nodes.add("Add", counts, counted, spikes)
    real = nodes.cast(counts, f"{name}/real", TensorProto.FLOAT)
    before, after = step.state(name, population.shape)
    found = largest(nodes, synapse, name, real, source)
    step.potentials[name] = nodes.add("Identity", after, found)
    _send(step, population, nodes.add("Sub", f"{name}/change", found, before))


def _send(step: _Step, population: Population, spikes: str) -> None:
    name = population.name
    step.sent[name] = spikes
    step.spikes[name] = step.nodes.cast(spikes, f"{name}/sent", TensorProto.FLOAT)


def _model(program: IntProgram, step: _Step, *, trace: bool) -> onnx.ModelProto:
    nodes, kept = Nodes(), {}
    if trace:
        for name, spikes in step.sent.items():
            out = step.nodes.cast(spikes, f"{name}/kept", TensorProto.INT8)
            kept[f"spikes/{name}"] = (out, TensorProto.INT8, program.population(name).shape)
        for name, potential in step.potentials.items():
            out = step.nodes.add("Identity", f"{name}/potential", potential)
            kept[f"membrane/{name}"] = (out, TensorProto.INT32, program.population(name).shape)
    states = list(step.states.values())
    arriving = [_value(name, TensorProto.INT32, ()) for name in (AWAKE, MOST)]
    if program.input.per_step:
        arriving.append(_value(NOW, TensorProto.INT32, (BATCH, *program.input.shape)))
    at_first = [_value(before, TensorProto.INT32, (BATCH, *s)) for before, _, s in states]
    at_last = [_value(after, TensorProto.INT32, (BATCH, *s)) for _, after, s in states]
    outs = [_value(out, kind, (BATCH, *shape)) for out, kind, shape in kept.values()]
    body = helper.make_graph(
        step.nodes.nodes, "step", [*at_first, *arriving], [*at_last, *outs], step.nodes.constants
    )
    size = nodes.add("Shape", "size", INPUT, end=1)
    begin = []
    for name, (before, _, shape) in step.states.items():
        values = step.initial.get(name, np.zeros(shape[0], np.int32))
        constant = nodes.constant(f"{before}/value", per_channel(values, shape))
        sizes = nodes.constant(f"{before}/sizes", shape, np.int64)
        whole = nodes.add("Concat", f"{before}/shape", size, sizes, axis=0)
        begin.append(nodes.add("Expand", f"{before}/initial", constant, whole))
    wake, total = program.schedule.wake_steps, program.schedule.num_steps
    steps = np.arange(1, total + 1)
    nodes.constant("schedule/awake", steps <= wake)
    nodes.constant("schedule/most_spikes", np.minimum(steps, wake))
    along = {"schedule/awake": 0, "schedule/most_spikes": 0}
    if program.input.per_step:
        along[_until_the_end(program, nodes)] = 1
    last = {name: f"{name}/last" for name in step.states}
    nodes.nodes.append(
        helper.make_node(
            "Scan",
            [*begin, *along],
            [*last.values(), *kept],
            body=body,
            num_scan_inputs=len(along),
            scan_input_axes=list(along.values()),
        )
    )
    outputs = [_value(n, kind, (total, BATCH, *shape)) for n, (_, kind, shape) in kept.items()]
    if not trace:
        for readout in program.readouts:
            nodes.add("Identity", readout.name, last[readout.name])
            outputs.append(_value(readout.name, TensorProto.INT32, (BATCH, *readout.shape)))
    return model_of(program, nodes, outputs)


def _until_the_end(program: IntProgram, nodes: Nodes) -> str:
    """Graded spikes of all steps, (N, T, ...): 0 on sleep steps."""
    sleep, axes = program.schedule.sleep_steps, 1 + len(program.sample_shape)
    if not sleep:
        return INPUT
    behind = [0] * axes
    behind[1] = sleep
    pads = nodes.constant("input/pads", [0] * axes + behind, np.int64)
    return nodes.add("Pad", "input/all", INPUT, pads)


def model_of(program: IntProgram, nodes: Nodes, outputs: list[Any]) -> onnx.ModelProto:
    """A checked model with the program's input, int32 (N, *sample_shape)."""
    given = [_value(INPUT, nodes.kind, (nodes.samples, *program.sample_shape))]
    graph = helper.make_graph(nodes.nodes, "network", given, outputs, nodes.constants)
    opset = [helper.make_opsetid("", 18)]
    if nodes.qonnx:
        opset.append(helper.make_opsetid(QONNX, 1))
    model = helper.make_model(graph, opset_imports=opset, producer_name="spikeport", ir_version=9)
    quantizer = program.input
    described = {
        "spikeport.program_hash": program.hash,
        "spikeport.input": f"round_half_even(((x - mean) / std) / scale), {quantizer.range}",
        "spikeport.input_scale": repr(quantizer.scale),
        "spikeport.input_mean": repr(list(quantizer.mean)),
        "spikeport.input_std": repr(list(quantizer.std)),
        **{
            f"spikeport.output_scale/{p.name}": repr(p.neuron.reals()["scale"])
            for p in program.readouts
        },
        "spikeport.wake_steps": str(program.schedule.wake_steps),
    }
    helper.set_model_props(model, described)
    onnx.checker.check_model(model)
    return model


def _value(name: str, kind: int, shape: tuple[Any, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
