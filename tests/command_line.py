"""The command line as a user starts it, and networks to give it.

A program that has a process of its own is forked from one in which Python and its packages are
loaded already. It has its own standard streams, folder, environment and exit code all the same,
and starts in a tenth of the time.
"""

import atexit
import io
import os
import runpy
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import NamedTuple

import typer

from toolchain.cli.app import app, as_told
from toolchain.errors import SpikeportError

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300
_LOADED = get_context("forkserver")
_LOADED.set_forkserver_preload(
    [
        *(
            "tests.command_line",
            "spikeport.evaluating",
            "spikeport.verifying",
            "exports.lava",
            "exports.netx.reader",
            "exports.netx.writer",
        ),
        *("toolchain.audit", "toolchain.conversion.pipeline", "toolchain.learning.evaluation"),
        *("toolchain.engine.simulate", "toolchain.learning.training.train_classifier"),
        *("matplotlib.figure", "nir", "numba.np.arraymath", "numba.typed.typeddict"),
        *("torch._dynamo", "typer._adapters"),
    ]
)

START = ("--initial-threshold", "2")
"""With it a network trained for an epoch or two fires; with 8 every output may be the same."""


class Ended(NamedTuple):
    """How a command ended in this process.

    Attributes
    ----------
    output:
        What it printed on standard output, and behind that what on standard error.
    error:
        What a user is told it failed with, if anything.
    """

    exit_code: int
    stdout: str
    output: str
    error: SpikeportError | None


@cache
def _commands():
    return typer.main.get_command(app)


def here(*arguments):
    """A command in this process, where warnings fail. A bug in it is raised."""
    out, err = io.StringIO(), io.StringIO()
    code, told = 0, None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with _commands().make_context("spikeport", [str(a) for a in arguments]) as context:
                _commands().invoke(context)
        except typer.Exit as end:
            code = end.exit_code
        except Exception as error:
            told = as_told(error)
            if told is None:
                raise
            code = told.exit_code
    return Ended(code, out.getvalue(), out.getvalue() + err.getvalue(), told)


def _become(module, arguments, folder, environment, *streams):
    """What the forked process does: `python -m module`."""
    set_start_method(None, force=True)  # that of this process is for it alone
    for number, name in enumerate(streams, start=1):
        with Path(name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # as an interpreter does; the end of a forked process does not


def started(*arguments, module="toolchain.cli", cwd=None, env=None, out=None, err=None):
    """A command in a process of its own, whose standard output and error go into files."""
    how = (cwd or Path.cwd(), {**os.environ, **(env or {})}, out or os.devnull, err or os.devnull)
    process = _LOADED.Process(target=_become, args=(module, [str(a) for a in arguments], *how))
    process.start()
    return process


def spikeport(*arguments, cwd=None, env=None):
    """A command in a process of its own that has ended: its exit code and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = started(*arguments, cwd=cwd, env=env, out=out, err=err)
        process.join(SECONDS)
        code = process.exitcode
        process.kill()
        process.join()
        process.close()
        if code is None:
            raise subprocess.TimeoutExpired(arguments, SECONDS, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def ok(*arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def fails(code, message, *arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert message in result.stderr, result.stderr
    return result


FACTORIES = """
import torch
from torch import nn
from toolchain.learning.activations import QCFS

def good():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), QCFS(4, 1.0), nn.Flatten(), nn.Linear(144, 10)
    )

def pooled():
    return nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4), nn.LPPool2d(2, 2), nn.Flatten(),
                         nn.Linear(36, 10))

def diverged():
    model = good()
    model[0].weight.data[1] = float("nan")
    return model

def zero():
    model = good()
    model[2].threshold.data.zero_()
    return model

def text():
    return "no network"

def no_levels():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), QCFS(0), nn.Linear(4, 2))

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def dead():
    model = plain()
    nn.init.constant_(model[1].weight, -1.0)
    nn.init.zeros_(model[1].bias)
    return model
"""
