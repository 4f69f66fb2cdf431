"""What a command may write where: the one place that all outputs of all commands go through.

A file is written only if its name does not say that it is something else, if nothing of another
kind stands there, and if it is none of the command's own inputs. An earlier result of the same
kind is replaced; a recording only by one of the same program, since recordings are there to be
compared.
Commands ask before any work begins.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from toolchain.containers import read_npz
from toolchain.documents import as_error, parse_json
from toolchain.errors import OutputError
from toolchain.files import check_writable

HEAD_BYTES = 4096
"""What is read of a file that stands in the place of an output."""


@dataclass(frozen=True)
class Kind:
    """What a command writes.

    Attributes
    ----------
    name:
        For messages: "a recording".
    suffixes:
        How its name may end, in small letters; a name without an ending says nothing and is taken.
    is_one:
        Whether the file at a path, not empty, is an earlier one.
    """

    name: str
    suffixes: tuple[str, ...]
    is_one: Callable[[Path], bool]


def _begins(pattern: bytes) -> Callable[[Path], bool]:
    """Whether a file's head holds `pattern` at its begin."""
    form = re.compile(pattern, re.IGNORECASE | re.DOTALL)

    def begins(path: Path) -> bool:
        with path.open("rb") as file:
            return form.match(file.read(HEAD_BYTES)) is not None

    return begins


def _hdf5(group: str) -> Callable[[Path], bool]:
    """Whether a file is HDF5 with this group at its root."""
    is_hdf5 = _begins(rb"\x89HDF\r\n\x1a\n")

    def holds(path: Path) -> bool:
        if not is_hdf5(path):
            return False
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            return file.get(group, getclass=True, getlink=True) is h5py.HardLink

    return holds


def _is_recording(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return "meta.npy" in archive.namelist()


_IMAGES = rb"\x89PNG\r\n\x1a\n|%PDF|<\?xml.*?<svg|<svg"

NETWORK = Kind("a network", (".net",), _hdf5("layer"))
NIR = Kind("a NIR graph", (".nir",), _hdf5("node"))
RECORDING = Kind("a recording", (".npz",), _is_recording)
AUDIT = Kind("an audit", (".json",), _begins(rb'\s*{\s*"audit_version"'))
EVALUATION = Kind("an evaluation", (".json",), _begins(rb'\s*{\s*"evaluation_version"'))
DETECTION = Kind("an evaluation", (".json",), _begins(rb'\s*{\s*"detection_version"'))
FINDINGS = Kind("findings of lint", (".json",), _begins(rb'\s*{\s*"files"'))
SARIF = Kind("findings in SARIF", (".sarif", ".json"), _begins(rb'\s*{\s*"\$schema".*sarif'))
PAGE = Kind("a page", (".html", ".htm"), _begins(rb"\s*<!doctype html"))
PICTURE = Kind("a picture", (".png",), _begins(rb"\x89PNG\r\n\x1a\n"))
PLOT = Kind("a plot", (".png", ".pdf", ".svg"), _begins(_IMAGES))
STORE = Kind("a sweep", (".sqlite", ".sqlite3", ".db"), _begins(rb"SQLite format 3\x00"))
SAMPLE = Kind("a sample", (".npy",), _begins(rb"\x93NUMPY"))
SCRIPT = Kind("a reproducer", (".py",), _begins(rb'""".*Runs one sample through'))


def check_output(path: Path, kind: Kind, inputs: Iterable[Path | None] = ()) -> None:
    """Raise OutputError, before any work, if `path` must not become a file of this kind.

    Parameters
    ----------
    inputs:
        Files and folders that the command reads, and its other outputs; None is left out. Of
        folders of images no image is replaced: those lie in folders within.

    Raises
    ------
    OutputError
        If the name ends as that of something else, something else stands there, it is one of the
        inputs by any name, or it cannot be written.
    """
    allowed = " or ".join(kind.suffixes)
    if path.suffix.lower() not in ("", *kind.suffixes):
        raise OutputError(
            f"the name says that this is something else than {kind.name}",
            node=str(path),
            found=path.suffix,
            allowed=allowed,
            remedy=f"{path.with_suffix(kind.suffixes[0])}",
        )
    check_writable(path)
    for source in inputs:
        if source is not None and _is_input(path, source, kind):
            raise OutputError(
                "the output is also an input",
                node=str(path),
                found=source,
                remedy="give another name",
            )
    if path.exists() and path.stat().st_size and not _is_one(path, kind):
        raise OutputError(
            f"what stands there is not {kind.name}, and is not replaced",
            node=str(path),
            remedy="give another name, or move it away",
        )


def check_program(path: Path, program_hash: str) -> None:
    """Raise OutputError, before any work, if an earlier recording at `path` is of another program.

    Raises
    ------
    OutputError
        Also if it does not say of which.
    """
    if not path.exists() or not path.stat().st_size:
        return
    remedy = "give another name, or delete it"
    told = "a recording of an unknown program stands there, and is not replaced"
    with as_error(OutputError, told, str(path), remedy):
        found = str(parse_json(str(read_npz(path, ("meta",))["meta"]))["program_hash"])
    if found != program_hash:
        raise OutputError(
            "a recording of another program stands there, and is not replaced",
            node=str(path),
            found=found[:16],
            allowed=program_hash[:16],
            remedy=remedy,
        )


def _is_one(path: Path, kind: Kind) -> bool:
    try:
        return kind.is_one(path)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        # Not readable as this kind, so it is none.
        return False


def _is_input(path: Path, source: Path, kind: Kind) -> bool:
    """Whether writing `path` replaces `source`, or an image in the folder `source`."""
    if os.path.realpath(path) == os.path.realpath(source):
        return True
    if not path.exists() or not source.exists():
        return False
    if source.is_dir():
        return kind in (PICTURE, PLOT) and source.resolve() in path.resolve().parent.parents
    return path.samefile(source)
