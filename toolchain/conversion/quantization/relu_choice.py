"""Thresholds for plain ReLUs: one percentile for all, or the better of several fits.

Without a percentile given, three forms of the network are compared on calibration samples that
none of them was fitted on: thresholds from percentile `USUAL`, thresholds and initial potentials
fitted to the error they cause, and fitted weights as well (`relu_fit`). The one whose outputs lie
nearest to those of the trained network is taken: of a classifier by the divergence of its class
probabilities, which tells more than the share of equal classes from few samples, and more of the
classes than the error of the outputs. On an MNIST network at T = 1, with 50 of 2000 samples drawn
300 times, the form chosen by divergence, share of equal classes and error had the trained network's
class on 98.80, 98.76 and 98.71 % of all.
"""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from toolchain.conversion.float_values import samples_at_once
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.conversion.quantization.percentile import plain_relus, with_thresholds
from toolchain.conversion.quantization.relu_fit import Timing, fit_relus, outputs_of
from toolchain.errors import ConversionError
from toolchain.program.float_program import Conv2d, FloatProgram, Linear
from toolchain.program.input_quantizer import InputQuantizer

USUAL = 99.9
"""Percentile of the form without a fit (Rueckauer et al. 2017)."""
HELD_OUT = 4
"""Every `HELD_OUT`-th calibration sample is kept for the comparison."""
MOST_OPERATIONS = 400_000_000_000
"""Multiply-adds of the simulation that a fit is made on: some 40 seconds on one core.

On a CIFAR-10 network at T = 4, fits on 32 and 100 samples left errors of 14.2 and 10.5 % of the
outputs on 300 others.
"""
MOST_BYTES = 4 << 30
"""Memory for what layers send in all steps."""
FEWEST = 32
"""Samples of a fit, whatever they cost."""
AT_ONCE = 8
"""Samples simulated together where the forms are compared."""
NAMES = (f"percentile {USUAL}", "fitted thresholds", "fitted weights too")


def choose_relus(
    program: FloatProgram,
    quantizer: InputQuantizer,
    calibration: Calibration,
    timing: Timing,
    *,
    percentile: float | None,
    fit_weights: bool,
) -> tuple[FloatProgram, tuple[str, ...]]:
    """`program` with thresholds for its plain ReLUs, and a note on what was chosen.

    Parameters
    ----------
    percentile:
        This percentile of each channel's outputs; None for the best of the three forms.
    fit_weights:
        Whether the form with fitted weights takes part.

    Raises
    ------
    ConversionError
        If the percentile is out of range, there is no ReLU for it, or a ReLU is dead.
    """
    total, levels = len(calibration.inputs), timing.levels
    if percentile is not None:
        batches = calibration.batches(quantizer, samples_at_once(program))
        found = with_thresholds(program, batches, total, percentile=percentile, levels=levels)
        return found, ()
    if not plain_relus(program):
        return program, ()
    rows = np.arange(total)
    most = _most_samples(program, timing)
    held, rest = (
        calibration.by_steps(quantizer, some[:most])
        for some in (rows[::HELD_OUT], rows[rows % HELD_OUT != 0])
    )
    forms = {
        name: fit_relus(program, rest, timing, weights=weights)
        for name, weights in zip(NAMES[1:], (False, True)[: 1 + fit_weights], strict=False)
    }
    try:
        parts = torch.split(rest.double().mean(0), samples_at_once(program))
        usual = with_thresholds(program, parts, rest.shape[1], percentile=USUAL, levels=levels)
        forms = {NAMES[0]: usual, **forms}
    except ConversionError:  # dead up to this percentile: the fits look at all outputs
        pass
    wanted = outputs_of(program, held, None)
    outputs = {
        name: torch.cat([outputs_of(form, few, timing) for few in torch.split(held, AT_ONCE, 1)])
        for name, form in forms.items()
    }
    classes = len(program.outputs) == 1 and len(program.shapes()[program.outputs[0]]) == 1
    classes = classes and wanted.shape[1] > 1
    measure, kind = (_divergence, "divergence") if classes else (_distance, "error")
    errors = {name: measure(found, wanted) for name, found in outputs.items()}
    chosen = min(errors, key=lambda name: errors[name])
    told = ", ".join(f"{error:.3g} with {name}" for name, error in errors.items())
    note = (
        f"plain ReLUs: {chosen}; {kind} of the outputs over {timing.steps} steps on "
        f"{held.shape[1]} calibration samples kept apart, in float: {told}"
    )
    return forms[chosen], (note,)


def _most_samples(program: FloatProgram, timing: Timing) -> int:
    """Samples that a fit may simulate."""
    shapes = program.shapes()
    steps = 1 if timing.settled else timing.steps
    operations = sum(
        prod(shapes[n.name]) * n.weight[0].size
        for n in program.nodes
        if isinstance(n, Conv2d | Linear)
    )
    largest = max(prod(shape) for shape in shapes.values())
    # What a layer takes, its currents, what it sends and a copy, in float32.
    by_memory = MOST_BYTES // (16 * steps * largest)
    return max(FEWEST, min(MOST_OPERATIONS // (steps * max(operations, 1)), by_memory))


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Share of the variance of `wanted`, (n, k), that no multiple of `found` explains.

    Means of samples are taken off, since they change no class.
    """
    if wanted.shape[1] > 1:
        found, wanted = (v - v.mean(1, keepdim=True) for v in (found, wanted))
    squares = float(found.square().sum() * wanted.square().sum())
    return 1.0 - float((found * wanted).sum()) ** 2 / squares if squares else 1.0


def _divergence(found: Tensor, wanted: Tensor) -> float:
    """Kullback-Leibler divergence of the softmax of the best multiple of `found`, (n, k), in nats.

    From that of `wanted`; the mean over the samples.
    """
    f, w = (v - v.mean(1, keepdim=True) for v in (found, wanted))
    squares = float(f.square().sum())
    f = f * (float((f * w).sum()) / squares if squares else 1.0)
    each = w.softmax(1) * (w.log_softmax(1) - f.log_softmax(1))
    return float(each.sum(1).mean())
