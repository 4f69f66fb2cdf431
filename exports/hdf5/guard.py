"""Check of a file in another process: HDF5 loops or crashes on some damaged files.

The child opens every object and reads chunked data, in which a damaged file can lead in
circles. It ends by itself, at its limits, or by a crash, and the caller only learns which.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import h5py

from exports.hdf5.limits import Excess, beyond_limits
from toolchain.errors import BackendRunError, FormatError

FILE_LOCKING = False
"""Whether HDF5 locks files.

A file is private until it is renamed and never changed afterwards, so a lock is not needed. A
process that starts meanwhile would hold the lock longer than the writer, and the file would look
damaged.
"""
SECONDS = 1.0
"""Processor time in seconds for any file; a network of some hundred objects needs a tenth of it."""
SECONDS_FOR_A_MEGABYTE = 4.0
"""Additional processor time in seconds for each megabyte of the file."""
MOST_SECONDS = 60.0
"""Most processor time in seconds, whatever the size of the file."""
MEMORY = 256 << 20
"""Bytes of address space, in addition to the caller's, for any file."""
MEMORY_FOR_A_BYTE = 64
"""Additional bytes for each byte of the file, which may be compressed."""
DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions of h5py and of the readers for damaged files."""


def check_file(path: Path, also: Callable[[Path], object] | None = None) -> None:
    """Raise FormatError unless the file may be read: complete, bounded and self-contained.

    Parameters
    ----------
    also:
        Further work for the child with a file that may be read, to see whether it ends.
    """
    read, write = os.pipe()
    try:
        with warnings.catch_warnings():
            # The child calls HDF5 only, whose lock h5py keeps consistent over a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError as error:
        os.close(read)
        os.close(write)
        raise BackendRunError(
            "no process can be started to check the file", node=str(path), found=error
        ) from error
    if child == 0:
        _look(path, write, also)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    status = 0
    with suppress(ChildProcessError):
        _, status = os.waitpid(child, 0)
    if not said:
        raise FormatError(
            "reading it ends the process",
            node=str(path),
            found=_ended(os.waitstatus_to_exitcode(status)),
            remedy="export it again from a source you trust",
        )
    answer = json.loads(said)
    if isinstance(answer, str):
        raise unreadable(path, answer)
    if answer:
        excess = Excess(*answer)
        raise FormatError(
            "more than a network file needs",
            node=f"{path}:{excess.where}",
            found=excess.found,
            remedy="export it again from a source you trust",
        )


def unreadable(path: Path, why: str) -> FormatError:
    """The error for a file that HDF5 or a reader cannot read."""
    return FormatError(
        "not a readable HDF5 file (truncated, damaged, or another format)",
        node=str(path),
        found=why,
        remedy="export it again",
    )


def told(error: BaseException) -> str:
    """The message of an error of HDF5, in one line."""
    first, *_ = str(error).splitlines() or [""]
    return first if isinstance(error, OSError) else f"{type(error).__name__}: {first}"


def _ended(code: int) -> str:
    if code == -signal.SIGPROF:
        return "no end within the time that the largest file of its size needs"
    return f"the process ended with {code}"


def _look(path: Path, write: int, also: Callable[[Path], object] | None) -> NoReturn:
    """Work of the child: write the first fault of the file, or null."""
    try:
        faulthandler.disable()
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        size = path.stat().st_size
        seconds = min(MOST_SECONDS, SECONDS + SECONDS_FOR_A_MEGABYTE * size / 1e6)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY + MEMORY_FOR_A_BYTE * size, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer: Excess | str | None = _first_excess(path)
        except DAMAGED as error:
            answer = told(error)
        if answer is None and also is not None:
            # It only has to end: its errors occur again where they are caught.
            with suppress(Exception):
                also(path)
        os.write(write, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _first_excess(path: Path) -> Excess | None:
    with h5py.File(path, "r", locking=FILE_LOCKING) as file:
        for excess in beyond_limits(file):
            return excess
        file.visititems(_take_in)
    return None


def _take_in(name: str, item: h5py.Group | h5py.Dataset) -> None:
    """Read data that are not contiguous in the file: chunks, and strings of variable length."""
    if not isinstance(item, h5py.Dataset):
        return
    if item.chunks is not None and item.size:
        for chunk in item.iter_chunks():
            item[chunk]
    elif item.dtype.hasobject:
        item[()]
