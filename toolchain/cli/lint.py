"""`spikeport lint`: faults of a netx file, before anything runs it."""

from __future__ import annotations

import json as json_text
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolchain import __version__
from toolchain.cli.options import Json
from toolchain.cli.output import Output
from toolchain.cli.wording import as_options
from toolchain.text import counted

if TYPE_CHECKING:
    from exports.netx.lint import Findings

FAILED = 1


class Format(str, Enum):
    """Format of the findings: text for people, or JSON or SARIF for programs."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


STYLES = {"error": "red", "warning": "yellow", "note": "blue"}


def command(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.net...", help="Files of this project or lava-dl.")
    ],
    target: Annotated[
        str | None, typer.Option(help="Also compare programs with the limits of this target.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="text, json, or sarif (2.1.0).")
    ] = Format.TEXT,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write the findings to this file."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail, too.")] = False,
    json: Json = False,
) -> None:
    """Find data that a loader would change, drop or fail on.

    Hostile files are found, too: files are read in a separate process with bounded memory and time.
    Exit code 1 for any finding at level error.
    """
    from exports.netx.lint import Level, lint_file

    if json and form is Format.SARIF:
        raise typer.BadParameter("--json and --format sarif contradict each other")
    form = Format.JSON if json else form
    if out is not None and form is Format.TEXT:
        raise typer.BadParameter("--out needs --format json or sarif")
    if out is not None:
        from toolchain.output_policy import FINDINGS, SARIF, check_output

        check_output(out, SARIF if form is Format.SARIF else FINDINGS, files)
    looked = [lint_file(path, target) for path in files]
    if form is Format.TEXT:
        _show(looked, Output())
    else:
        _write(looked, form, out)
    failing = {Level.ERROR, *([Level.WARNING] if strict else [])}
    if any(finding.rule.level in failing for one in looked for finding in one.found):
        raise typer.Exit(FAILED)


def _show(looked: list[Findings], output: Output) -> None:
    kinds = {"spikeport": "a program of this project", "stock": "a file of lava-dl"}
    for findings in looked:
        for finding in findings.found:
            rule = finding.rule
            output.say(f"{findings.file}:{finding.where}", "bold")
            level = rule.level.value
            output.say(f"  {level}: {rule.title} [{rule.id}]", STYLES[level])
            output.say(f"  found:  {finding.found}")
            output.say(f"  why:    {rule.why}")
            output.say(f"  remedy: {as_options(finding.remedy)}")
        counts: dict[str, int] = {}
        for finding in findings.found:
            level = finding.rule.level.value
            counts[level] = counts.get(level, 0) + 1
        told = ", ".join(counted(n, level) for level, n in counts.items())
        kind = kinds.get(findings.kind, "not a network file")
        output.say(f"{findings.file}: {kind}; {told or 'nothing found'}")


def _write(looked: list[Findings], form: Format, out: Path | None) -> None:
    from exports.netx.lint.sarif import as_sarif
    from toolchain.files import atomic_write

    document: dict[str, Any] = {"files": [findings.as_dict() for findings in looked]}
    if form is Format.SARIF:
        document = as_sarif(looked, __version__)
    text = json_text.dumps(as_options(document), indent=1) + "\n"
    if out is None:
        typer.echo(text, nl=False)
    else:
        atomic_write(out, text.encode())
