"""Lava's processes on the CPU simulator of Loihi, as a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from exports.lava.chip_blocks import ChipBlocks
from exports.lava.models import FAST, FAST_BATCH, FIXED_PT, OWN, LavaModels
from toolchain.recording_mode import Mode

if TYPE_CHECKING:
    import numpy as np

    from toolchain.program.int_program import IntProgram
    from toolchain.progress import Progress
    from toolchain.recording import Recording

TIME_LIMIT = 3600.0


@dataclass(frozen=True)
class Lava:
    """Lava on the CPU, in a fresh interpreter per run.

    Attributes
    ----------
    models:
        "fixed_pt": stock synapses and one process per population; "fast": one process per block of
        layers.
    blocks:
        Number of processes that the network is split into (fast); or a file of `export` to
        "partition", whose chips then are one process each.
    batch:
        Number of samples that are simulated together (fast: 16 by default).
    neuron_impl:
        "own": the neurons of this project; "atrlif": Lava's neurons, for IF networks (fixed_pt).
    watch_ranges:
        Run even if values may not fit the registers of ATRLIF, and stop when one does not.
    time_limit:
        Time limit of a run, in seconds.
    parts:
        Folder that contains the finished samples until the recording is written.
    resume:
        Continue after the last finished sample of an interrupted run in `parts`.

    Raises
    ------
    TargetError
        If these options contradict each other.
    FormatError
        If the file is no partition.
    """

    name: ClassVar[str] = "lava"
    models: str = FIXED_PT
    blocks: int | str | Path | ChipBlocks = 1
    batch: int | None = None
    neuron_impl: str = OWN
    watch_ranges: bool = False
    time_limit: float = TIME_LIMIT
    parts: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str | Path):
            object.__setattr__(self, "blocks", ChipBlocks.read(Path(self.blocks)))
        self.lava_models()

    def lava_models(self) -> LavaModels:
        """The Lava models that run a program."""
        batch = self.batch or (FAST_BATCH if self.models == FAST else 1)
        blocks = self.blocks
        assert isinstance(blocks, int | ChipBlocks)
        return LavaModels(self.models, blocks, batch, self.neuron_impl, self.watch_ranges)

    def run(
        self,
        program: IntProgram,
        inputs: np.ndarray,
        *,
        mode: Mode = Mode.FULL,
        labels: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Recording:
        """Run `program` on graded input spikes, int (N, ...); raises as `run_on_lava`."""
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
