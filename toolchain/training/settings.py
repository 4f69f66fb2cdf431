"""Settings from files and checkpoints, each checked against the type of its field."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from toolchain.errors import CheckpointError

_Settings = TypeVar("_Settings")
_OPTIONAL, _TUPLE = " | None", "tuple["


def typed_settings(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    """The dataclass `kind` with these values; its fields are int, float, str or tuples of them.

    A whole number may stand for a float; nothing else is changed.

    Raises
    ------
    CheckpointError
        If a name is unknown, or a value of another type.
    """
    types = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise CheckpointError(
            "unknown training settings",
            found=", ".join(unknown),
            allowed=", ".join(sorted(types)),
        )
    return kind(**{name: _typed(name, types[name], value) for name, value in values.items()})


def _typed(name: str, kind: str, value: Any) -> Any:
    if kind.endswith(_OPTIONAL):
        if value is None:
            return None
        kind = kind.removesuffix(_OPTIONAL)
    if not kind.startswith(_TUPLE):
        return _scalar(name, kind, value)
    inner = kind.removeprefix(_TUPLE).partition(",")[0]
    if isinstance(value, list | tuple):
        return tuple(_scalar(name, inner, v) for v in value)
    raise CheckpointError(
        "a setting has the wrong type", node=name, found=repr(value), allowed=f"a list of {inner}"
    )


def _scalar(name: str, kind: str, value: Any) -> Any:
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not fits[kind]:
        raise CheckpointError(
            "a setting has the wrong type", node=name, found=repr(value), allowed=kind
        )
    return float(value) if kind == "float" else value
