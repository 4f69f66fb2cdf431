"""User code: loaded as `python FILE.py` loads it, and run inside one guard.

A file is loaded with its folder first on the path, so that it can import the files beside it.
The folder is on the path only while code of that folder runs: while the file loads, in its
factories, and in the modules they make. Modules imported from the folder are stored with it, not in
`sys.modules`, so that a file of another folder does not get the packages of the first.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from toolchain.errors import SpikeportError, UnsupportedModuleError

OURS = {"toolchain", "exports", "hw_models"}
"""Packages of this project, which no user folder replaces."""
LONGEST_MESSAGE = 300


class Home:
    """A folder of user code, and the modules that were imported from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = [str(folder)]
        self._modules: dict[str, ModuleType] = {}
        self._entered = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the folder first on the path and its modules into `sys.modules`, inside the block.

        Path entries added by the code itself are also there inside the block only.
        """
        if self._entered:
            yield
            return
        hides = {top for top in {_top(n) for n in set(sys.modules)} if self._hides(top)}
        hidden = {n: sys.modules[n] for n in set(sys.modules) if _top(n) in hides}
        for name in hidden:
            del sys.modules[name]
        before, path = set(sys.modules), list(sys.path)
        sys.modules.update(self._modules)
        sys.path[:0] = self._path
        importlib.invalidate_caches()
        self._entered = True
        try:
            yield
        finally:
            self._entered = False
            self._path = [entry for entry in sys.path if entry not in path] or self._path
            sys.path[:] = path
            own = {n for n in set(sys.modules) - before if "." not in n and self._is_own(n)}
            self._modules = {n: sys.modules[n] for n in set(sys.modules) if _top(n) in own}
            for name in self._modules:
                del sys.modules[name]
            sys.modules.update(hidden)

    def _hides(self, top: str) -> bool:
        """Whether this folder has a module of that name while another, not installed, is loaded."""
        loaded = sys.modules.get(top)
        if loaded is None or top in OURS or top in sys.stdlib_module_names:
            return False
        here = (self.folder / f"{top}.py", self.folder / top / "__init__.py")
        origin = getattr(loaded, "__file__", None)
        if origin is None or Path(origin) in here or not any(path.is_file() for path in here):
            return False
        return not _is_installed(origin)

    def _is_own(self, top: str) -> bool:
        """Whether a top-level module comes from this home's path and exists on no other."""
        module = sys.modules[top]
        places = [str(Path(p).parent) for p in getattr(module, "__path__", ())]
        places = places or [str(Path(getattr(module, "__file__", None) or "").parent)]
        if not set(places) & set(self._path):
            return False
        found = (finder.find_spec(top, None) for finder in sys.meta_path)
        elsewhere = next((spec for spec in found if spec is not None), None)
        origin = getattr(module, "__file__", None)
        return elsewhere is None or origin is None or elsewhere.origin != origin


def _top(name: str) -> str:
    """The outermost package of a module."""
    return name.partition(".")[0]


_HOMES: dict[Path, Home] = {}
_HOME_OF: WeakKeyDictionary[Any, Home] = WeakKeyDictionary()


def home(folder: Path) -> Home:
    """The home of a folder; the same object in every call."""
    folder = folder.resolve()
    return _HOMES.setdefault(folder, Home(folder))


@contextmanager
def user_code(what: str, node: str, place: Home | None = None) -> Iterator[None]:
    """Run user code; any exception becomes one error that says whose code failed.

    Its prints go to standard error, since standard output is for results.

    Parameters
    ----------
    what:
        The error's message: "the factory fails".
    node:
        File, factory or class, for the error.
    place:
        The home of the code, or None.

    Raises
    ------
    UnsupportedModuleError
        If the code raises. The error has the exception, its line in the user's code, and a remedy.
    """
    try:
        with place.entered() if place else nullcontext(), redirect_stdout(sys.stderr):
            yield
    except SpikeportError:
        raise
    except (Exception, SystemExit) as error:
        raise UnsupportedModuleError(
            what, node=node, found=told(error), remedy=_remedy(error)
        ) from error


def home_of(model: object) -> Home | None:
    """The home of the factory that made `model`; None for anything else."""
    with suppress(TypeError):  # a number or a list, which factories may return by mistake
        return _HOME_OF.get(model)
    return None


def share_home(model: object, made_of_it: object) -> None:
    """Give what was made of `model` its home, if it has one."""
    place = home_of(model)
    if place is not None:
        _HOME_OF[made_of_it] = place


def told(error: BaseException) -> str:
    """An exception in one line, with the line of user code that raised it."""
    message = " ".join(str(error).split())
    text = textwrap.shorten(message, LONGEST_MESSAGE, placeholder=" ...")
    where = _line(error)
    return f"{type(error).__name__}{f': {text}' if text else ''}{f' ({where})' if where else ''}"


def _line(error: BaseException) -> str:
    """`FILE:LINE` of the innermost frame that belongs neither to this project, torch nor Python."""
    if isinstance(error, SyntaxError):
        return ""  # the error states its line itself
    ours = f"{Path(__file__).parent}/"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<"))
    ]
    own = [frame for frame in frames if not _is_installed(frame.filename)]
    if not own:
        return ""
    return f"{_shown(Path(own[-1].filename))}:{own[-1].lineno}"


def _is_installed(file: str) -> bool:
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return file.startswith(tuple(f"{paths[kind]}/" for kind in kinds))


def _shown(path: Path) -> Path:
    """`path` relative to the working folder, if it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _remedy(error: BaseException) -> str | None:
    """A remedy for the most common errors of user code."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"install {error.name}, or put it into the folder of the file that is given, or on "
            "PYTHONPATH"
        )
    if any(word in text for word in ("CUDA", "NVIDIA", "cuda")):
        return "make and run the network on the CPU: leave out .cuda() and device='cuda'"
    if isinstance(error, SystemExit):
        return "what a script does when it is run belongs under if __name__ == '__main__':"
    return None


class Source:
    """A loaded file or module of the user.

    Attributes
    ----------
    name:
        The name as given by the user.
    file:
        Path of the file; None for a module without a file.
    """

    def __init__(self, name: str, place: Home, module: ModuleType) -> None:
        self.name = name
        self.file = Path(module.__file__) if module.__file__ else None
        self._place, self._module = place, module

    def callables(self) -> list[str]:
        """Names of the functions and classes that are defined in the file, not imported."""
        return [
            name
            for name, value in vars(self._module).items()
            if callable(value)
            and not name.startswith("_")
            and getattr(value, "__module__", None) == self._module.__name__
        ]

    def parameters(self, factory: str) -> list[str]:
        """Names of a factory's parameters; none where Python cannot tell."""
        try:
            return list(signature(getattr(self._module, factory)).parameters)
        except (AttributeError, TypeError, ValueError):
            return []

    def call(self, factory: str, **given: Any) -> Any:
        """The result of the factory called `factory`, with arguments by name.

        Raises
        ------
        UnsupportedModuleError
            If there is no such factory, or it fails.
        """
        function = getattr(self._module, factory, None)
        node = f"{self.name}:{factory}"
        if not callable(function):
            raise UnsupportedModuleError(
                "the file defines no such factory",
                node=node,
                allowed=", ".join(self.callables()) or "a function that returns the network",
            )
        _check_arguments(function, node, given)
        with user_code("the factory fails", node, self._place):
            made = function(**given)
        with suppress(TypeError):  # not a network, but a number or a list
            _HOME_OF[made] = self._place
        return made


def load_source(name: str) -> Source:
    """Load `FILE.py`, as `python FILE.py` would, or `package.module`, as `python -m` would.

    Raises
    ------
    UnsupportedModuleError
        If the file or module is missing or fails.
    """
    path = Path(name)
    if path.suffix != ".py":
        return _import(name)
    if not path.is_file():
        raise UnsupportedModuleError("no such file", node=name)
    path = path.resolve()
    place = home(path.parent)
    module = ModuleType(f"<{path.stem.replace('.', '_')}>")
    module.__file__ = str(path)
    with user_code("the file fails", name, place):
        # dataclasses and the like look for the module of a class while it is made.
        sys.modules[module.__name__] = module
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        exec(code, vars(module))
    return Source(name, place, module)


def is_module_name(text: str) -> bool:
    """Whether `text` is a valid dotted module name."""
    return all(part.isidentifier() for part in text.split("."))


def _import(name: str) -> Source:
    place = home(Path.cwd())
    if not is_module_name(name):
        raise UnsupportedModuleError(
            "is neither a Python file nor a module", node=name, allowed="FILE.py, package.module"
        )
    with user_code("the module cannot be imported", name, place):
        module = importlib.import_module(name)
    return Source(name, place, module)


def _check_arguments(function: Callable[..., Any], node: str, given: Mapping[str, Any]) -> None:
    """Raise an error if a factory needs other arguments, before Python raises its own."""
    try:
        parameters = signature(function).parameters
    except (TypeError, ValueError):
        return
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in given
    ]
    if missing:
        raise UnsupportedModuleError(
            "a factory is called without arguments",
            node=node,
            found=f"needs {', '.join(missing)}",
            remedy=f"write a function without arguments beside it that returns "
            f"{node.rpartition(':')[2]}(...)",
        )
