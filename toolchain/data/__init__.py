"""Data sources by name; `source.py` lists them."""

from toolchain.data.dataset import Dataset, hold_out
from toolchain.data.source import SOURCES, DataSource, open_split, parse_source

__all__ = ["SOURCES", "DataSource", "Dataset", "hold_out", "open_split", "parse_source"]
