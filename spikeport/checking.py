"""`check`: whether a network can be converted, and everything that stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeport.conversion import DEFAULT_STEPS
from spikeport.given_network import ForeignNir, GivenNetwork, described
from toolchain.conversion.passes.fold import examine
from toolchain.conversion.passes.layers import IntegerLayer, layers_of
from toolchain.errors import SpikeportError
from toolchain.program.float_program import Activation

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Check:
    """What `check` finds.

    Attributes
    ----------
    name:
        Name of the network.
    input_shape:
        Shape of a sample, (C, H, W) or (F,).
    obstacles:
        Why it cannot be converted, one error per kind of reason, each with its nodes and a remedy;
        empty if it can.
    layers, neurons, weights:
        Numbers of the spiking network's populations, of their neurons, and of weights; 0 if it
        cannot be converted.
    plain_relus:
        ReLUs without trained levels, whose thresholds need calibration data.
    notes:
        What a user should know.
    """

    name: str
    input_shape: tuple[int, ...]
    obstacles: tuple[SpikeportError, ...]
    layers: int
    neurons: int
    weights: int
    plain_relus: int
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the network can be converted."""
        return not self.obstacles

    def describe(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "ok": self.ok,
            "obstacles": [obstacle.as_dict() for obstacle in self.obstacles],
            "layers": self.layers,
            "neurons": self.neurons,
            "weights": self.weights,
            "plain_relus": self.plain_relus,
            "notes": list(self.notes),
        }


def check(
    network: nn.Module | str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: int | Sequence[int] | None = None,
    adapters: Sequence[str | Path] = (),
) -> Check:
    """Find everything that keeps a network from being converted, in seconds and without data.

    It traces the network, folds it and compares it with the module, as `convert` does first. What
    depends on data or on a target, as the ranges of integers, is not part of it.

    Parameters
    ----------
    network, weights, input_shape, adapters:
        As in `convert`.

    Raises
    ------
    SpikeportError
        If the network cannot be opened or run.

    Examples
    --------
    >>> import torch, spikeport
    >>> gate = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 2))
    >>> [obstacle.node for obstacle in spikeport.check(gate, input_shape=4).obstacles]
    ['1']
    """
    given = GivenNetwork(network, weights, described(input_shape), adapters=tuple(adapters))
    trained = given.open(nir=ForeignNir(DEFAULT_STEPS)).trained
    found, shape = examine(trained.model, trained.quantizer), trained.quantizer.shape
    if found.program is None:
        return Check(trained.name, shape, found.obstacles, 0, 0, 0, 0, found.notes)
    layers = layers_of(found.program)
    terms = [term for layer in layers if isinstance(layer, IntegerLayer) for term in layer.terms]
    activations = [n for n in found.program.nodes if isinstance(n, Activation)]
    return Check(
        trained.name,
        shape,
        (),
        len(layers),
        sum(prod(layer.shape) for layer in layers),
        sum(term.operation.weight.size for term in terms),
        sum(activation.bound is not None for activation in activations),
        (*trained.notes, *found.notes),
    )
