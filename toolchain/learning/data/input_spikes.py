"""A data set as the input spikes of a network, with a look at whether its values fit.

Ranges are those of real values. A pixel (uint8) of a source stands for pixel / 255, or pixel / 16
in `digits`: 0 .. 1 whatever `input_range` says. Counts and floats are taken as they are. Values
outside a network's range are an error, nothing is clipped; values that fill little of it lose
precision.
"""

from __future__ import annotations

import logging

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Samples
from toolchain.program.input_quantizer import InputQuantizer

FILLED = 1 / 8
"""Share of the input's integers that data should reach; below it three bits of them are unused."""
VALUES = 1 << 24
"""Most values that are quantized together: in float64 and copies of it, some 500 MB."""
_log = logging.getLogger(__name__)


def input_spikes(quantizer: InputQuantizer, samples: Samples) -> np.ndarray:
    """Graded spikes of all samples, int32 (N, ...), of sequences (N, T, ...).

    Float samples that reach less than `FILLED` of the range are said in the log.

    Raises
    ------
    DataError
        If the shape differs, a value is not finite or outside the range, or pixels of any value
        would reach less than `FILLED` of the range.
    """
    some = max(1, VALUES // samples.samples[0].size)
    parts = (samples.take(slice(first, first + some)) for first in range(0, len(samples), some))
    spikes = np.concatenate([quantizer.quantize(part.real()) for part in parts])
    limit = quantizer.range.high
    if samples.are_counts:
        return spikes
    if samples.pixel_max is None:
        reached = int(max(spikes.max(), -spikes.min()))
        if reached < FILLED * limit:
            _log.warning(
                "warning: %s: samples of %.4g .. %.4g become input spikes of at most %d of %d: "
                "was the network made for values of another range?",
                samples.name,
                *samples.value_range,
                reached,
                limit,
            )
        return spikes
    ends = np.stack([np.full(quantizer.shape, value, np.float64) for value in (0.0, 1.0)])
    reached = int(np.rint(np.abs(quantizer.normalise(ends) / quantizer.scale)).max())
    if reached < FILLED * limit:
        raise DataError(
            "pixels stand for real values 0 .. 1, and the network was made for a wider range",
            node=samples.name,
            found=f"input spikes of at most {reached}",
            allowed=f"about {limit}",
            remedy="convert with input_range=(0, 1); a network that takes pixels of 0 .. 255 has "
            "std=1/255; or give float samples (npz:PATH)",
        )
    return spikes
