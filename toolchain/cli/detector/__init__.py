"""`spikeport detector ...`: training, measuring and showing object detectors.

`convert`, `run`, `compare`, `lint`, `audit` and the rest take detectors as they take classifiers.
"""

from __future__ import annotations

import typer

from toolchain.cli.detector import evaluate, show, train

app = typer.Typer(
    name="detector",
    help="Train, measure and show object detectors.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for module in (train, evaluate, show):
    app.command(module.__name__.rpartition(".")[2])(module.command)
