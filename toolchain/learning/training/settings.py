"""Settings from files and checkpoints, each checked against its type and its bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import msgspec

from toolchain.documents import typed
from toolchain.errors import CheckpointError, DataError
from toolchain.learning.activations import ACTIVATIONS
from toolchain.learning.data import parse_source
from toolchain.learning.models import POOLINGS
from toolchain.learning.training.device import DEVICES, PRECISIONS

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers; the open ends are not part of it."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return isfinite(value) and above and below

    def __str__(self) -> str:
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{left}{self.low}, {self.high}{right}"


MOST_LETTERS = 1024
PLAIN_RELU = "relu"
"""Trains a plain ReLU network; its thresholds are chosen when it is converted."""
_SINGULAR = {"augment": "augmentation"}

Activation = Annotated[str, (*ACTIVATIONS, PLAIN_RELU)]
Pooling = Annotated[str, POOLINGS]
DeviceName = Annotated[str, DEVICES]
Precision = Annotated[str, PRECISIONS]
COUNT = Bounds(1, 1_000_000)
NOISE = Bounds(0, 100)
Count = Annotated[int, COUNT]
Width = Annotated[float, Bounds(0, 16, open_low=True)]
Levels = Annotated[int, Bounds(1, 1024)]
"""More are no quantization: as many time steps would be needed."""
Threshold = Annotated[float, Bounds(0, 1e4, open_low=True)]
LearningRate = Annotated[float, Bounds(0, 100, open_low=True)]
WeightDecay = Annotated[float, Bounds(0, 1)]
WarmUp = Annotated[int, Bounds(0, 1_000_000)]
Seed = Annotated[int, Bounds(0, 2**32 - 1)]
"""It is multiplied by about a million."""
Mean = Annotated[tuple[float, ...], Bounds(-1e6, 1e6)]
Std = Annotated[tuple[float, ...], Bounds(0, 1e6, open_low=True)]


class Settings:
    """Base of the dataclasses of settings.

    A field is declared as `Annotated` with its `Bounds`, or with the names that it may be; either
    holds for each value of a tuple. None, for left out, is never checked.

    Raises
    ------
    DataError
        For the first value that cannot be meant.
    """

    # Each kind declares them anew in its own order, which is that of its files.
    data: str
    seed: int
    activation: str
    levels: int
    initial_threshold: float
    epochs: int
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: str
    precision: str

    def __post_init__(self) -> None:
        for name, allowed in self.rules().items():
            value = getattr(self, name)
            if isinstance(allowed, Bounds) and value == ():
                raise DataError(f"{name} needs a value", node="training")
            for part in value if isinstance(value, tuple) else (value,):
                if part is None or part in allowed:
                    continue
                if isinstance(allowed, Bounds):
                    raise DataError(
                        f"{name} must lie in {allowed}", node="training", found=_short(part)
                    )
                raise DataError(
                    f"no such {_SINGULAR.get(name, name)}",
                    node="training",
                    found=_short(part),
                    allowed=", ".join(allowed),
                )

    @classmethod
    @cache
    def rules(cls) -> dict[str, Bounds | tuple[str, ...]]:
        """What each field may be, of those that not every value of their type can be."""
        hints = get_type_hints(cls, include_extras=True)
        return {
            field.name: hints[field.name].__metadata__[0]
            for field in fields(cls)  # type: ignore[arg-type]
            if hasattr(hints[field.name], "__metadata__")
        }

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, as JSON: tuples become lists."""
        values = asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `as_dict`; what is left out has its default.

        A whole number may stand for a float; nothing else is changed.

        Raises
        ------
        CheckpointError
            If a name is unknown, or a value of another type.
        DataError
            If a value cannot be meant.
        """
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(str(k) for k in set(values) - names)
        if unknown:
            raise CheckpointError(
                "unknown training settings",
                found=", ".join(map(_short, unknown)),
                allowed=", ".join(sorted(names)),
            )
        for name, value in values.items():
            if isinstance(value, str) and len(value) > MOST_LETTERS:
                raise CheckpointError("a setting is too long", node=name, found=_short(value))
        try:
            return typed(cls, values)
        except msgspec.ValidationError as error:
            expected, _, where = str(error).partition(" - at `$")
            raise CheckpointError(
                "a setting has the wrong type",
                node=where.strip(".`").partition("[")[0] or "training",
                found=expected,
            ) from error


def check_training_source(text: str) -> None:
    """Raise DataError for a source that is not there to train on."""
    if parse_source(text).split == "test":
        raise DataError(
            "the test split is not for training",
            node=text,
            remedy=f"{text.partition('@')[0]}, whose train split is used",
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
