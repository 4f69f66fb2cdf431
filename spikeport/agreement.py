"""How often the integer network answers as the network that was trained, on calibration samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.accuracy import Accuracy
from toolchain.program.synops import dense_operations
from toolchain.recording import Mode

if TYPE_CHECKING:
    from toolchain.conversion.quantization.calibration import Calibration
    from toolchain.program.float_program import FloatProgram
    from toolchain.program.int_program import IntProgram

MOST_OPERATIONS = 4_000_000_000
"""Multiply-adds of the samples together: about a second, so that conversion stays fast."""
FEWEST = 10
"""A share of fewer samples says nothing; large networks run on this many."""
GOOD = 0.9
"""Share below which a note says that accuracy is lost, and what to do."""


def agreement(
    program: IntProgram, trained: FloatProgram, calibration: Calibration
) -> Accuracy | None:
    """Calibration samples on which both networks have the same largest output.

    `trained` is the folded network as it was trained: quantized activations with their levels,
    plain ReLUs without a threshold.

    Returns
    -------
    None of networks that are no classifiers (several outputs, maps, one number), and of fewer than
    `FEWEST` samples.
    """
    import torch

    from toolchain.conversion.float_values import evaluate
    from toolchain.engine.simulate import quicker_way, simulate
    from toolchain.program.float_program import Activation

    readouts = program.readouts
    # A convolution that sees padding only has no multiply-add at all.
    most = MOST_OPERATIONS // max(dense_operations(program), 1)
    count = min(len(calibration.inputs), max(most, FEWEST))
    if len(readouts) != 1 or len(readouts[0].shape) != 1 or readouts[0].shape[0] < 2:
        return None
    if count < FEWEST:
        return None
    inputs = calibration.inputs[:count]
    relus = [n.name for n in trained.nodes if isinstance(n, Activation) and n.bound is not None]
    samples = torch.from_numpy(program.input.mean_inputs(inputs) * program.input.scale)
    expected = evaluate(trained, samples, clipped=relus).numpy()
    found = simulate(program, inputs, mode=Mode.COUNTS, way=quicker_way(program, count)).logits
    return Accuracy.of(found, expected.argmax(axis=1))


def advice(found: Accuracy) -> str:
    """A note for a share below `GOOD`."""
    return (
        f"accuracy is lost: the class of the trained network on only {found.correct} of "
        f"{found.total} calibration samples. More steps, thresholds of plain ReLUs fitted to the "
        "calibration data (no relu_percentile=), rounding gptq, more weight bits or CIF neurons "
        "change that; an audit says what each layer and cause costs"
    )
