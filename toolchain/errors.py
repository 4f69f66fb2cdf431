"""The errors of this project: each names the node, the value found, what is allowed, a remedy.

The command line prints these without a traceback and ends with `exit_code`:
2 for wrong use or bad input, 1 for a check or a run that failed.
"""

from __future__ import annotations

from toolchain.text import visible


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

    def as_dict(self) -> dict[str, str | None]:
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
