"""Settings from files and checkpoints, each checked against its type and its bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, TypeVar

import msgspec

from toolchain.documents import typed
from toolchain.errors import CheckpointError, DataError
from toolchain.learning.data import parse_source

_Settings = TypeVar("_Settings")


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
_SINGULAR = {"augment": "augmentation"}
MANY = 1_000_000
COUNT = Bounds(1, MANY)
LEARNING = {
    "width": Bounds(0, 16, open_low=True),
    "levels": Bounds(1, 1024),
    "initial_threshold": Bounds(0, 1e4, open_low=True),
    "epochs": COUNT,
    "batch_size": COUNT,
    "learning_rate": Bounds(0, 100, open_low=True),
    "weight_decay": Bounds(0, 1),
    "warm_up": Bounds(0, MANY),
    "fixed_noise": Bounds(0, 100),
    "seed": Bounds(0, 2**32 - 1),
    "mean": Bounds(-1e6, 1e6),
    "std": Bounds(0, 1e6, open_low=True),
}
"""What the settings that classifiers and detectors share can mean. More than 1024 levels are no
quantization: as many time steps would be needed. The seed is multiplied by about a million."""


def check_bounds(settings: Any, bounds: Mapping[str, Bounds]) -> None:
    """Raise DataError for the first number that lies outside; None, for left out, is none."""
    for name, allowed in bounds.items():
        value = getattr(settings, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if isinstance(value, tuple) and not value:
            raise DataError(f"{name} needs a value", node="training")
        for number in numbers:
            if number not in allowed:
                raise DataError(
                    f"{name} must lie in {allowed}", node="training", found=_short(number)
                )


def check_choices(settings: Any, choices: Mapping[str, Iterable[str]]) -> None:
    """Raise DataError for the first name that is not one of those it may be."""
    for name, allowed in choices.items():
        value = getattr(settings, name)
        for chosen in value if isinstance(value, tuple) else (value,):
            if chosen not in allowed:
                raise DataError(
                    f"no such {_SINGULAR.get(name, name)}",
                    node="training",
                    found=_short(chosen),
                    allowed=", ".join(allowed),
                )


def check_training_source(text: str) -> None:
    """Raise DataError for a source that is not there to train on."""
    if parse_source(text).split == "test":
        raise DataError(
            "the test split is not for training",
            node=text,
            remedy=f"{text.partition('@')[0]}, whose train split is used",
        )


def typed_settings(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """The dataclass `kind` with these values; its fields are plain types or tuples of them.

    A whole number may stand for a float; nothing else is changed.

    Raises
    ------
    CheckpointError
        If a name is unknown, or a value of another type.
    DataError
        If a value cannot be meant.
    """
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(str(k) for k in set(values) - names)
    if unknown:
        raise CheckpointError(
            "unknown training settings",
            found=", ".join(map(_short, unknown)),
            allowed=", ".join(sorted(names)),
        )
    long = [k for k, v in values.items() if isinstance(v, str) and len(v) > MOST_LETTERS]
    if long:
        raise CheckpointError("a setting is too long", node=long[0], found=_short(values[long[0]]))
    try:
        return typed(kind, values)
    except msgspec.ValidationError as error:
        expected, _, where = str(error).partition(" - at `$")
        raise CheckpointError(
            "a setting has the wrong type",
            node=where.strip(".`").partition("[")[0] or "training",
            found=expected,
        ) from error


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
