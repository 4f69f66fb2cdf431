"""Networks of several inputs, as networks of one: its channels are theirs, one after another."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import combinations, islice, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from toolchain.conversion.frontend.user_module import derived, outputs
from toolchain.errors import SpikeportError

MOST_TRIED = 100
"""Divisions of the channels that are tried; each runs the network on two samples."""
_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def input_names(forward: Any) -> list[str]:
    """Arguments of a forward that it cannot do without."""
    parameters = inspect.signature(forward).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind in _NAMED]


def note(names: Sequence[str], channels: Sequence[int]) -> str:
    """How the inputs are one."""
    parts = ", ".join(f"{n} ({c})" for n, c in zip(names, channels, strict=True))
    return f"the inputs are channels of one input, in this order: {parts}"


def joined(model: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[str, ...]]:
    """A network of several inputs as one of a single input of `shape`, and a note.

    `shape` counts the channels of all inputs. Which of them belong to which input the layers say:
    the network must run with one division only, or give the same outputs with all. Otherwise, and
    with one input, it is returned as it is.
    """
    names = input_names(model.forward)
    if len(names) < 2 or shape[0] < len(names):
        return model, ()
    borders = combinations(range(1, shape[0]), len(names) - 1)
    tried = [_sizes(b, shape[0]) for b in islice(borders, MOST_TRIED + 1)]
    samples = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    found: list[tuple[nn.Module, tuple[int, ...], list[Tensor]]] = []
    for sizes in tried if len(tried) <= MOST_TRIED else ():
        made = _of_parts(model, sizes)
        try:
            results = outputs(made, samples)
        except SpikeportError:
            continue
        if found and not all(map(torch.equal, results, found[0][2])):
            return model, ()
        found.append((made, sizes, results))
    if not found:
        return model, ()
    made, sizes, _ = found[0]
    return made, (note(names, sizes),)


def _sizes(borders: Sequence[int], total: int) -> tuple[int, ...]:
    return tuple(end - start for start, end in pairwise((0, *borders, total)))


def _of_parts(model: nn.Module, sizes: tuple[int, ...]) -> nn.Module:
    kind = type(model)

    def forward(self: Any, x: Tensor) -> Any:
        return kind.forward(self, *torch.split(x, list(sizes), 1))

    return derived(model, forward)
