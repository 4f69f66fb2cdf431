"""System resources that a Lava run needs, counted before its first process starts.

A run that does not fit would fail half way, and without free descriptors even its report may fail.
So the worker raises its soft limits as far as possible, and stops at once if the run still does not
fit.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from toolchain.errors import BackendRunError

SHARED_MEMORY = Path("/dev/shm")
FEWER = 'the fast models with fewer blocks (models="fast"), which start fewer processes'
SPARE_FILES = 16
"""Open files that a Lava process may need besides the counted ones."""
PROCESS_BYTES = 5_000_000
"""Smallest memory of each Lava process, in bytes, without its arrays."""
UNLIMITED_STACK = 2 << 20
"""Bytes of a thread's stack if `ulimit -s` is unlimited (glibc, ARCH_STACK_DEFAULT_SIZE)."""


@dataclass(frozen=True)
class Needs:
    """Needs of a run, as counts and bytes, of one process or of all.

    Attributes
    ----------
    processes:
        Number of Lava processes.
    open_files:
        Number of open files of the process with the most: it starts all, and each inherits its open
        files. A process takes 7 (a pipe, a queue and a sentinel), each channel 1 (its shared
        memory), and each channel of the runtime another one.
    threads:
        Number of threads of all processes: two per channel, two per process.
    shared_memory:
        Bytes of pages for semaphores (2 per channel, 3 per process) and messages.
    memory:
        Smallest memory of all processes, in bytes.
    address_space:
        Bytes that the process with the most threads needs in addition to the first process: one
        stack per channel of the runtime.
    """

    processes: int
    open_files: int
    threads: int
    shared_memory: int
    memory: int
    address_space: int

    @classmethod
    def of(cls, executable: Any, num_steps: int) -> Needs:
        """Needs of a compiled Lava network, `lava.magma.compiler.executable.Executable`."""
        between = [builder.src_port_initializer for builder in executable.channel_builders]
        own = [builder.port_initializer for builder in executable.sync_channel_builders]
        processes = len(executable.proc_builders) + len(executable.runtime_service_builders)
        page = resource.getpagesize()
        messages = sum(-(-_ring_bytes(port, num_steps) // page) for port in between + own)
        channels = len(between) + len(own)
        return cls(
            processes,
            7 * processes + channels + len(own) + SPARE_FILES,
            2 * (channels + processes) + 4,
            page * (2 * channels + 3 * processes + messages),
            processes * PROCESS_BYTES,
            len(own) * _stack_bytes(),
        )


def _ring_bytes(port: Any, num_steps: int) -> int:
    """Bytes of a channel's messages: a ring, no longer than the number of steps."""
    import numpy as np  # the supervisor imports this file and must start quickly

    return int(prod(port.shape)) * np.dtype(port.d_type).itemsize * min(port.size, num_steps)


def _stack_bytes() -> int:
    """Address space of a thread's stack."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return UNLIMITED_STACK if soft == resource.RLIM_INFINITY else soft


def provide(needs: Needs) -> None:
    """Raise this process' limit of open files to `needs`, up to the hard limit.

    Raises
    ------
    BackendRunError
        If the run does not fit. The error names the limit.
    """
    files = needs.open_files + sum(1 for _ in Path("/proc/self/fd").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        if wanted < files:
            raise _too_much(needs, "open files", files, wanted, errno.EMFILE)
    for what, needed, allowed, code in _other_needs(needs):
        if needed > allowed:
            raise _too_much(needs, what, needed, allowed, code)


def _other_needs(needs: Needs) -> Iterator[tuple[str, int, int, int]]:
    """The other needs: name, need, limit, and the system's error number for it."""
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    if os.geteuid() and most != resource.RLIM_INFINITY:
        yield "processes and threads", needs.threads, most - _own_threads(), errno.EAGAIN
    allowed = _number(Path("/sys/fs/cgroup/pids.max"))
    if allowed is not None:
        used = _number(Path("/sys/fs/cgroup/pids.current")) or 0
        yield "processes and threads", needs.threads, allowed - used, errno.EAGAIN
    free = shutil.disk_usage(SHARED_MEMORY).free
    yield "bytes of shared memory", needs.shared_memory, free, errno.ENOSPC
    yield "bytes of memory", needs.memory, _free_memory(), errno.ENOMEM
    for option, taken, most in _limits_of_memory():
        needed = taken + needs.address_space
        yield f"bytes of memory in one process ({option})", needed, most, errno.ENOMEM


def _limits_of_memory() -> Iterator[tuple[str, int, int]]:
    """Limits of this process' memory: name, current use, and limit.

    They are not raised like others: they protect the system's memory.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    for option, kind, name in (
        ("ulimit -v", resource.RLIMIT_AS, "VmSize"),
        ("ulimit -d", resource.RLIMIT_DATA, "VmData"),
    ):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield option, 1024 * int(status[name].split()[0]), soft


def _number(path: Path) -> int | None:
    """The number in a file of a control group; None without a file or a limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _own_threads() -> int:
    """Number of threads of all visible processes of this user."""
    count, user = 0, os.getuid()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if process.stat().st_uid == user:
                    count += sum(1 for _ in (process / "task").iterdir())
            except OSError:
                continue
    return count


def _free_memory() -> int:
    """Free memory in bytes, of the system or of this control group."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kib,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return min(1024 * kib, _number(Path("/sys/fs/cgroup/memory.max")) or 1024 * kib)


def _too_much(needs: Needs, what: str, needed: int, allowed: int, code: int) -> BackendRunError:
    return BackendRunError(
        f"the Lava run needs more {what} than it may have",
        node="lava",
        found=f"about {needed:,} for {needs.processes} Lava processes",
        allowed=f"{max(allowed, 0):,}",
        remedy=_REMEDIES[code](""),
    )


def _full(text: str) -> str:
    """Full storage named in the last frame of a traceback: semaphores and segments, or a file."""
    last = text.rpartition('File "')[2]
    if text and "/synchronize.py" not in last and "/shared_memory.py" not in text:
        return "the folder for temporary files (TMPDIR) is full; make room, or name another one"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return (
        f"shared memory is full: {SHARED_MEMORY} holds {usage.total:,} bytes; make it larger "
        f"(docker run --shm-size), or use {FEWER}"
    )


def _of_threads(_: str) -> str:
    options = ["ulimit -u", *(option for option, *_ in _limits_of_memory())]
    return f"raise the limit of processes ({' and '.join(options)}), or use {FEWER}"


def _of_memory(_: str) -> str:
    options = [option for option, *_ in _limits_of_memory()]
    more = f"raise the limit of it ({' and '.join(options)})" if options else "free some memory"
    return f"{more}, or use {FEWER}, or fewer samples"


_REMEDIES: dict[int, Callable[[str], str]] = {
    errno.ENOSPC: _full,
    errno.EMFILE: lambda _: f"raise the limit of open files (ulimit -Hn), or use {FEWER}",
    errno.EAGAIN: _of_threads,
    errno.ENOMEM: _of_memory,
}
_SIGNS = {
    errno.EAGAIN: "can't start new thread",
    errno.ENOMEM: "MemoryError",
}


def remedy_for(text: str) -> str | None:
    """A remedy for the failure in a traceback or a line, if it was caused by a limit."""
    for code, remedy in _REMEDIES.items():
        if os.strerror(code) in text or _SIGNS.get(code, os.strerror(code)) in text:
            return remedy(text)
    if f"signal {signal.SIGBUS.value} " in text:
        return _full("")
    if f"signal {signal.SIGKILL.value} " in text:
        return (
            "a user ended it, or the system for lack of memory: free some memory, or use "
            f"{FEWER}, or fewer samples"
        )
    if _is_full(Path(os.environ.get("TMPDIR", "/tmp"))):
        return _full(text)
    return _full("") if _is_full(SHARED_MEMORY) else None


def _is_full(folder: Path) -> bool:
    """Whether the folder has no space left; not every failure says so."""
    return folder.is_dir() and shutil.disk_usage(folder).free < resource.getpagesize()
