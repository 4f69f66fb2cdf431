"""Data sources by name; `source.py` lists them."""

from toolchain.learning.data.boxes import BoxDataset, Boxes
from toolchain.learning.data.dataset import Dataset, Samples, hold_out
from toolchain.learning.data.input_spikes import input_spikes
from toolchain.learning.data.source import (
    SOURCES,
    DataSource,
    box_splits,
    open_boxes,
    open_split,
    parse_source,
)

__all__ = [
    "SOURCES",
    "BoxDataset",
    "Boxes",
    "DataSource",
    "Dataset",
    "Samples",
    "box_splits",
    "hold_out",
    "input_spikes",
    "open_boxes",
    "open_split",
    "parse_source",
]
