"""`spikeport`: registers the commands and turns errors into messages and exit codes.

Exit codes: 0 fine, 1 a check or a run failed, 2 wrong use or bad input, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import json
import sys
from io import TextIOWrapper
from typing import Annotated, NoReturn

import typer

from toolchain import __version__
from toolchain.cli import (
    audit,
    compare,
    convert,
    demo,
    detector,
    doctor,
    evaluate,
    export,
    inspect,
    lint,
    results,
    run,
    sweep,
    train,
    verify,
)
from toolchain.errors import MissingDependencyError, SpikeportError

INSTALLABLE = {
    "torch": "torch==2.13.0",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "yaml": "pyyaml",
    "tomli_w": "tomli-w",
    "nir": "nir",
    "distributed": "distributed",
    "pycocotools": "pycocotools",
}
"""Packages that some commands need and others do not, and what pip calls them."""

app = typer.Typer(
    name="spikeport",
    help="Take trained quantized PyTorch networks onto neuromorphic hardware, bit by bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    demo,
    train,
    evaluate,
    results,
    convert,
    run,
    compare,
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
) -> None:
    """Holds the options before the command."""


def main() -> None:
    """Entry point of the command line."""
    # Else the collector looks at all that torch has made once more at the end: half a second.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, TextIOWrapper):
        # Names may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SpikeportError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALLABLE:
            raise
        _fail(
            MissingDependencyError(
                "is not installed",
                node=package,
                remedy=f"pip install {INSTALLABLE[package]}; `spikeport doctor` checks the rest",
            )
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


def _fail(error: SpikeportError) -> NoReturn:
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(error.as_dict(), indent=1) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)
