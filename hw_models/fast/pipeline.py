"""Consecutive populations as one pipeline, equal to their own processes step by step.

A population at depth d is at local step t of a batch at global step `t + d` plus the steps of the
batches before. So the layers of a block are at different steps, and at the end of a batch in
different batches, at any one time. What is sent in a global step arrives in the next, or later
where a branch is held back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from hw_models.block_layout import BlockLayout
from hw_models.fast.stages import Stage, make_stage
from hw_models.local_time import LocalTime
from hw_models.recorder import Recorder


class _Line:
    """Recent spikes of one layer: the latest, and as many steps before it as a branch waits."""

    def __init__(self, shape: tuple[int, ...], kind: type, longest_wait: int) -> None:
        self._sent: deque[np.ndarray] = deque(
            np.zeros(shape, kind) for _ in range(longest_wait + 1)
        )

    def push(self, spikes: np.ndarray) -> None:
        self._sent.rotate(1)
        self._sent[0][...] = spikes

    def __getitem__(self, wait: int) -> np.ndarray:
        return self._sent[wait]


class Pipeline:
    """Runs the layers of a block.

    Parameters
    ----------
    v:
        Membrane potentials, int32 (state_size,), see `BlockLayout.potentials`.
    recorders:
        Recorder of the local steps of a population, by name.
    """

    def __init__(
        self, layout: BlockLayout, v: np.ndarray, recorders: Mapping[str, Recorder]
    ) -> None:
        program = layout.program
        self._recorders = recorders
        self._source = layout.source
        self._waits = {
            p.name: [(s.source, program.delay(p, s)) for s in p.synapses]
            for p in layout.populations
        }
        longest = dict.fromkeys((self._source, *self._waits), 0)
        for name, wait in (pair for waits in self._waits.values() for pair in waits):
            longest[name] = max(longest[name], wait)
        self._lines = {
            self._source: _Line(layout.batched_in_shape, np.int32, longest[self._source])
        }
        self._stages: list[tuple[Stage, LocalTime]] = []
        for population in layout.populations:
            name = population.name
            stage = make_stage(program, population, layout.potentials(v, name))
            self._stages.append((stage, layout.clock(name)))
            kind = stage.spikes.dtype.type
            self._lines[name] = _Line(stage.spikes.shape, kind, longest[name])

    def step(self, global_step: int) -> np.ndarray:
        """Compute one global step, from 1; returns the spikes of the last layer, (B, ...)."""
        # The deepest layer first: each takes the spikes that its sources sent in the step before.
        for stage, clock in reversed(self._stages):
            name, now = stage.population.name, clock.at(global_step)
            if now is None:
                self._lines[name].push(np.zeros((), stage.spikes.dtype))
                continue
            local_step = now[1]
            if local_step == 1:
                stage.start()
            arrived = [self._lines[source][wait] for source, wait in self._waits[name]]
            stage.fire(arrived, local_step, clock.wake_steps)
            self._lines[name].push(stage.spikes)
            if name in self._recorders:
                self._recorders[name].step(now, stage.sent, stage.v)
        return self._lines[self._stages[-1][0].population.name][0]

    def receive(self, spikes: np.ndarray) -> None:
        """Take the spikes of the source in this global step, (B, ...); they arrive in the next."""
        self._lines[self._source].push(spikes)
