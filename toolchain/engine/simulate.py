"""Simulation of a program in exact integers, by the fast engine or step by step.

Both give the same bits. The fast engine computes layer by layer (`engine`). The reference simulator
(`reference`) is slow and simple, and every other result is compared with it.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

import numpy as np
import torch

from toolchain.compiled import is_kept
from toolchain.engine.engine import Engine
from toolchain.engine.kernels import read_out
from toolchain.program.int_program import IntProgram
from toolchain.program.synops import dense_operations
from toolchain.progress import Progress
from toolchain.recording import Mode, Recording, build, make_recorders
from toolchain.simulator import reference

_log = logging.getLogger(__name__)
SMALL = 1 << 30
"""Multiply-adds below which a stepwise run is faster than compiling the loops of the engine.

`benchmarks/first_run.py` measures both.
"""


class Way(Enum):
    """Method of simulation: layer by layer, or step by step."""

    FAST = "fast"
    STEPWISE = "stepwise"


def quicker_way(program: IntProgram, num_samples: int) -> Way:
    """The method that gives the first result sooner.

    Step by step for a small run if the loops of the fast engine are not compiled yet, since
    compiling takes longer than the run. Each run needs the readout's.
    """
    steps = program.schedule.num_steps * num_samples
    small = dense_operations(program) * steps < SMALL
    return Way.STEPWISE if small and not is_kept(read_out) else Way.FAST


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
    """Run `program` on graded input spikes `inputs`, int (N, *sample_shape).

    Parameters
    ----------
    memory:
        Memory of the fast engine in bytes, without the recording itself; None for the fastest
        choice.
    device:
        GPU for the fast engine; None for its compiled loops on the CPU.
    progress:
        Called with the samples done and the samples in all.

    Raises
    ------
    ProgramError
        If the inputs do not fit the program.
    ValueRangeError
        If an input is out of range, or a sum or state leaves the program's state range.
    TargetError
        If one sample needs more than `memory`.
    BackendRunError
        If torch fails at a synapse in every arithmetic, or a device's sums are not exact.
    """
    if way is Way.STEPWISE:
        return reference.simulate(program, inputs, mode=mode, labels=labels, progress=progress)
    program.check_inputs(inputs)
    recorders = make_recorders(program, mode)
    traced = any(recorder.traces for recorder in recorders.values())
    engine = Engine(program, memory=memory, traced=traced, device=device)
    _log.debug("%s: up to %d samples at a time", program.name, engine.samples)
    for start in range(0, len(inputs), engine.samples):
        engine.record(inputs[start : start + engine.samples], recorders)
        if progress:
            progress(min(start + engine.samples, len(inputs)), len(inputs))
    how: dict[str, Any] = {**reference.made_by(), "way": way.value}
    if device:
        how["device"] = str(device)
    records = {name: recorder.finish() for name, recorder in recorders.items()}
    return build(program, mode, inputs, records, labels, how)
