"""Opening the data a program runs on: samples with labels, or images with boxes for a detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolchain.data import BoxDataset, Dataset
    from toolchain.program.int_program import IntProgram


def open_for(program: IntProgram, data: str) -> Dataset | BoxDataset:
    """The source `data`; images with boxes are scaled to the program's input.

    Raises
    ------
    DataError
        If the source is not there or malformed, or has other classes than the detector.
    ProgramError
        If it has boxes and the program is no detector.
    """
    from toolchain.data import open_boxes, open_split, parse_source
    from toolchain.data.source import BOX_SOURCES
    from toolchain.detection.spec import DetectorSpec

    if parse_source(data).name not in BOX_SOURCES:
        return open_split(data)
    spec = DetectorSpec.of(program)
    dataset = open_boxes(data, program.input.image_size)
    dataset.check_classes(spec.class_names)
    return dataset
