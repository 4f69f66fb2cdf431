"""Lava's processes on the CPU simulator of Loihi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from exports.lava.models import FAST, FAST_BATCH, FIXED_PT, OWN, LavaModels
from toolchain.recording.recording import Mode

if TYPE_CHECKING:
    import numpy as np

    from spikeport.backends import Progress
    from toolchain.program.int_program import IntProgram
    from toolchain.recording import Recording

TIME_LIMIT = 3600.0


@dataclass(frozen=True)
class Lava:
    """Lava on the processor, in a fresh interpreter for each run.

    Attributes
    ----------
    models:
        "fixed_pt", stock synapses and a process per population; or "fast", whole blocks of layers.
    blocks:
        Processes that the network is cut into (fast).
    batch:
        Samples that advance together (fast: 16 unless told otherwise).
    neuron_impl:
        "own", this project's neurons, or "atrlif", Lava's, for IF networks (fixed_pt).
    watch_ranges:
        Run also where ATRLIF's registers may be left, and stop when they are.
    time_limit:
        Seconds that a run may take.
    parts:
        Folder in which finished samples are kept until the recording is made.
    resume:
        Go on behind what an interrupted run left there.

    Raises
    ------
    TargetError
        If these contradict each other.
    """

    name: ClassVar[str] = "lava"
    models: str = FIXED_PT
    blocks: int = 1
    batch: int | None = None
    neuron_impl: str = OWN
    watch_ranges: bool = False
    time_limit: float = TIME_LIMIT
    parts: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        self.lava_models()

    def lava_models(self) -> LavaModels:
        """Which models run a program."""
        batch = self.batch or (FAST_BATCH if self.models == FAST else 1)
        return LavaModels(self.models, self.blocks, batch, self.neuron_impl, self.watch_ranges)

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...); errors as `run_on_lava`."""
        from exports.lava import run_on_lava

        return run_on_lava(
            program,
            inputs,
            models=self.lava_models(),
            mode=mode,
            labels=labels,
            time_limit=self.time_limit,
            progress=progress,
            parts=self.parts,
            resume=self.resume,
        )

    @classmethod
    def of_recording(cls, meta: Mapping[str, Any]) -> Lava:
        """The models that made a recording, for one sample in one process."""
        models = meta.get("models", {})
        return cls(
            models.get("tag", FIXED_PT),
            batch=1,
            neuron_impl=models.get("neurons", OWN),
            watch_ranges=models.get("watch_ranges", False),
        )
