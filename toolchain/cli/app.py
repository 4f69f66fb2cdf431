"""`spikeport`: registers the commands and turns errors into messages and exit codes.

Exit codes: 0 fine, 1 a check or a run failed, 2 wrong use or bad input, 130 stopped by Ctrl-C,
143 by SIGTERM, 141 if the reader of the output has closed it.
"""

from __future__ import annotations

import atexit
import errno
import gc
import json
import logging
import re
import signal
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from toolchain import __version__
from toolchain.cli import (
    audit,
    check,
    compare,
    convert,
    demo,
    detector,
    doctor,
    evaluate,
    export,
    inspect,
    lint,
    run,
    show,
    stops,
    sweep,
    train,
    verify,
)
from toolchain.cli.output import choose_level
from toolchain.cli.wording import as_options
from toolchain.errors import (
    MachineError,
    MissingDependencyError,
    SpikeportError,
    UsageError,
)

INSTALLABLE = {
    "torch": "torch==2.13.0",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "yaml": "pyyaml",
    "msgspec": "msgspec",
    "tomli_w": "tomli-w",
    "nir": "nir",
    "distributed": "distributed",
    "pycocotools": "pycocotools",
    "aedat": "aedat",
}
"""Packages that only some commands need, with their names for pip."""

NO_PATHS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Error numbers of the system for invalid paths."""

REPHRASED = (
    ("Value error, ", ""),
    ("Input should be a valid integer", "must be a whole number"),
    ("Input should be a valid number", "must be a number"),
    ("Input should be", "must be"),
)
"""Messages of the option parser, and their wording for the user."""
_WRONG_USE = typer.BadParameter.__bases__[0]
"""Base class of all errors of the option parser; typer does not export it."""

app = typer.Typer(
    name="spikeport",
    help="Take trained quantized PyTorch networks onto neuromorphic hardware, bit by bit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    demo,
    train,
    evaluate,
    check,
    convert,
    run,
    compare,
    show,
    audit,
    inspect,
    lint,
    verify,
    sweep,
    export,
    doctor,
):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(detector.app)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"spikeport {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is chosen and repaired on the way.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Results, warnings and errors only, no progress.")
    ] = False,
) -> None:
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet contradict each other")
    choose_level(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def main() -> None:
    """Run the command line, and end the process with the exit code."""
    # Otherwise the garbage collector scans all objects of torch once more at the end.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names may contain characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        stops.listen()
        status = run_command_line()
        if sys.stdout is not None:
            sys.stdout.flush()
        stops.end_at_once(stops.FINISHED)
    except KeyboardInterrupt as stop:
        stops.leave(stop)
    except BrokenPipeError:
        stops.silence_output()
        status = stops.BY_SIGNAL + signal.SIGPIPE
    sys.exit(status)


def run_command_line() -> int:
    """Run the command in the arguments; returns its exit code."""
    command = typer.main.get_command(app)
    try:
        stops.check_streams()
        with command.make_context(app.info.name, sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        told = as_told(error)
        if told is None:
            raise
        return _tell(told)
    return 0


def as_told(error: Exception) -> SpikeportError | None:
    """The error that a user is shown for an exception, with options by name; None for a bug."""
    if isinstance(error, SpikeportError):
        for each in (error, *getattr(error, "obstacles", ())):
            each.message, each.remedy = as_options(each.message), as_options(each.remedy)
        return error
    if isinstance(error, _WRONG_USE):
        return _wrong_use(error)
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    return _from_machine(error)


def _missing(error: ModuleNotFoundError) -> SpikeportError | None:
    package = (error.name or "").partition(".")[0]
    if package not in INSTALLABLE:
        return None
    return MissingDependencyError(
        "is not installed",
        node=package,
        remedy=f"pip install {INSTALLABLE[package]}; `spikeport doctor` checks the rest",
    )


def _from_machine(error: Exception) -> SpikeportError | None:
    """The error for a resource that the machine lacks."""
    if isinstance(error, OSError):
        where = None if error.filename is None else str(error.filename)
        kind = UsageError if error.errno in NO_PATHS else MachineError
        return kind(error.strerror or _one_line(error) or type(error).__name__, node=where)
    if isinstance(error, MemoryError) or "t allocate memory" in str(error):
        return MachineError(f"memory is not enough: {_one_line(error) or 'no more is given'}")
    if isinstance(error, RecursionError):
        return MachineError("something in the input is nested too deeply")
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wrong_use(error: Exception) -> SpikeportError:
    """The message of the option parser in one line, or the help that it shows without arguments."""
    message: str = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if message.startswith("Usage:"):
        return UsageError(message)
    message = re.sub(r", unable to parse .*", "", _one_line(ValueError(message)))
    for theirs, ours in REPHRASED:
        message = message.replace(theirs, ours)
    path = app.info.name if context is None else context.command_path
    return UsageError(f"{message.rstrip('.')} ({path} --help)")


def _tell(error: SpikeportError) -> int:
    """Write an error to its reader; returns the exit code."""
    text = error.message if error.message.startswith("Usage:") else f"error: {error}"
    if sys.stdout is not None:
        try:
            if "--json" in sys.argv:
                sys.stdout.write(json.dumps(error.as_dict(), indent=1) + "\n")
                text = ""
            sys.stdout.flush()
        except OSError:  # standard output itself may have failed
            stops.silence_output()
            text = f"error: {error}"
    if text:
        sys.stderr.write(f"{text}\n")
    return error.exit_code
