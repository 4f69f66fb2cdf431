"""Runs a program by onnxruntime and records it, step by step."""

from __future__ import annotations

import numpy as np

from exports.onnx.step import scan
from toolchain.program.int_program import INPUT, IntProgram
from toolchain.progress import Progress
from toolchain.recording import Mode, Recording, build, make_recorders
from toolchain.recording.layer_recorder import channels_last

BACKEND = "onnx"
MOST_BYTES = 1 << 28
"""Of spikes and potentials of all steps that are held at a time."""


def run_by_onnx(
    program: IntProgram,
    inputs: np.ndarray,
    *,
    mode: Mode = Mode.FULL,
    labels: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Recording:
    """Run `program` on graded input spikes, int (N, *sample_shape).

    Raises
    ------
    TargetError
        If the program has no exact ONNX graph.
    ProgramError, ValueRangeError
        If the inputs do not fit the program.
    """
    import onnxruntime

    program.check_inputs(inputs)
    model = scan(program, trace=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    recorders = make_recorders(program, mode)
    neurons = sum(int(np.prod(p.shape)) for p in program.populations)
    batch = max(1, MOST_BYTES // (5 * neurons * program.schedule.num_steps))
    for start in range(0, len(inputs), batch):
        chunk = inputs[start : start + batch].astype(np.int32)
        found = dict(zip(names, session.run(names, {INPUT: chunk}), strict=True))
        for step in range(program.schedule.num_steps):
            for name, recorder in recorders.items():
                fired = found.get(f"spikes/{name}")
                spikes = None if fired is None else channels_last(fired[step])
                recorder.step(step + 1, spikes, channels_last(found[f"membrane/{name}"][step]))
        if progress:
            progress(min(start + batch, len(inputs)), len(inputs))
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    records = {name: recorder.finish() for name, recorder in recorders.items()}
    made_by = {"backend": BACKEND, "versions": versions}
    return build(program, mode, inputs, records, labels, made_by)
