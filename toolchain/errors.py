"""The errors of this project: each names the node, the value found, what is allowed, a remedy.

The command line prints these without a traceback and ends with `exit_code`:
2 for wrong use or bad input, 1 for a check or a run that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from toolchain.text import visible

NAMED = 5
"""Nodes that an error names where many have the same fault."""


class SpikeportError(Exception):
    """Base class of every error that this project raises on purpose.

    The text of the error contains no control characters; the attributes are as given. Arguments of
    the library are named as `neuron="if"`; the command line shows its options instead.

    Parameters
    ----------
    message:
        What is wrong, in one sentence.
    node:
        Qualified path of the module, layer, dataset or file concerned.
    found, allowed:
        The value or state that caused the error, and what would have been accepted.
    remedy:
        What the user can do about it.
    """

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        found: object = None,
        allowed: object = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.node = node
        self.found = found
        self.allowed = allowed
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        parts = [visible(f"{self.node}: {self.message}" if self.node else self.message)]
        for name in ("found", "allowed", "remedy"):
            told = getattr(self, name)
            if told is not None:
                lines = map(visible, str(told).split("\n"))
                parts.append(f"  {name + ':':<9}" + f"\n{'':11}".join(lines))
        return "\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The fields as strings, for `--json`."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "node": self.node,
            "found": None if self.found is None else str(self.found),
            "allowed": None if self.allowed is None else str(self.allowed),
            "remedy": self.remedy,
        }


class UnsupportedModuleError(SpikeportError):
    """A module or function of the traced network has no exact integer counterpart here."""


class ObstaclesError(UnsupportedModuleError):
    """Several operations of a network have no exact integer counterpart.

    Attributes
    ----------
    obstacles:
        One error per kind of operation.
    """

    def __init__(self, obstacles: Sequence[SpikeportError]) -> None:
        self.obstacles = tuple(obstacles)
        first = obstacles[0]
        super().__init__(
            first.message,
            node=first.node,
            found=first.found,
            allowed=first.allowed,
            remedy=first.remedy,
        )

    def __str__(self) -> str:
        lines, told = [f"{len(self.obstacles)} kinds of obstacles"], set()
        for index, error in enumerate(self.obstacles, 1):
            shown = copy(error)
            shown.allowed = None if error.allowed in told else error.allowed  # long lists, once
            told.add(error.allowed)
            lines.append(f"{index}. {shown}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The fields of the first obstacle, and all as `obstacles`."""
        return {**super().as_dict(), "obstacles": [error.as_dict() for error in self.obstacles]}


def together(errors: Sequence[SpikeportError]) -> SpikeportError:
    """One error for all: the only one itself; equal ones at several nodes are joined."""
    kinds: dict[tuple[object, ...], list[SpikeportError]] = {}
    for error in errors:
        kinds.setdefault((type(error), error.message, error.remedy), []).append(error)
    joined = [_joined(same) for same in kinds.values()]
    return joined[0] if len(joined) == 1 else ObstaclesError(joined)


def _joined(errors: Sequence[SpikeportError]) -> SpikeportError:
    """The first of errors of one kind, naming the nodes of all."""
    first = errors[0]
    nodes = list(dict.fromkeys(error.node for error in errors if error.node))
    if len(nodes) < 2:
        return first
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return type(first)(
        first.message,
        node=", ".join(nodes[:NAMED]) + more,
        found=first.found,
        allowed=first.allowed,
        remedy=first.remedy,
    )


class ProgramError(SpikeportError):
    """A float or integer program is not well formed."""


class ConversionError(SpikeportError):
    """A float program cannot be integerised (NaN weights, zero threshold, ...)."""


class ValueRangeError(SpikeportError):
    """A value lies outside the range of its type; nothing is clipped."""


class UnprovedRangeError(ValueRangeError):
    """The range analysis cannot prove that a sum or state stays in its register."""


class DataError(SpikeportError):
    """A data source is missing, malformed or does not fit the network."""


class CheckpointError(SpikeportError):
    """A checkpoint is missing, malformed or does not fit the model."""


class TrainingError(SpikeportError):
    """A training run failed: its loss is not finite, or its network gives no useful output."""

    exit_code = 1


class FormatError(SpikeportError):
    """A file is truncated, of a wrong version, or with missing or wrong data."""


class OutputError(SpikeportError):
    """An output path cannot be written."""


class TargetError(SpikeportError):
    """A program does not fit a target or one of its backends."""


class RecordingError(SpikeportError):
    """Two recordings cannot be compared, or one is malformed."""


class MissingDependencyError(SpikeportError):
    """A package that this step needs is absent or of an unknown version."""


class BackendRunError(SpikeportError):
    """A simulation backend failed, was killed or exceeded its time limit."""

    exit_code = 1


class UsageError(SpikeportError):
    """Options or arguments are wrong or contradict each other."""


class MachineError(SpikeportError):
    """The machine lacks space, memory or a permission."""

    exit_code = 1
