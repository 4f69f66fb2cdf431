"""All reasons why a traced network cannot be folded, in one go.

The passes raise at the first one. Here an activation takes the place of what they refuse, or stands
in front of it, and the passes run again: what they then refuse is the next reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from toolchain.conversion.passes.pool_folding import pool_as_conv
from toolchain.errors import ConversionError, SpikeportError, UnsupportedModuleError
from toolchain.program.float_program import Activation, AvgPool2d, FloatNode, FloatProgram


def obstacles(
    program: FloatProgram, attempt: Callable[[FloatProgram], object]
) -> list[SpikeportError]:
    """Errors that `attempt` raises for the program and for what is left of it without their nodes.

    Empty if it raises none.
    """
    found: list[SpikeportError] = []
    seen: set[str] = set()
    while True:
        try:
            attempt(program)
        except (UnsupportedModuleError, ConversionError) as error:
            node = _node_of(error.node or "", program)
            if node is None or node.name in seen:
                return found or [error]
            found.append(error)
            seen.add(node.name)
            program = _without(node, program)
        else:
            return found


def _node_of(name: str, program: FloatProgram) -> FloatNode | None:
    """The traced node that a node of the passes comes from: `conv[0]` is a part of `conv`."""
    by_name = {node.name: node for node in program.nodes}
    while name and name not in by_name:
        name = name.rpartition("[")[0]
    return by_name.get(name)


def _without(node: FloatNode, program: FloatProgram) -> FloatProgram:
    """The program with an activation instead of `node`, or in front of it if it changes shapes."""
    shapes = program.shapes()
    nodes: list[FloatNode] = []
    for other in program.nodes:
        if other is not node or not node.sources:
            nodes.append(other)
        elif {shapes[s] for s in node.sources} == {shapes[node.name]} and len(node.sources) == 1:
            nodes += _activation(node.name, node.sources[0], program)
        else:
            for source in dict.fromkeys(node.sources):
                nodes += _activation(f"{node.name}~{source}", source, program)
            sources = tuple(f"{node.name}~{s}" for s in node.sources)
            nodes.append(replace(node, sources=sources))
    return replace(program, nodes=tuple(nodes))


def _activation(name: str, source: str, program: FloatProgram) -> list[FloatNode]:
    """An activation of `source`; of the input, which is no layer, behind a convolution."""
    before: list[FloatNode] = []
    shape = program.input.shape
    if source == program.input.name and len(shape) == 3:
        before = [pool_as_conv(AvgPool2d(f"{name}~", (source,), (1, 1), (1, 1), (0, 0)), shape[0])]
        source = before[0].name
    return [*before, Activation(name, (source,), np.ones(1), 1, 0.0, "stand-in")]
