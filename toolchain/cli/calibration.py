"""Calibration samples from a data source, for the commands that convert."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.conversion.integers.calibration import Calibration
    from toolchain.program.input_quantizer import InputQuantizer


def open_calibration(source: str, quantizer: InputQuantizer, wanted: int, seed: int) -> Calibration:
    """Samples of a data source, of the training split unless it names one."""
    from toolchain.conversion.integers.calibration import Calibration, choose_samples
    from toolchain.data import input_spikes, open_boxes, open_split, parse_source
    from toolchain.data.source import BOX_SOURCES

    if parse_source(source).name in BOX_SOURCES:
        images = open_boxes(source, quantizer.image_size, "train")
        rows = choose_samples(len(images), wanted, seed)
        return Calibration(images.name, input_spikes(quantizer, images)[rows])
    data = open_split(source, "train")
    chosen = data.take(choose_samples(len(data), wanted, seed))
    return Calibration(data.name, input_spikes(quantizer, chosen))
