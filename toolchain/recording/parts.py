"""Finished chunks of a run in progress, so that a crash loses at most one chunk.

A folder beside the recording: `run.json` identifies the run, `<chunk>.npz` contains the records of
every population. It is removed when the recording is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.canonical import canonical_json
from toolchain.containers import read_npz
from toolchain.documents import as_error, parse_json, read_text
from toolchain.errors import RecordingError
from toolchain.files import atomic_path
from toolchain.recording.layer_recorder import LayerRecord

PROGRAM = "program"
"""Key of the program's hash in a run's identity."""


class Parts:
    """The chunks of one run in `folder`.

    Parameters
    ----------
    identity:
        All that decides the content of the chunks, as JSON.
    resume:
        Continue with the chunks of the folder; otherwise chunks of the same program are deleted.

    Raises
    ------
    RecordingError
        If chunks to continue with are of another run, or damaged; if chunks to delete are
        of another program.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self._folder = folder
        self._described = canonical_json(dict(identity))
        if folder.is_dir() and any(folder.iterdir()):
            self._check(resume=resume)
        if not resume:
            self.remove_folder(folder)

    def _check(self, *, resume: bool) -> None:
        folder = str(self._folder)
        with as_error(
            RecordingError, "these are not the parts of a run", folder, "remove the folder"
        ):
            before = parse_json(read_text(self._folder / "run.json"))
        now = json.loads(self._described)
        different = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if not resume and PROGRAM in different:
            raise RecordingError(
                "finished samples of another program lie there, and are not thrown away",
                node=folder,
                found=str(before.get(PROGRAM))[:16],
                allowed=str(now.get(PROGRAM))[:16],
                remedy="give another name, or remove the folder",
            )
        if resume and different:
            raise RecordingError(
                "the parts are of another run",
                node=str(self._folder),
                found=f"differs in {', '.join(different)}",
                remedy="repeat the command that was interrupted, or leave out resume=",
            )

    def has(self, chunk: int) -> bool:
        """Whether a chunk is finished."""
        return self._path(chunk).is_file()

    def load(self, chunk: int) -> dict[str, LayerRecord] | None:
        """The records of a chunk by population; None if it is not finished.

        Raises
        ------
        RecordingError
            If the file is damaged.
        """
        path = self._path(chunk)
        if not self.has(chunk):
            return None
        arrays: dict[str, dict[str, np.ndarray]] = {}
        with as_error(RecordingError, "a part is damaged", str(path), "remove the file"):
            for key, array in read_npz(path).items():
                name, _, what = key.rpartition("/")
                arrays.setdefault(name, {})[what] = array
            return {name: LayerRecord.of_arrays(a) for name, a in arrays.items()}

    def save(self, chunk: int, records: Mapping[str, LayerRecord]) -> None:
        """Store a finished chunk; the first one creates the folder."""
        if not (self._folder / "run.json").is_file():
            self._folder.mkdir(exist_ok=True)
            with atomic_path(self._folder / "run.json") as partial:
                partial.write_text(self._described)
        arrays = {
            f"{name}/{what}": array
            for name, record in records.items()
            for what, array in record.arrays().items()
        }
        with atomic_path(self._path(chunk)) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    @staticmethod
    def remove_folder(folder: Path) -> None:
        """Remove the folder of chunks, if it exists; other files in it are an error.

        Raises
        ------
        RecordingError
            If the folder exists and contains anything else than the parts of a run.
        """
        if folder.is_dir() and not (folder / "run.json").is_file() and any(folder.iterdir()):
            raise RecordingError(
                "these are not the parts of a run", node=str(folder), remedy="move the folder away"
            )
        shutil.rmtree(folder, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        return self._folder / f"{chunk}.npz"
