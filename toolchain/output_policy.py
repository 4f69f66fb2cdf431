"""The rules for output files of all commands: what may be written where.

A file is written only if its name does not belong to another kind of file, if no file of another
kind has that name, and if it is not an input of the command. An earlier result of the same kind is
replaced; a recording only by one of the same program, since recordings are made to be
compared.
Commands check this before any work begins.
"""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toolchain.containers import read_npz
from toolchain.documents import as_error, parse_json
from toolchain.errors import OutputError, SpikeportError
from toolchain.files import check_writable

HEAD_BYTES = 4096
"""Bytes that are read of an existing file at an output path."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of output file.

    Attributes
    ----------
    name:
        Name in messages, with its article: "a recording".
    suffixes:
        Allowed file name endings, in small letters; a name without an ending is accepted.
    is_one:
        Whether the file at a path, which is not empty, is of this kind.
    """

    name: str
    suffixes: tuple[str, ...]
    is_one: Callable[[Path], bool]


def _begins(pattern: bytes) -> Callable[[Path], bool]:
    """A test whether a file's first bytes contain `pattern` at their beginning."""
    form = re.compile(pattern, re.IGNORECASE | re.DOTALL)

    def begins(path: Path) -> bool:
        with path.open("rb") as file:
            return form.match(file.read(HEAD_BYTES)) is not None

    return begins


def _hdf5(group: str) -> Callable[[Path], bool]:
    """A test whether a file is HDF5 with the group `group` at its root."""
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
ONNX = Kind("an ONNX graph", (".onnx",), _begins(rb"\x08.\x12"))
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
SOURCE = Kind("C source of ours", (".c", ".h"), _begins(rb".*?Written by spikeport"))
MODULE = Kind("a module of ours", (".py",), _begins(rb'""".*Written by spikeport'))
TENSORS = Kind(
    "weights of ours",
    (".safetensors",),
    _begins(rb'.{8}\{"__metadata__":\{"spikeport\.program_hash'),
)
PARTITION = Kind("a partition", (".json",), _begins(rb'\{\s*"format": "spikeport\.partition"'))
NETLIST = Kind("a network of ours for SANA-FE", (".net",), _begins(rb"# Written by spikeport"))
PLAN = Kind("a plan", (".json",), _begins(rb'\{\s*"format": "spikeport\.sanafe"'))
SCRIPT = Kind("a reproducer", (".py",), _begins(rb'""".*Runs one sample through'))


def check_output(path: Path, kind: Kind, inputs: Iterable[Path | None] = ()) -> None:
    """Raise OutputError, before any work, if `path` must not become a file of this kind.

    Parameters
    ----------
    inputs:
        Files and folders that the command reads, and its other outputs; None is ignored. In
        folders of images, no image in a subfolder is replaced.

    Raises
    ------
    OutputError
        If the name belongs to another kind, a file of another kind has that name, `path` is one of
        the inputs under any name, or it cannot be written.
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
            f"the existing file is not {kind.name}, and is not replaced",
            node=str(path),
            remedy="give another name, or move it away",
        )


def tell_replaced(path: Path, program_hash: str) -> None:
    """Log a warning, before any work, if the recording to be replaced is of another program."""
    if not path.exists() or not path.stat().st_size:
        return
    found = "unknown"
    with suppress(SpikeportError), as_error(OutputError, "no recording of ours", str(path)):
        found = str(parse_json(str(read_npz(path, ("meta",))["meta"]))["program_hash"])[:16]
    if found != program_hash[:16]:
        _log.warning("%s: a recording of another program (%s) is replaced", path, found)


def _is_one(path: Path, kind: Kind) -> bool:
    try:
        return kind.is_one(path)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile):
        # Not readable as this kind, so it is of another.
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
