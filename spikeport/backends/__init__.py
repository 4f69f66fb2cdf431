"""Backends, which run integer programs; all backends give the same bits.

A backend is one class in one file here, listed in `BACKENDS`. Another package adds its own by an
entry point in the group `spikeport.backends`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from spikeport.backends.lava import Lava
from spikeport.backends.onnx import Onnx
from spikeport.backends.reference import Reference
from toolchain.errors import UsageError
from toolchain.progress import Progress
from toolchain.recording_mode import Mode

if TYPE_CHECKING:
    import numpy as np

    from toolchain.program.int_program import IntProgram
    from toolchain.recording import Recording

__all__ = [
    "BACKENDS",
    "Backend",
    "Lava",
    "Onnx",
    "Progress",
    "Reference",
    "backend_class",
    "open_backend",
]

GROUP = "spikeport.backends"


class Backend(Protocol):
    """A runner of integer programs: a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    """Key in `BACKENDS`, and name in the recordings that the backend makes."""

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...), and return the recording."""

    @classmethod
    def of_recording(cls, meta: Mapping[str, Any]) -> Backend:
        """The backend with the options that made a recording with this `meta`, for one sample."""


BACKENDS: Mapping[str, type[Backend]] = {kind.name: kind for kind in (Reference, Lava, Onnx)}


def backend_class(name: str) -> type[Backend]:
    """The backend class called `name`.

    Raises
    ------
    UsageError
        If there is no such backend.
    """
    if name in BACKENDS:
        return BACKENDS[name]
    from importlib.metadata import entry_points

    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise UsageError("no such backend", found=name, allowed=", ".join([*BACKENDS, *others]))
    kind: type[Backend] = others[name].load()
    return kind


def open_backend(backend: str | Backend, **options: Any) -> Backend:
    """A backend with these options, from its name; a backend that is already open takes no options.

    Raises
    ------
    UsageError
        If there is no such backend, or it has no such option.
    TargetError
        If options contradict each other.
    """
    if not isinstance(backend, str):
        if options:
            raise UsageError("a backend has its options already", found=", ".join(options))
        return backend
    kind = backend_class(backend)
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise UsageError(
                f"{option}= says nothing to the backend {backend}",
                allowed=", ".join(known),
            )
    return kind(**options)
