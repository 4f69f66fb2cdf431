"""onnxruntime: the program as an ONNX graph, one `Scan` over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from toolchain.errors import BackendRunError
from toolchain.recording_mode import Mode

if TYPE_CHECKING:
    import numpy as np

    from toolchain.program.int_program import IntProgram
    from toolchain.progress import Progress
    from toolchain.recording import Recording


@dataclass(frozen=True)
class Onnx:
    """onnxruntime, which has no options here."""

    name: ClassVar[str] = "onnx"

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...); raises as `run_by_onnx`."""
        if find_spec("onnxruntime") is None:
            raise BackendRunError(
                "onnxruntime is not installed", remedy="pip install 'spikeport[onnxruntime]'"
            )
        from exports.onnx.runner import run_by_onnx

        return run_by_onnx(program, inputs, mode=mode, labels=labels, progress=progress)

    @classmethod
    def of_recording(cls, meta: Mapping[str, Any]) -> Onnx:
        """The backend that made a recording."""
        return cls()
