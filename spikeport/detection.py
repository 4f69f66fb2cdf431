"""Object detectors: how they are trained, and what their outputs mean as boxes."""

from __future__ import annotations

from toolchain.learning.data import BoxDataset, input_spikes, open_boxes
from toolchain.learning.detection.average_precision import AveragePrecision, average_precision
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.detections import Detections, real_outputs
from toolchain.learning.detection.detections import detect as decode
from toolchain.learning.detection.picture import draw
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.detection.train_detector import train_detector
from toolchain.program.int_program import IntProgram
from toolchain.recording import Recording
from toolchain.simulator.quantized_network import quantized_counts

__all__ = [
    "AveragePrecision",
    "BoxDataset",
    "Detections",
    "DetectorConfig",
    "average_precision",
    "detect",
    "detect_quantized",
    "draw",
    "open_boxes",
    "train_detector",
]


def detect(program: IntProgram, recording: Recording, images: BoxDataset) -> Detections:
    """Boxes that a spiking detector has found.

    Parameters
    ----------
    recording:
        Of `program` on `images`.

    Raises
    ------
    ProgramError
        If the program is no detector.
    """
    outputs = real_outputs(program, recording.outputs)
    return decode(DetectorSpec.of(program), outputs, images)


def detect_quantized(program: IntProgram, images: BoxDataset) -> Detections:
    """Boxes of the quantized network with the program's integers, without a time axis.

    Raises
    ------
    ProgramError
        If the program is no detector, or has no closed form.
    """
    _, outputs = quantized_counts(program, input_spikes(program.input, images))
    return decode(DetectorSpec.of(program), real_outputs(program, outputs), images)
