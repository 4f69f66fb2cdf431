"""The folder that a training run keeps its files in."""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import OutputError
from toolchain.files import check_writable, make_folder
from toolchain.training.checkpoint import INFO_FILE, MODEL_FILE
from toolchain.training.state_file import STATE_FILE

LOG_FILE, CONFIG_FILE = "log.jsonl", "config.toml"


def open_run_folder(folder: Path) -> None:
    """Make the folder, or take the one of an earlier run.

    Raises
    ------
    OutputError
        If it cannot be made or written, or holds weights that no run left there.
    """
    make_folder(folder)
    for name in (MODEL_FILE, INFO_FILE, STATE_FILE, LOG_FILE, CONFIG_FILE):
        check_writable(folder / name)
    left_by_a_run = any((folder / name).exists() for name in (INFO_FILE, STATE_FILE))
    if (folder / MODEL_FILE).exists() and not left_by_a_run:
        raise OutputError(
            "these weights were not left by a run, and are not replaced",
            node=str(folder / MODEL_FILE),
            remedy="give another --out",
        )
