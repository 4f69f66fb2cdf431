"""How a training run fails, and that it says so at the epoch where it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from torch import Tensor

from toolchain.errors import TrainingError


def finite_loss(loss: Tensor, epoch: int) -> float:
    """The loss of a batch of `epoch`, counted from 0; raises TrainingError if it is no number."""
    value = float(loss.detach())
    if not isfinite(value):
        raise _diverged("the loss", value, epoch)
    return value


def check_finite(metrics: Mapping[str, float], epoch: int) -> None:
    """Raise TrainingError if what was measured after `epoch`, counted from 0, is no number."""
    for name, value in metrics.items():
        if not isfinite(value):
            loss = metrics.get("loss", float("nan"))
            raise _diverged(name, f"{value}, loss {loss:.4g}", epoch)


def _diverged(what: str, found: object, epoch: int) -> TrainingError:
    return TrainingError(
        f"training diverged: {what} is not a finite number",
        node=f"epoch {epoch + 1}",
        found=found,
        remedy="a smaller learning_rate=; what was finished before is in the folder",
    )


def check_answers(outputs: Sequence[Tensor], history: Sequence[Mapping[str, float]]) -> None:
    """Raise TrainingError if a trained network gives every sample, (N, ...), the same outputs.

    Not before the end: many a network is silent in its first epochs.
    """
    if any(len(o) < 2 or bool((o != o[:1]).any()) for o in outputs):
        return
    raise TrainingError(
        "the network gives every held-out sample the same output",
        node=f"epoch {len(history)}",
        found=f"loss {history[-1]['loss']:.4g}",
        remedy="a smaller learning_rate=, a smaller initial threshold, or more epochs=",
    )
