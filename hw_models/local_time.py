"""Sample and local step of a layer, from the global step and its depth.

A layer at depth d works on local step t of sample n at global step `n * T + t + d`; samples
follow each other without idle steps, and state is reset at local step 1. Outside its window a layer
neither integrates nor fires.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LocalTime:
    """Clock of one layer.

    Attributes
    ----------
    depth:
        Latency after the input, in steps.
    wake_steps, sleep_steps:
        The program's schedule.
    num_samples:
        Number of consecutive samples; None if unlimited.
    """

    depth: int
    wake_steps: int
    sleep_steps: int
    num_samples: int | None

    @property
    def num_steps(self) -> int:
        """Local steps per sample: wake and sleep steps."""
        return self.wake_steps + self.sleep_steps

    def at(self, global_step: int) -> tuple[int, int] | None:
        """(sample from 0, local step from 1) at a global step from 1, or None outside."""
        elapsed = global_step - 1 - self.depth
        if elapsed < 0:
            return None
        sample, local = divmod(elapsed, self.num_steps)
        over = self.num_samples is not None and sample >= self.num_samples
        return None if over else (sample, local + 1)

    def awake(self, local_step: int) -> bool:
        """Whether a local step is a wake step."""
        return local_step <= self.wake_steps
