"""A mutable float program for the passes, with the queries that they share."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from toolchain.errors import ProgramError
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
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


class GraphEditor:
    """Nodes by name, open to changes; `program` returns the checked, immutable result.

    Passes add new nodes and redirect the users of old ones; nodes that no longer reach an output
    are not part of the result.
    """

    def __init__(self, program: FloatProgram) -> None:
        self._program = program
        self._nodes: dict[str, FloatNode] = {}
        self._users: dict[str, set[str]] = {}  # also those that reach no output
        self._ordered: tuple[FloatNode, ...] | None = None  # kept until the next change
        self._shapes: dict[str, Shape] = {}  # of nodes that were asked for
        self.input = program.input.name
        self.outputs = tuple(program.outputs)
        for node in program.nodes:
            self.put(node)

    def node(self, name: str) -> FloatNode:
        """The node called `name`; raises KeyError if there is none."""
        return self._nodes[name]

    def holds(self, name: str) -> bool:
        """Whether there is a node called `name`."""
        return name in self._nodes

    def put(self, node: FloatNode) -> str:
        """Add `node`, or replace the node of the same name; returns the name."""
        before = self._nodes.get(node.name)
        for source in () if before is None else before.sources:
            self._users[source].discard(node.name)
        for source in node.sources:
            self._users.setdefault(source, set()).add(node.name)
        self._nodes[node.name] = node
        self._ordered = None
        if node.name in self._shapes and not self._keeps_shape(node):
            self._shapes.clear()
        return node.name

    def _keeps_shape(self, node: FloatNode) -> bool:
        try:
            sources = [self.shape(source) for source in node.sources]
            return node_shape(node, *sources) == self._shapes[node.name]
        except (ProgramError, KeyError):  # one of several steps of a change
            return False

    def new_name(self, base: str) -> str:
        """`base`, with a number appended if it is already used."""
        name, count = base, 2
        while name in self._nodes:
            name, count = f"{base}#{count}", count + 1
        return name

    def redirect(self, old: str, new: str) -> None:
        """Let every user of `old`, except `new` itself, take `new` instead."""
        for user in self._users.get(old, set()) - {new}:
            node = self._nodes[user]
            self.put(replace(node, sources=tuple(new if s == old else s for s in node.sources)))
        self.outputs = tuple(new if name == old else name for name in self.outputs)
        self._ordered = None

    def spread(self, user: Conv2d | Linear | AvgPool2d | Flatten, node: Add) -> None:
        """Let a linear node read each summand by itself, `W (a + b) = W a + W b`, and add up."""
        parts = []
        for index, source in enumerate(node.sources):
            part = replace(user, name=self.new_name(f"{user.name}[{index}]"), sources=(source,))
            if index and isinstance(part, Conv2d | Linear):
                part = replace(part, bias=np.zeros_like(part.bias))
            parts.append(self.put(part))
        self.put(Add(user.name, tuple(parts)))

    def nodes(self) -> tuple[FloatNode, ...]:
        """Every node that reaches an output, in topological order."""
        if self._ordered is not None:
            return self._ordered
        ordered: dict[str, FloatNode] = {}
        for output in self.outputs:
            waiting = [(output, iter(self._nodes[output].sources))]
            while waiting:
                name, sources = waiting[-1]
                missing = next((s for s in sources if s not in ordered), None)
                if missing is not None:
                    waiting.append((missing, iter(self._nodes[missing].sources)))
                    continue
                ordered.setdefault(name, self._nodes[name])
                waiting.pop()
        self._ordered = tuple(ordered.values())
        return self._ordered

    def consumers(self, name: str) -> tuple[FloatNode, ...]:
        """Nodes that reach an output and have `name` among their sources."""
        found = [self._nodes[user] for user in self._users.get(name, ()) if self.is_used(user)]
        if len(found) < 2:
            return tuple(found)
        return tuple(n for n in self.nodes() if name in n.sources)

    def is_used(self, name: str) -> bool:
        """Whether a node reaches an output."""
        waiting, seen = [name], {name}
        while waiting:
            node = waiting.pop()
            if node in self.outputs:
                return True
            more = self._users.get(node, set()) - seen
            seen |= more
            waiting += more
        return False

    def is_spiking(self, name: str) -> bool:
        """Whether the values of a node are spikes, so that a layer can take them exactly.

        These are the input (graded spikes), activations, and nodes that only select, arrange or
        pool the values of such nodes.
        """
        waiting, seen = [name], {name}
        while waiting:
            node = self._nodes[waiting.pop()]
            if isinstance(node, Input | Activation):
                continue
            if not isinstance(node, MaxPool2d | AvgPool2d | Flatten | Concat):
                return False
            more = set(node.sources) - seen
            seen |= more
            waiting += more
        return True

    def is_shared(self, name: str) -> bool:
        """Whether several nodes use `name`, or one does and the network also returns it."""
        return len(self.consumers(name)) + (name in self.outputs) > 1

    def shares(self, concat: Concat) -> list[slice]:
        """Channels of each source in the concatenation, in its order."""
        edges = accumulate((self.shape(s)[0] for s in concat.sources), initial=0)
        return [slice(*ends) for ends in pairwise(edges)]

    def shape(self, name: str) -> Shape:
        """Output shape of a node; raises ProgramError if it does not fit its sources."""
        waiting = [name]
        while waiting:
            node = self._nodes[waiting[-1]]
            missing = [s for s in node.sources if s not in self._shapes]
            if missing:
                waiting += missing
                continue
            self._shapes[waiting.pop()] = node_shape(node, *(self._shapes[s] for s in node.sources))
        return self._shapes[name]

    def program(self) -> FloatProgram:
        """The result, checked and immutable."""
        nodes = self.nodes()
        if self.input not in {n.name for n in nodes}:
            nodes = (self._nodes[self.input], *nodes)
        return replace(self._program, nodes=nodes, outputs=self.outputs)
