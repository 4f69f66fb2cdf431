"""The reference simulator: exact integers, layer by layer or step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from toolchain.errors import UsageError
from toolchain.recording.recording import Mode

if TYPE_CHECKING:
    import numpy as np

    from spikeport.backends import Progress
    from toolchain.program.int_program import IntProgram
    from toolchain.recording import Recording

FAST, STEPWISE = "fast", "stepwise"


@dataclass(frozen=True)
class Reference:
    """The reference simulator.

    Attributes
    ----------
    engine:
        "fast", layer by layer; or "stepwise", step by step as the contract reads: its oracle.
    memory:
        Bytes that the fast engine may work in; None for what is fastest.
    device:
        "cuda" or "cuda:N" for the fast engine on a GPU; None for the processor.

    Raises
    ------
    UsageError
        If there is no such engine, or it takes no memory or device.
    """

    name: ClassVar[str] = "reference"
    engine: str = FAST
    memory: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.engine not in (FAST, STEPWISE):
            raise UsageError("no such engine", found=self.engine, allowed=f"{FAST}, {STEPWISE}")
        if self.engine == STEPWISE and (self.memory, self.device) != (None, None):
            raise UsageError("--memory and --device need --engine fast")

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...); errors as `simulate`."""
        from toolchain.simulator.simulate import Way, simulate

        device = None
        if self.device not in (None, "cpu"):
            from toolchain.simulator.engine.device_layers import open_device

            device = open_device(self.device)
        return simulate(
            program,
            inputs,
            mode=mode,
            labels=labels,
            way=Way(self.engine),
            memory=self.memory,
            device=device,
            progress=progress,
        )

    @classmethod
    def of_recording(cls, meta: Mapping[str, Any]) -> Reference:
        """The engine that made a recording; the first recordings were all made step by step."""
        return cls(str(meta.get("way", STEPWISE)))
