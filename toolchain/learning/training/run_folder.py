"""The folder that a training run keeps its files in."""

from __future__ import annotations

from pathlib import Path

from toolchain.documents import as_error, parse_json, read_text
from toolchain.errors import CheckpointError, OutputError
from toolchain.files import check_writable, make_folder
from toolchain.learning.training.checkpoint import INFO_FILE, MODEL_FILE
from toolchain.learning.training.settings import Settings
from toolchain.learning.training.state_file import STATE_FILE, check_settings

LOG_FILE, CONFIG_FILE = "log.jsonl", "config.toml"
ANOTHER = "give another folder="


def open_run_folder(folder: Path, settings: Settings) -> None:
    """Make the folder, or take the one of an earlier run.

    Raises
    ------
    OutputError
        If it cannot be made or written, or holds weights that no run left there.
    CheckpointError
        If the checkpoint there is of other settings, or damaged. Where the run's state lies
        beside it, that state decides, when it is read.
    """
    make_folder(folder)
    for name in (MODEL_FILE, INFO_FILE, STATE_FILE, LOG_FILE, CONFIG_FILE):
        check_writable(folder / name)
    if (folder / STATE_FILE).exists():
        return
    info = folder / INFO_FILE
    if info.exists():
        with as_error(CheckpointError, "damaged, and not replaced", str(info), ANOTHER):
            config = parse_json(read_text(info))["config"]
        check_settings(folder, config, settings)
    elif (folder / MODEL_FILE).exists():
        raise OutputError(
            "these weights were not left by a run, and are not replaced",
            node=str(folder / MODEL_FILE),
            remedy=ANOTHER,
        )
