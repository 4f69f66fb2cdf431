"""Data sources by name: `digits`, `fashion-mnist[:DIR]`, `imagefolder:PATH`, `npz:PATH`."""

from toolchain.data.dataset import Dataset, hold_out
from toolchain.data.source import SOURCES, DataSource, open_split, parse_source

__all__ = ["SOURCES", "DataSource", "Dataset", "hold_out", "open_split", "parse_source"]
