"""Grouping of a folded float program into the layers that become populations.

A layer is an activation whose pre-activation is a sum of linear terms of spiking sources, or a
readout, which has no activation. Layers have names from the user's network: the path of the
convolution or dense layer before the activation, or of the addition where several terms
meet (`layer1.0.add`); the activation's own path where an activation directly follows
another layer's spikes, or where several activations share one pre-activation. A pool that is
left in the program, or a sum of spikes that other nodes read directly, is a layer under its
own path; parts of an average pool whose windows have different divisors are `pool[i]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.window_sums import window_sums
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    FloatNode,
    FloatProgram,
    Input,
    Linear,
    MaxPool2d,
    Shape,
    node_shape,
)
from toolchain.program.int_program import INPUT


@dataclass(frozen=True, eq=False)
class Term:
    """One linear summand of a layer.

    Attributes
    ----------
    operation:
        The linear operation with its weights; an identity (residual branch) is a depthwise 1x1
        convolution, or diagonal dense layer, of ones.
    source:
        Name of the population, or "input", whose spikes it takes.
    source_shape:
        Shape as the operation takes it, flattened for a dense layer.
    identity:
        Whether it passes on its source unchanged.
    """

    operation: Conv2d | Linear
    source: str
    source_shape: Shape
    identity: bool = False


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A population with weights: the sum of `terms` and `bias`, then `activation`.

    `shape` is (C, H, W) or (F,), `bias` (C,); without an activation it is a readout.
    """

    name: str
    shape: Shape
    terms: tuple[Term, ...]
    bias: np.ndarray
    activation: Activation | None


@dataclass(frozen=True, eq=False)
class MaxPoolLayer:
    """A population that sends the largest counts of windows of `source`, (C, H, W)."""

    name: str
    shape: Shape
    source: str
    pool: MaxPool2d


@dataclass(frozen=True, eq=False)
class SumLayer:
    """A population that sends a sum of spikes, times whole numbers, as a graded spike.

    Attributes
    ----------
    terms:
        The summands. Weights are whole numbers, and each output reads one channel of a source. All
        spikes of one channel have the same value (`place_sums`), so the sum is exact.
    divisor:
        Units of the sum that are worth one spike of a source: the divisor of a mean.
    """

    name: str
    shape: Shape
    terms: tuple[Term, ...]
    divisor: int = 1

    def most(self, of: Mapping[str, int], *, count: bool = False) -> int:
        """Largest sum at any place, for the largest spike of each source.

        With `count` every weight counts as one.
        """
        total = np.zeros((1, 1))
        for term in self.terms:
            operation, met = term.operation, np.ones((1, 1))
            if isinstance(operation, Conv2d):
                kernels = np.unique(operation.weight.sum(1), axis=0)
                down, across = (operation.met(term.source_shape, axis) >= 0 for axis in range(2))
                counted = (kernels > 0).astype(np.float64) if count else kernels
                met = (down @ counted @ across.T).max(0)
            total = total + met * of[term.source]
        return int(total.max())


AnyLayer = IntegerLayer | MaxPoolLayer | SumLayer


def layers_of(program: FloatProgram) -> list[AnyLayer]:
    """Group a folded program into layers, in topological order; the readouts come last.

    Raises
    ------
    UnsupportedModuleError
        If two layers follow each other without an activation, an activation follows no layer, or
        the network does not end in sums of linear terms.
    """
    shapes = program.shapes()
    spiking: dict[str, str] = {program.input.name: INPUT}
    layers: list[AnyLayer] = []
    for node in program.nodes:
        if isinstance(node, Flatten):
            if node.source in spiking:
                spiking[node.name] = spiking[node.source]
        elif isinstance(node, MaxPool2d):
            _check_takes_spikes(program, node, spiking)
            source = spiking[node.source]
            layers.append(MaxPoolLayer(node.name, shapes[node.name], source, node))
            spiking[node.name] = node.name
        elif isinstance(node, AvgPool2d):
            _check_takes_spikes(program, node, spiking)
            layers += mean_layers(node, spiking[node.source], shapes[node.source])
            spiking[node.name] = node.name
        elif isinstance(node, Conv2d | Linear):
            _check_takes_spikes(program, node, spiking)
            if copied_channels(node) is not None and is_stage(program, node):
                term = Term(node, spiking[node.source], shapes[node.source])
                layers.append(SumLayer(node.name, shapes[node.name], (term,)))
                spiking[node.name] = node.name
        elif isinstance(node, Add):
            if is_stage(program, node) and all(s in spiking for s in node.sources):
                shape = shapes[node.name]
                terms = tuple(_passed_on(s, spiking[s], shape) for s in node.sources)
                layers.append(SumLayer(node.name, shape, terms))
                spiking[node.name] = node.name
        elif isinstance(node, Activation):
            layers.append(_layer(program, node, spiking, shapes))
            spiking[node.name] = layers[-1].name
        elif isinstance(node, BatchNorm | Concat):
            raise UnsupportedModuleError(
                "no lowering for this node", node=node.name, found=type(node).__name__
            )
    for name in program.outputs:
        layers.append(_readout(program, name, {layer.name for layer in layers}, spiking, shapes))
    return layers


def copied_channels(node: FloatNode) -> np.ndarray | None:
    """The channel that each output channel, (C',), copies: upsampled, or cropped.

    None if the node does anything else.
    """
    if not isinstance(node, Conv2d) or node.bias.any() or not np.isin(node.weight, (0, 1)).all():
        return None
    down, across = node.apart
    met = [
        node.weight[:, :, row::down, column::across].sum((1, 2, 3))
        for row in range(down)
        for column in range(across)
    ]
    read = node.weight.any(axis=(2, 3))
    if np.max(met) > 1 or (read.sum(1) != 1).any():
        return None
    return channels_read(node)


def channels_read(node: Conv2d) -> np.ndarray:
    """The channel that each output channel, (C',), reads, if it reads only one."""
    outputs, width = node.weight.shape[:2]
    read = node.weight.any(axis=(2, 3)).argmax(1)
    channels: np.ndarray = np.arange(outputs) // (outputs // node.groups) * width + read
    return channels


def mean_layers(pool: AvgPool2d, source: str, image: Shape) -> list[SumLayer]:
    """The populations of an average pool of spikes of `source`, (C, H, W); the last is the pool."""
    shape = node_shape(pool, image)
    divisor, parts = window_sums(pool, image, shape)
    layers, terms = [], []
    for sums, place in parts:
        term = Term(sums, source, image)
        if place is not None:
            layers.append(SumLayer(sums.name, node_shape(sums, image), (term,)))
            term = Term(place, sums.name, layers[-1].shape)
        terms.append(term)
    return [*layers, SumLayer(pool.name, shape, tuple(terms), divisor)]


def is_stage(program: FloatProgram | GraphEditor, node: FloatNode) -> bool:
    """Whether a node other than an activation or a sum reads the value of a sum or copy."""
    users = program.consumers(node.name)
    return any(not isinstance(user, Activation | Add) for user in users)


def _check_takes_spikes(program: FloatProgram, node: FloatNode, spiking: dict[str, str]) -> None:
    if node.source in spiking:
        return
    before = program.node(node.source)
    while isinstance(before, Flatten):
        before = program.node(before.source)
    raise UnsupportedModuleError(
        "between two layers there must be exactly one quantized activation",
        node=before.name,
        found=f"{node.name} ({type(node).__name__}) directly behind it",
        remedy="put a quantized activation between them, or merge them into one layer",
    )


def _layer(
    program: FloatProgram,
    activation: Activation,
    spiking: dict[str, str],
    shapes: dict[str, Shape],
) -> IntegerLayer:
    before = program.node(activation.source)
    if isinstance(before, Input) or (isinstance(before, Flatten) and before.name not in spiking):
        raise UnsupportedModuleError(
            "an activation must follow a convolution or dense layer, or a sum of such",
            node=activation.name,
            found=f"{before.name} ({type(before).__name__})",
        )
    terms, bias = _terms(program, before.name, spiking, shapes)
    activations = [n for n in program.consumers(before.name) if isinstance(n, Activation)]
    own_name = before.name in spiking or len(activations) > 1
    name = activation.name if own_name else before.name
    return IntegerLayer(name, shapes[activation.name], terms, bias, activation)


def _readout(
    program: FloatProgram,
    output: str,
    taken: set[str],
    spiking: dict[str, str],
    shapes: dict[str, Shape],
) -> IntegerLayer:
    last = program.node(output)
    if isinstance(last, Activation):
        raise UnsupportedModuleError(
            "the network ends in an activation",
            node=last.name,
            remedy="end in a dense layer or a convolution, whose sums are the outputs",
        )
    if last.name in spiking or isinstance(last, Flatten):
        raise UnsupportedModuleError(
            "the network must end in dense layers or convolutions",
            node=last.name,
            found=f"a {type(last).__name__} of shape {shapes[last.name]} at the end",
        )
    terms, bias = _terms(program, output, spiking, shapes)
    # A pre-activation may be an output, besides the layer of the same name.
    name = f"{output}[output]" if output in taken else output
    return IntegerLayer(name, shapes[output], terms, bias, None)


def _terms(
    program: FloatProgram, name: str, spiking: dict[str, str], shapes: dict[str, Shape]
) -> tuple[tuple[Term, ...], np.ndarray]:
    """The linear terms that add up to the value called `name`, and their bias, (C,)."""
    terms: list[Term] = []
    bias = np.zeros(shapes[name][0])
    waiting = [name]
    while waiting:
        node = program.node(waiting.pop())
        if node.name in spiking:
            terms.append(_passed_on(node.name, spiking[node.name], shapes[node.name]))
        elif isinstance(node, Add):
            waiting.extend(reversed(node.sources))
        elif isinstance(node, Conv2d | Linear):
            terms.append(Term(node, spiking[node.source], shapes[node.source]))
            bias = bias + node.bias
        else:
            raise UnsupportedModuleError(
                "only linear layers and spikes can be added in front of an activation",
                node=name,
                found=f"{node.name} ({type(node).__name__})",
                remedy="put a quantized activation behind it",
            )
    return tuple(terms), bias


def _passed_on(name: str, source: str, shape: Shape) -> Term:
    """The value called `name`, the spikes of `source`, as a term with one weight per channel."""
    channels = shape[0]
    bias = np.zeros(channels)
    if len(shape) == 1:
        return Term(Linear(name, (name,), np.eye(channels), bias), source, shape, True)
    weight = np.ones((channels, 1, 1, 1))
    identity = Conv2d(name, (name,), weight, bias, (1, 1), (0, 0), (1, 1), channels)
    return Term(identity, source, shape, True)
