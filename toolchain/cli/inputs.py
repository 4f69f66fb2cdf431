"""The files that a command reads, by what was typed: outputs must be none of them."""

from __future__ import annotations

from pathlib import Path


def data_path(source: str | None) -> Path | None:
    """The file or folder of a data source, None if it has none.

    Raises
    ------
    DataError
        If the text is no data source.
    """
    from toolchain.data import parse_source

    return None if source is None else parse_source(source).path


def network_path(source: str | None) -> Path | None:
    """The file or folder of CHECKPOINT, FILE.py:FACTORY or FILE.nir; None of model:NAME."""
    if source is None:
        return None
    file, separator, _ = source.rpartition(":")
    return Path(file if separator and file.endswith(".py") else source)
