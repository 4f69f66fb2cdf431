"""Recordings of runs: their content, construction, digests and comparison."""

from toolchain.recording.builder import build, join, make_recorders
from toolchain.recording.compare import Comparison, Divergence, compare
from toolchain.recording.layer_recorder import LayerRecord, LayerRecorder
from toolchain.recording.recording import Recording
from toolchain.recording_mode import Mode

__all__ = [
    "Comparison",
    "Divergence",
    "LayerRecord",
    "LayerRecorder",
    "Mode",
    "Recording",
    "build",
    "compare",
    "join",
    "make_recorders",
]
