"""`spikeport doctor`: installed packages and repairs, with a remedy for each fault."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from toolchain import __version__
from toolchain.cli.options import Json
from toolchain.cli.output import Output

MIN_FILES = 256
"""Fewest open files; Lava opens about 33, and 20 per layer."""
MIN_SHARED_MEMORY = 64 << 20


@dataclass(frozen=True)
class Check:
    """One line of the report; a fault has a `remedy`."""

    what: str
    found: str
    remedy: str | None = None


def command(
    fix: Annotated[
        bool, typer.Option("--fix", help="Install Lava into this environment if it is missing.")
    ] = False,
    json: Json = False,
) -> None:
    """Check the environment. Exit code 1 if there is a fault."""
    output = Output(as_json=json)
    if fix:
        install_lava(output)
    findings = examine()
    rows = [(f.what, f.found, "ok" if f.remedy is None else "OFF") for f in findings]
    output.table(("", "found", ""), rows, f"spikeport {__version__}")
    off = [f for f in findings if f.remedy is not None]
    for finding in off:
        output.say(f"{finding.what}: {finding.remedy}", "yellow")
    if not off:
        output.say("everything is in place")
    output.result({"ok": not off, "findings": [f.__dict__ for f in findings]})
    if off:
        raise typer.Exit(1)


def lava_is_missing() -> bool:
    """Whether lava-nc is not installed at all."""
    from hw_models.lava_compat import installed_version

    return installed_version("lava-nc") is None


def install_lava(output: Output) -> bool:
    """Install lava-nc and lava-dl despite their metadata; True on success."""
    from hw_models.lava_compat import INSTALL, installed_version

    if installed_version("lava-nc") and installed_version("lava-dl"):
        return True
    output.progress_line(f"installing Lava: {INSTALL}")
    command_line = [sys.executable, "-m", *INSTALL.split()]
    status = subprocess.run(command_line, check=False, stdout=sys.stderr).returncode
    if status:
        output.progress_line(f"pip ended with status {status}; Lava is still missing")
    return status == 0


def examine() -> list[Check]:
    """Check everything that a run depends on."""
    version = sys.version_info
    findings = [
        Check(
            "Python",
            f"{platform.python_version()} ({sys.executable})",
            None if (3, 10) <= version[:2] <= (3, 13) else "use Python 3.10 to 3.13",
        ),
        _package("numpy", "pip install 'numpy>=1.26,<2.4'"),
        _package("torch", "pip install torch==2.13.0 (needed for training and the reference)"),
        _package("h5py", "pip install h5py"),
    ]
    findings += _lava()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    findings.append(
        Check("cores", str(len(os.sched_getaffinity(0)) if _linux() else os.cpu_count()))
    )
    findings.append(
        Check(
            "file descriptors",
            str(files),
            None if files >= MIN_FILES else "ulimit -n 4096 (Lava needs about 33 + 20 per layer)",
        )
    )
    findings.append(_start_method())
    findings.append(_shared_memory())
    return findings


def _linux() -> bool:
    return hasattr(os, "sched_getaffinity")


def _package(name: str, remedy: str) -> Check:
    from hw_models.lava_compat import installed_version

    found = installed_version(name)
    if found is None:
        return Check(name, "missing", remedy)
    if name == "numpy":
        numbers = tuple(int(p) for p in found.split(".")[:2])
        if not (1, 26) <= numbers < (2, 4):
            return Check(name, found, f"{remedy} (2.4 breaks lava-dl's netx)")
    return Check(name, found)


def _lava() -> list[Check]:
    from hw_models import lava_compat
    from toolchain.errors import MissingDependencyError

    findings = []
    for package, known in (
        ("lava-nc", lava_compat.LAVA_NC),
        ("lava-dl", lava_compat.LAVA_DL),
    ):
        found = lava_compat.installed_version(package)
        remedy = None if found == known else f"spikeport doctor --fix, or {lava_compat.INSTALL}"
        if package == "lava-dl" and found is None:
            remedy = None
            found = "not installed (only the stock netx loader needs it)"
        name = "lava-dl (netx)" if package == "lava-dl" else package
        findings.append(Check(name, found or "missing", remedy))
    try:
        repairs = lava_compat.prepare()
        import lava.magma.core.model.py.model
        import lava.proc.conv.models
        import lava.proc.dense.models  # noqa: F401
    except MissingDependencyError:
        return findings
    except Exception as error:  # noqa: BLE001 - any failure to import is what is reported
        reason = f"{type(error).__name__}: {error}"
        findings.append(Check("lava import", reason, "pip install asteval networkx scipy"))
        return findings
    findings.append(Check("lava repairs", ", ".join(repairs) or "none needed"))
    return findings


def _start_method() -> Check:
    method = multiprocessing.get_start_method(allow_none=True) or "not set"
    ok = method in ("not set", "fork")
    remedy = "let Lava set it: do not call multiprocessing.set_start_method before it"
    return Check("start method", method, None if ok else remedy)


def _shared_memory() -> Check:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError as error:
        return Check("/dev/shm", str(error), "Lava needs POSIX shared memory; use Linux")
    enough = free >= MIN_SHARED_MEMORY
    return Check(
        "/dev/shm", f"{free >> 20} MiB free", None if enough else "free some, or mount it larger"
    )
