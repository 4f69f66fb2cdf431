"""Errors for a network file that is missing, or is not one."""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import FormatError

CHECKPOINT = "checkpoint.json"
"""File in every checkpoint folder of this project."""


def check_is_file(path: Path) -> None:
    """Raise FormatError, with a remedy, unless `path` is a file that can be a network."""
    if (path / CHECKPOINT).is_file():
        raise FormatError(
            "a checkpoint folder is no network file yet",
            node=str(path),
            remedy=f"convert it first: spikeport convert {path} -o {path.resolve().name}.net",
        )
    if path.is_dir():
        raise FormatError("is a folder", node=str(path), allowed="a network file (.net)")
    if path.suffix == ".py" or ".py:" in path.name:
        raise FormatError(
            "is no network file yet",
            node=str(path),
            remedy="convert it first: spikeport convert FILE.py:FACTORY --input-shape C,H,W "
            "-o NET.net",
        )
    if not path.is_file():
        raise FormatError("no such file", node=str(path))
