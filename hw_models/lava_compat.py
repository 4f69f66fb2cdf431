"""Repairs that keep lava-nc 0.10.0 and lava-dl 0.6.0 running on current Python and NumPy.

Both are archived upstream. Call `prepare()` before the first `import lava...`; it is idempotent.
Each repair is applied only if it is needed, and states the reason. An unknown version of Lava is an
error, since the repairs were written for the released source of exactly these versions.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from toolchain.errors import MachineError, MissingDependencyError

LAVA_NC = "0.10.0"
LAVA_DL = "0.6.0"
FORK = "fork"
INSTALL = f"pip install --no-deps --ignore-requires-python lava-nc=={LAVA_NC} lava-dl=={LAVA_DL}"


@dataclass(frozen=True)
class Repair:
    """One repair: its name and reason, whether this interpreter needs it, and how to apply it."""

    name: str
    reason: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def require_lava() -> None:
    """Raise MissingDependencyError unless lava-nc is installed in the known version."""
    _require("lava-nc", LAVA_NC)


def _require(package: str, known: str) -> None:
    found = installed_version(package)
    if found is None:
        raise MissingDependencyError("is not installed", node=package, remedy=INSTALL)
    if found != known:
        raise MissingDependencyError(
            "is of a version this project does not know",
            node=package,
            found=found,
            allowed=known,
            remedy=INSTALL,
        )


def prepare() -> tuple[str, ...]:
    """Check the version and apply the repairs that this interpreter needs; returns their names.

    Raises
    ------
    MissingDependencyError
        If lava-nc is missing or of another version.
    MachineError
        If this program starts processes by another method than fork.
    """
    require_lava()
    with _fork_again():
        applied = _apply_repairs()
        _show_tracebacks()
    return applied


@functools.cache
def _apply_repairs() -> tuple[str, ...]:
    applied = []
    for repair in REPAIRS:
        if repair.needed():
            repair.apply()
            applied.append(repair.name)
    return tuple(applied)


def needed_repairs() -> tuple[str, ...]:
    """Names of the repairs that this interpreter needs, without importing lava."""
    return tuple(r.name for r in REPAIRS if r.needed())


@contextmanager
def _fork_again() -> Iterator[None]:
    """Let Lava set the start method of processes again, if it is already the same.

    Lava sets it when it is imported. Python refuses to set it twice, and torch's DataLoader, for
    example, may have set it before.

    Raises
    ------
    MachineError
        If another method was set: Lava passes its processes on by fork.
    """
    chosen = multiprocessing.get_start_method(allow_none=True)
    if chosen not in (None, FORK):
        raise MachineError(
            "Lava's processes start by forking, and this program has chosen another way",
            node="multiprocessing",
            found=chosen,
            allowed=FORK,
            remedy="leave out multiprocessing.set_start_method, or run on Lava by spikeport.run, "
            "which starts an interpreter of its own",
        )
    choose = multiprocessing.set_start_method
    if chosen == FORK:
        multiprocessing.set_start_method = lambda _method, **_options: None
    try:
        yield
    finally:
        multiprocessing.set_start_method = choose


@functools.cache
def _show_tracebacks() -> None:
    """Log the exception of a model as an error.

    Lava's own message says "See output above", but logs the traceback at a level that
    is hidden by default.
    """
    module: Any = importlib.import_module(
        "lava.magma.runtime.message_infrastructure.multiprocessing"
    )
    process = module.SystemProcess
    read = process.exception.fget

    def exception(self: Any) -> Any:
        raised = read(self)
        if raised and not getattr(self, "_spikeport_shown", False):
            self._spikeport_shown = True
            logging.getLogger("lava").error(raised[1].rstrip())
        return raised

    process.exception = property(exception, doc=process.exception.__doc__)


def _import_with_default_factories() -> None:
    """Import `lava.magma.compiler.var_model` while unhashable defaults become default factories.

    Python 3.11 rejects dataclass fields whose default is unhashable, such as instances of other
    plain dataclasses; before 3.11, all instances shared that one object.
    """
    original = dataclasses.dataclass

    def patched(cls: type | None = None, /, **options: Any) -> Any:
        def decorate(target: type) -> type:
            for name in inspect.get_annotations(target):
                default = target.__dict__.get(name)
                if dataclasses.is_dataclass(default) and not isinstance(default, type):
                    factory = functools.partial(dataclasses.replace, default)
                    setattr(target, name, dataclasses.field(default_factory=factory))
            return original(**options)(target)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = patched
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = original


def _reshape_has_newshape() -> bool:
    """Whether `np.reshape` takes `newshape`, which NumPy 2.1 deprecated and later removed."""
    return tuple(int(p) for p in np.__version__.split(".")[:2]) < (2, 1)


def _reshape_by_shape() -> None:
    """Rename the keyword of `np.reshape(newshape=...)` in reshape and flatten ports."""
    ports: Any = importlib.import_module("lava.magma.core.process.ports.ports")

    def forward(self: Any) -> functools.partial[Any]:
        return functools.partial(np.reshape, shape=self.shape)

    def backward(self: Any) -> functools.partial[Any]:
        return functools.partial(np.reshape, shape=self.old_shape)

    ports.ReshapePort.get_transform_func_fwd = forward
    ports.ReshapePort.get_transform_func_bwd = backward


def _wide_conv() -> None:
    """Give stock Conv its geometry as Python integers instead of int8 arrays.

    NumPy 2 (NEP 50) computes `input + 2 * padding` in int8 and fails from 128 pixels on; pass
    plain Python integers to the same function instead.
    """
    _once_imported("lava.proc.conv.utils", _give_plain_geometry)


def _give_plain_geometry(utils: Any) -> None:
    original = utils.conv

    @functools.wraps(original)
    def conv(
        input_: Any,
        weight: Any,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: Any,
    ) -> Any:
        def plain(pair: Any) -> tuple[int, ...]:
            return tuple(int(p) for p in pair)

        return original(
            input_,
            weight,
            plain(kernel_size),
            plain(stride),
            plain(padding),
            plain(dilation),
            int(groups),
        )

    utils.conv = conv


class _Watcher(MetaPathFinder):
    """Calls `repair` with the module `name` as soon as it has been imported."""

    def __init__(self, name: str, repair: Callable[[Any], None]) -> None:
        self._name, self._repair = name, repair

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The usual spec, with the repair after the module's execution."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._repair(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _once_imported(name: str, repair: Callable[[Any], None]) -> None:
    """Repair a module when it is imported; stock Conv imports scipy, which few runs need."""
    if name in sys.modules:
        repair(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Watcher(name, repair))


REPAIRS = (
    Repair(
        "dataclass-defaults",
        "Python 3.11+ refuses the mutable dataclass defaults of lava.magma.compiler.var_model",
        lambda: sys.version_info >= (3, 11),
        _import_with_default_factories,
    ),
    Repair(
        "reshape-keyword",
        "NumPy 2.1+ deprecates np.reshape(newshape=...), used by reshape and flatten ports",
        lambda: not _reshape_has_newshape(),
        _reshape_by_shape,
    ),
    Repair(
        "wide-conv",
        "NumPy 2 computes stock Conv's int8 geometry in int8, which fails from 128 pixels on",
        lambda: int(np.__version__.split(".")[0]) >= 2,
        _wide_conv,
    ),
)


def import_stock_netx() -> ModuleType:
    """Import `lava.lib.dl.netx.hdf5` without torchvision and OpenCV.

    netx imports all of slayer, whose object detection needs both. netx itself needs neither, so
    an empty module replaces that part. The import needs torch, several seconds and half a gigabyte.

    Raises
    ------
    MissingDependencyError
        If lava-dl is missing or of another version.
    """
    prepare()
    _require("lava-dl", LAVA_DL)
    part = "lava.lib.dl.slayer.object_detection"
    if part not in sys.modules:
        sys.modules[part] = ModuleType(part)
    return importlib.import_module("lava.lib.dl.netx.hdf5")
