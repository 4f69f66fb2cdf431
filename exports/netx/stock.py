"""Writer of a one-step IF program as plain CUBA layers for the stock loader of lava-dl.

With T = 1 soft and hard reset coincide, so IF with `v0` is a CUBA neuron without memory
(`iDecay = vDecay = 4096`) whose bias is `bias + v0`. CUBA fires on `v > vThMant * 64`, strictly,
so `vThMant = threshold - 1`. Stock netx has one threshold per layer: without memory, firing on
`x >= threshold` is firing on `x + (common - threshold) >= common`, so the difference goes into
the bias too. Spikes and readout have the same bits; the membrane potential of a channel is shifted
by it.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

from exports.hdf5 import new_hdf5
from exports.netx.stock_weights import loaded_by_stock
from exports.netx.writer import write_layers, write_string, write_synapse
from hw_models.stock.limits import MAX_GROUPS, NEURON_BIAS
from toolchain.errors import TargetError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.bounds import analyse
from toolchain.program.int_program import INPUT, IntProgram, Population
from toolchain.program.neurons import (
    ConsistentIntegrateAndFire,
    GradedIntegrateAndFire,
    IntegrateAndFire,
    Readout,
)
from toolchain.program.synapse import ConvSynapse, DenseSynapse, WindowSynapse

FULL_DECAY = 4096
"""Decay constant with which a 12-bit decay clears the state in one step (lava-nc LIF models)."""
THRESHOLD = IntRange(0, 131071)
"""17-bit mantissa (lava-nc LIF: v is clipped to +-(2^23 - 1) = +-131071 weight units)."""
WEIGHT = IntRange(-256, 254)
"""Weights of both signs that `optimize_weight_bits` of lava-dl leaves unchanged."""
OWN_FILES = "leave out stock=: this project's own files hold it"
READOUT_THRESHOLD = THRESHOLD.high
"""Threshold of a readout layer, which never fires, since `v` is clipped to it."""


def write_stock_net(program: IntProgram, path: Path | str) -> None:
    """Write `program` (IF, T = 1) so that `lava.lib.dl.netx.hdf5.Network` runs it bit by bit.

    Load it with `input_message_bits = program.input.bits` and, for networks that begin with a
    dense layer on images, feed samples flattened in C, H, W order.

    Raises
    ------
    TargetError
        If stock netx cannot express a layer. The error names the layer and the reason.
    OutputError
        If the path cannot be written.
    """
    _check_chain(program)
    if program.schedule.num_steps != 1:
        raise TargetError(
            "only a one-step program is an ordinary CUBA network",
            node=program.name,
            found=f"{program.schedule.num_steps} steps",
            allowed="1 step",
            remedy="convert with steps=1",
        )
    bounds = {b.name: b for b in analyse(program)}
    for population in program.populations:
        _check(population, bounds[population.name].state)

    def fill(image: BytesIO) -> None:
        with h5py.File(image, "w") as file:
            write_layers(program, file, _write_layer)

    with new_hdf5(Path(path), fill):
        pass


def _check_chain(program: IntProgram) -> None:
    """Raise TargetError unless every population takes its input from the previous one only."""
    source = INPUT
    for population in program.populations:
        sources = [s.source for s in population.synapses]
        if sources != [source]:
            raise TargetError(
                "the stock loader runs chains of layers only",
                node=population.name,
                found=f"fed by {', '.join(sources)}",
                allowed=source,
                remedy=OWN_FILES,
            )
        source = population.name


def _check(population: Population, state: IntRange) -> None:
    name = population.name
    (synapse,) = population.synapses
    neuron = population.neuron
    if isinstance(synapse, WindowSynapse):
        raise TargetError("stock netx has no pools", node=name, remedy=OWN_FILES)
    if isinstance(synapse, ConvSynapse) and not synapse.is_even:
        raise TargetError(
            "stock netx has no transposed convolutions, and pads both sides alike",
            node=name,
            found=", ".join(f"{what} {pair}" for what, pair in synapse.extras().items()),
            remedy=OWN_FILES,
        )
    if not isinstance(neuron, IntegrateAndFire | Readout):
        remedies = {
            ConsistentIntegrateAndFire: 'convert with neuron="if"',
            GradedIntegrateAndFire: "convert with max_spike=1",
        }
        raise TargetError(
            "stock netx has no such neuron",
            node=name,
            found=neuron.kind,
            allowed=f"{IntegrateAndFire.kind}, {Readout.kind}",
            remedy=remedies.get(type(neuron), OWN_FILES),
        )
    if synapse.weight_exponent:
        raise TargetError(
            "stock netx has no weight exponents",
            node=name,
            found=synapse.weight_exponent,
            allowed=0,
            remedy='convert with target="stock-netx", which uses none',
        )
    if getattr(synapse, "groups", 1) > MAX_GROUPS:
        raise TargetError(
            "stock Conv gives zeros for this many groups",
            node=name,
            found=getattr(synapse, "groups", 1),
            allowed=f"<= {MAX_GROUPS}",
            remedy=f"split the layer into several of at most {MAX_GROUPS} groups; {OWN_FILES}",
        )
    _check_weights(name, synapse)
    _within(
        NEURON_BIAS,
        f"{name} bias with initial potential and threshold difference",
        _bias(population),
        'convert with target="stock-netx", whose thresholds and biases fit, or fewer weight_bits=',
    )
    shift = _threshold_shift(population)
    low, high = state.low + int(shift.min()), state.high + int(shift.max())
    if not IntRange(-THRESHOLD.high, THRESHOLD.high).contains(low, high):
        raise TargetError(
            "stock LIF saturates in the worst case",
            node=name,
            found=f"{low} .. {high}",
            allowed=f"+-{THRESHOLD.high}",
            remedy="convert with fewer weight_bits=",
        )


def _check_weights(name: str, synapse: ConvSynapse | DenseSynapse) -> None:
    """Check that the loader leaves the weights unchanged."""
    weight = synapse.weight
    _within(WEIGHT, f"{name} weight", weight, "convert with weight_bits=8 or fewer")
    if isinstance(synapse, ConvSynapse):
        return
    loaded = loaded_by_stock(weight)
    if loaded is None or not np.array_equal(loaded, weight):
        raise TargetError(
            "stock netx would run other dense weights than these, which are not of both signs",
            node=name,
            found=f"{int(weight.min())} .. {int(weight.max())}",
            allowed="weights of both signs",
            remedy=f"convert with other weight_bits=; {OWN_FILES}",
        )


def _within(limits: IntRange, node: str, values: np.ndarray, remedy: str) -> None:
    try:
        limits.check(node, values)
    except ValueRangeError as error:
        raise TargetError(
            error.message, node=node, found=error.found, allowed=error.allowed, remedy=remedy
        ) from error


def _common_threshold(neuron: IntegrateAndFire) -> int:
    """The middle between the extremes, which minimises the differences."""
    return (int(neuron.threshold.min()) + int(neuron.threshold.max())) // 2


def _threshold_shift(population: Population) -> np.ndarray:
    """Number added to each channel's bias because of the common threshold, int64 (C,)."""
    if not isinstance(population.neuron, IntegrateAndFire):
        return np.zeros(population.shape[0], np.int64)
    return _common_threshold(population.neuron) - population.neuron.threshold.astype(np.int64)


def _bias(population: Population) -> np.ndarray:
    bias = population.bias.astype(np.int64) + _threshold_shift(population)
    if isinstance(population.neuron, IntegrateAndFire):
        return bias + population.neuron.initial_potential
    return bias


def _write_layer(group: h5py.Group, population: Population) -> None:
    (synapse,) = population.synapses
    write_synapse(group, population, synapse)
    group["bias"] = _bias(population).astype(np.int32)
    neuron = group.create_group("neuron")
    write_string(neuron, "type", "CUBA")
    neuron["iDecay"] = FULL_DECAY
    neuron["vDecay"] = FULL_DECAY
    if isinstance(population.neuron, IntegrateAndFire):
        neuron["vThMant"] = _common_threshold(population.neuron) - 1
    else:
        neuron["vThMant"] = READOUT_THRESHOLD
    neuron["refDelay"] = 1
    neuron["gradedSpike"] = False
