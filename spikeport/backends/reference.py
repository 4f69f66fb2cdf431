"""The reference simulator: exact integers, layer by layer or step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from toolchain.errors import UsageError
from toolchain.recording_mode import Mode

if TYPE_CHECKING:
    import numpy as np

    from toolchain.program.int_program import IntProgram
    from toolchain.progress import Progress
    from toolchain.recording import Recording

AUTO, FAST, STEPWISE = "auto", "fast", "stepwise"


@dataclass(frozen=True)
class Reference:
    """The reference simulator.

    Attributes
    ----------
    engine:
        "fast" computes layer by layer; "stepwise" computes step by step, as the equations are
        written, and is the oracle of the fast engine; "auto" is fast, except for small runs on a
        machine that has not compiled the loops yet. All give the same bits.
    memory:
        Memory of the fast engine, in bytes; None for the fastest choice.
    device:
        "cuda" or "cuda:N" for the fast engine on a GPU, which is experimental: no test has run on
        one yet. None for the CPU.

    Raises
    ------
    UsageError
        If there is no such engine, or it does not take `memory` or `device`.
    """

    name: ClassVar[str] = "reference"
    engine: str = AUTO
    memory: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        engines = (AUTO, FAST, STEPWISE)
        if self.engine not in engines:
            raise UsageError("no such engine", found=self.engine, allowed=", ".join(engines))
        if self.engine == STEPWISE and (self.memory, self.device) != (None, None):
            raise UsageError('memory= and device= need engine="fast"')

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...); raises as `simulate`."""
        from toolchain.engine.simulate import Way, simulate

        device = None
        if self.device not in (None, "cpu"):
            from toolchain.engine.device_layers import open_device

            device = open_device(self.device)
        return simulate(
            program,
            inputs,
            mode=mode,
            labels=labels,
            way=Way(self.chosen(program, len(inputs)).engine),
            memory=self.memory,
            device=device,
            progress=progress,
        )

    def chosen(self, program: IntProgram, num_samples: int) -> Reference:
        """The backend with "auto" replaced by the quicker engine for `num_samples` samples."""
        from toolchain.engine.simulate import quicker_way

        if self.engine != AUTO:
            return self
        limited = self.memory is not None or self.device is not None
        engine = FAST if limited else quicker_way(program, num_samples).value
        return replace(self, engine=engine)

    @classmethod
    def of_recording(cls, meta: Mapping[str, Any]) -> Reference:
        """The engine that made a recording; recordings without an engine were made step by step."""
        return cls(str(meta.get("way", STEPWISE)))
