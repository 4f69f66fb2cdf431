"""What both commands that train have in common: settings as options, progress, the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from toolchain.cli.options import Json
from toolchain.cli.output import Output
from toolchain.cli.param_types import typed
from toolchain.cli.stops import kept_epochs, telling

if TYPE_CHECKING:
    from toolchain.learning.training.checkpoint import TrainedModel

_Command = TypeVar("_Command", bound=Callable[..., None])
_Settings = TypeVar("_Settings")
_Kept = TypeVar("_Kept", bound="TrainedModel[Any]")
OUT = Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the checkpoint.")]
DEVICE = "auto, cpu or cuda.  [auto]"


def setting(kind: Any, text: str, *names: str, **more: Any) -> Any:
    """An option of this type that may be left out, as an annotation."""
    return Annotated[kind | None, typer.Option(*names, help=text, **more)]


def text_setting(read: Callable[[str, str], Any], text: str, option: str, **more: Any) -> Any:
    """An option that may be left out, whose text `read` makes a value of, as an annotation."""
    return Annotated[Any, typed(option, read, help=text, **more)]


def with_settings(settings: Mapping[str, Any]) -> Callable[[_Command], _Command]:
    """Give a command --out, these options by the names of their settings, and --json."""

    def described(command: _Command) -> _Command:
        options = {"folder": OUT, **settings, "json": Json}
        defaults = {"folder": Parameter.empty, "json": False}
        command.__signature__ = Signature(  # type: ignore[attr-defined]
            [
                Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=defaults.get(name))
                for name, kind in options.items()
            ]
        )
        return command

    return described


def chosen(
    given: Mapping[str, Any], file: Path | None, form: str, recipe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Settings by name: of a recipe, then of a file, then `given` on the command line.

    Raises
    ------
    DataError
        If no data are named, for which `form` is what to type, or something cannot be read.
    """
    from toolchain.errors import DataError
    from toolchain.learning.training.config_file import read_settings

    said = {name: value for name, value in given.items() if value is not None}
    values = {**(recipe or {}), **(read_settings(file) if file else {}), **said}
    if "data" not in values:
        raise DataError(
            "a data source is needed", node="training", remedy=f"--data {form}, or in --config"
        )
    return values


def with_progress(
    train: Callable[[Callable[[int, int, dict[str, float] | None], None]], _Kept],
    epochs: int,
    out: Path,
    output: Output,
    summary: Callable[[dict[str, float]], str],
) -> _Kept:
    """Train and show a `summary` of the last epoch's metrics, and the time left."""
    last = ""
    with output.progress("training") as task:

        def progress(epoch: int, done: int, metrics: dict[str, float] | None) -> None:
            nonlocal last
            if metrics is not None:
                last = summary(metrics)
            note = f"epoch {min(epoch + 1, epochs)}/{epochs} {last}"
            task.update(100 * epoch + done, 100 * epochs, note)

        with telling(lambda: kept_epochs(out)):
            return train(progress)


def say_kept(
    kept: TrainedModel[Any], out: Path, output: Output, quality: str, options: str
) -> None:
    """Say which epoch was kept, its `quality`, and how to convert it, with which `options`."""
    output.say(f"kept epoch {kept.epoch} of {kept.config.epochs}: {quality}")
    output.say(f"wrote {out}/model.safetensors, checkpoint.json, config.toml and log.jsonl")
    output.say(f"next: spikeport convert {out} -o NET.net{options}")
    output.result({"out": str(out), "epoch": kept.epoch, "history": kept.history})
