"""Runs a program in exact integers: by the fast engine, or step by step as the contract reads.

Both give the same bits. The fast one goes layer by layer (`engine`); the other (`reference`) is
slow and obvious, and what everything else is held against.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import torch

from toolchain.compiled import is_kept
from toolchain.engine.engine import Engine
from toolchain.engine.kernels import read_out, read_out_together
from toolchain.program.int_program import IntProgram
from toolchain.program.synops import dense_operations
from toolchain.recording import Mode, Recording, RecordingBuilder
from toolchain.simulator import reference

_log = logging.getLogger(__name__)
SMALL = 1 << 30
"""Multiply-adds; step by step they took 4 s on one core, compiling 8 to 20 s."""
READOUTS = (read_out, read_out_together)
"""Loops of the fast engine that every run needs."""
Progress = Callable[[int, int], None]


class Way(Enum):
    """How a program is simulated."""

    FAST = "fast"
    STEPWISE = "stepwise"


def quicker_way(program: IntProgram, num_samples: int) -> Way:
    """The way that gives the first result sooner.

    That is step by step for a small run where the loops of the fast engine would have to be
    compiled, which takes longer than the run.
    """
    steps = program.schedule.num_steps * num_samples
    small = dense_operations(program) * steps < SMALL
    return Way.STEPWISE if small and not any(map(is_kept, READOUTS)) else Way.FAST


def simulate(
    program: IntProgram,
    inputs: np.ndarray,
    *,
    mode: Mode = Mode.FULL,
    labels: np.ndarray | None = None,
    way: Way = Way.FAST,
    memory: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Recording:
    """Run `program` on graded input spikes `inputs`, int (N, ...).

    Parameters
    ----------
    memory:
        Bytes that the fast engine may work in, the recording itself not counted; None for what
        is fastest.
    device:
        A GPU for the fast engine; None for its compiled loops on the processor.
    progress:
        Called with (samples done, samples in all).

    Raises
    ------
    ProgramError
        If the inputs do not fit the program.
    ValueRangeError
        If an input is out of range, or a sum or state leaves the program's state range.
    TargetError
        If one sample needs more than `memory`.
    """
    if way is Way.STEPWISE:
        return reference.simulate(program, inputs, mode=mode, labels=labels, progress=progress)
    program.check_inputs(inputs)
    builder = RecordingBuilder(program, mode)
    recorders = builder.recorders()
    traced = any(recorder.traces for recorder in recorders.values())
    engine = Engine(program, memory=memory, traced=traced, device=device)
    _log.debug("%s: up to %d samples at a time", program.name, engine.samples)
    for start in range(0, len(inputs), engine.samples):
        engine.record(inputs[start : start + engine.samples], recorders)
        if progress:
            progress(min(start + engine.samples, len(inputs)), len(inputs))
    builder.add(inputs, {name: recorder.finish() for name, recorder in recorders.items()})
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    how: dict[str, Any] = {"versions": versions, "way": way.value}
    if device:
        how["device"] = str(device)
    return builder.finish(reference.BACKEND, labels, how)
