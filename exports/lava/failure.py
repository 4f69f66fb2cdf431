"""Failure reports of the processes of a Lava run, and the errors made from them."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass

from exports.lava.resources import remedy_for
from toolchain.errors import BackendRunError, SpikeportError

PROCESS_FAILED = "a Lava process failed"
CHECK = "`spikeport doctor` checks the installation"


class LavaTraceback(Exception):
    """The cause of a `BackendRunError`: the traceback of another process, as text."""


@dataclass(frozen=True)
class Failure:
    """The fields of a `SpikeportError`, and the whole traceback if there is one."""

    message: str
    node: str | None = None
    found: str | None = None
    allowed: str | None = None
    remedy: str | None = None
    trace: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure of an exception: own errors keep their fields, others their last line."""
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, SpikeportError):
            told = error.as_dict()
            fields = {name: told[name] for name in ("node", "found", "allowed")}
            remedy = error.remedy or remedy_for(trace)
            return cls(error.message, **fields, remedy=remedy, trace=trace)
        return cls.of_text(PROCESS_FAILED, trace)

    @classmethod
    def of_text(cls, message: str, text: str) -> Failure:
        """The failure of a text that a process has printed; its last line becomes the finding."""
        last = text.rstrip().rpartition("\n")[2]
        return cls(message, found=last, remedy=remedy_for(text) or CHECK, trace=text)

    @classmethod
    def from_json(cls, text: str) -> Failure:
        """The failure from the result of `to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """All fields as JSON text."""
        return json.dumps(asdict(self))

    def error(self) -> BackendRunError:
        """The error to raise, with the traceback as its cause."""
        error = BackendRunError(
            self.message,
            node=self.node or "lava",
            found=self.found,
            allowed=self.allowed,
            remedy=self.remedy,
        )
        error.__cause__ = LavaTraceback(f"\n{self.trace}") if self.trace else None
        return error
