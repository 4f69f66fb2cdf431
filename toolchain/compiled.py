"""Compilation of loops by numba, once per processor; the compiled code is cached on disk.

Compiling all loops of the simulator takes several seconds without any output, so a log line of
level INFO says when it begins (`benchmarks/first_run.py` measures it). Damaged cached code is
compiled again; numba and LLVM do not detect the damage before they crash. If no cache folder can
be written, loops are compiled in every run.

Loops release Python's lock and start no threads: callers share their work among Python's, see
`toolchain.threads`.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, event, registry

DIGEST_BYTES = 32
_log = logging.getLogger(__name__)

# These classes of numba have no types.
_IndexDataCacheFile: Any = caching.IndexDataCacheFile
_FunctionCache: Any = caching.FunctionCache


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


class _CheckedFile(_IndexDataCacheFile):
    """Cached code whose files begin with a digest of the rest; a damaged file counts as missing."""

    def _read(self, path: str) -> bytes:
        content = Path(path).read_bytes()
        if content[:DIGEST_BYTES] != _digest(content[DIGEST_BYTES:]):
            raise OSError("damaged")
        return content[DIGEST_BYTES:]

    def _write(self, path: str, content: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(_digest(content) + content)

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = pickle.loads(self._read(self._index_path))
        except OSError:
            return {}
        fresh = (version, stamp) == (self._version, self._source_stamp)
        return overloads if fresh else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        content = (self._version, self._source_stamp, overloads)
        self._write(self._index_path, self._dump(content))

    def _load_data(self, name: str) -> Any:
        return pickle.loads(self._read(self._data_path(name)))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), self._dump(data))


class _Kept(_FunctionCache):
    """Cache of a function's compiled code; every failure of the cache only costs time."""

    _cache_file: Any

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        old = self._cache_file
        name = old._index_name.removesuffix(".nbi")
        self._cache_file = _CheckedFile(self._cache_path, name, old._source_stamp)

    def holds_code(self) -> bool:
        """Whether the cache contains code of this version of the function, for any types."""
        return bool(self._cache_file._load_index())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Called by numba to load cached code; None makes numba compile."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001 - whatever it is, compiling mends it
            _log.info("kept code of %s is not used: %s", self._name, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Called by numba to store compiled code."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _log.info("compiled code of %s is not kept: %s", self._name, error)


class _Notice(event.Listener):
    """Logs once that loops of this project are compiled; cached loops cause no event.

    Attributes
    ----------
    unkept:
        Why code cannot be cached, or None.
    """

    def __init__(self) -> None:
        self._said = False
        self.unkept: Exception | None = None

    def on_start(self, event: event.Event) -> None:
        """Called by numba before it compiles."""
        module = event.data["dispatcher"].py_func.__module__
        if self._said or module.partition(".")[0] != __package__:
            return
        self._said = True
        when = "once"
        if self.unkept:
            when = "in every run: there is no folder to keep them in (HOME, NUMBA_CACHE_DIR)"
        _log.info("compiling loops for this processor: %s, for up to half a minute", when)

    def on_end(self, event: event.Event) -> None:
        """Called by numba after it has compiled."""


_notice = _Notice()
event.register("numba:compile", _notice)  # type: ignore[no-untyped-call]


_FOR_PYTHON: Any = {"nogil": True, "no_cfunc_wrapper": True}
"""Options of what only Python calls: an entry for C takes a twentieth of the time to compile."""


def compiled_with(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that compiles a function with numba; `options` are passed to numba."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**_FOR_PYTHON, **options)(function)
        try:
            dispatcher._cache = _Kept(function)
        except (RuntimeError, OSError, KeyError) as error:
            _notice.unkept = error
        return dispatcher

    return decorate


compiled = compiled_with()
part_of_another: Any = numba.njit(nogil=True)
"""Decorator of a function that is compiled and cached only as a part of its callers."""
inlined: Any = numba.njit(nogil=True, forceinline=True)
"""The same, but its code is repeated in each caller: a call stores each array's dozen fields."""


def load_numba() -> None:
    """Load what numba leaves to the first call, so that processes forked later have it already.

    This takes a third of a second in each of them otherwise.
    """
    registry.cpu_target.target_context.refresh()


def is_kept(function: Any) -> bool:
    """Whether code of a compiled function is cached from an earlier run."""
    cache = function._cache
    return isinstance(cache, _Kept) and cache.holds_code()
