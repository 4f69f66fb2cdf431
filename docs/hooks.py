"""Pages of the site that are made when it is built, see mkdocs.yml.

Every document keeps its path from the top of the repository, so that links between documents hold
on the site as they do in the repository. From the program come the command line, the Python API and
the limits of chips; docs/METHODS.md becomes one page per method.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import spikeport
from hw_models.profile import load_profile, profile_names
from toolchain.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "*.md",
    "CITATION.cff",
    "docs/*.css",
    "docs/*.js",
    "docs/*.md",
    "docs/*.png",
    "docs/**/*.svg",
    "exports/netx/FORMAT.md",
    "benchmarks/papers/*/detections.png",
    "notebooks/*.ipynb",
)
HIDDEN = {"compare": "toolchain.recording.compare.compare"}
"""Where a public name is found that a module of the same name hides."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the documents of the repository, and those that are made here, on the site."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        if name != "docs/METHODS.md":
            files.append(File.generated(config, name, abs_src_path=str(path)))
    made = {"commands": _commands(), "api": _api(), "chips": _chips()} | _methods()
    for name, text in made.items():
        files.append(File.generated(config, f"docs/{name}.md", content=text))


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to a method's heading in METHODS.md to the page of that method."""
    return re.sub(r"\bMETHODS\.md#([\w-]+)", r"method-\1.md", markdown)


def _methods() -> dict[str, str]:
    """One page per method, and the start of METHODS.md with links to them."""
    start, *sections = re.split(r"^## ", (ROOT / "docs/METHODS.md").read_text(), flags=re.M)
    pages = {}
    for section in sections:
        title = section.partition("\n")[0]
        start += f"- [{title}](METHODS.md#{title.lower().replace(' ', '-')})\n"
        text = f"# {section}".replace("\n### ", "\n## ")
        pages[f"method-{title.lower().replace(' ', '-')}"] = text
    return {"METHODS": start} | pages


def _api() -> str:
    """Every public name with its docstring."""
    names = sorted(set(spikeport.__all__) - {"__version__", "detection"}, key=str.lower)
    functions = [name for name in names if name[0].islower()]
    classes = [name for name in names if not name[0].islower()]
    text = "# Python API\n\n"
    for title, members in (("Functions", functions), ("Classes", classes)):
        text += f"## {title}\n\n"
        text += "".join(f"::: {HIDDEN.get(name, f'spikeport.{name}')}\n\n" for name in members)
    return text + "## Detectors\n\n::: spikeport.detection\n"


def _commands() -> str:
    """Every command with its options, as `--help` shows them."""
    lines = ["# Command line", ""]
    _command(typer.main.get_command(app), "spikeport", lines)
    return "\n".join(lines)


def _command(command: Any, name: str, lines: list[str]) -> None:
    context = command.context_class(command, info_name=name)
    if name != "spikeport":
        lines += [f"## {name}", ""]
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines += [_text(command.help), "", f"    {usage}", ""]
    for parameter in command.get_params(context):
        label, told = parameter.get_help_record(context)
        if "--help" not in label:
            lines += [f"`{label}`", f":   {_text(told)}", ""]
    for part, child in getattr(command, "commands", {}).items():
        _command(child, f"{name} {part}", lines)


def _text(told: str) -> str:
    """Text of a help as Markdown that shows the same characters."""
    return re.sub(r"([*_\[\]])", r"\\\1", told.replace("&", "&amp;").replace("<", "&lt;"))


def _chips() -> str:
    """The limits of every target and where each number comes from."""
    text = "# Limits of chips\n\nA value of `--target`, or a TOML file of the same form.\n"
    for name in profile_names():
        profile = load_profile(name)
        text += f"\n## {name}\n\n{profile.description}.\n\n"
        text += "| limit | value | source |\n|---|---:|---|\n"
        for key, limit in (profile.limits | profile.chip).items():
            source = _text(limit.source) or "none is public: an assumption"
            text += f"| `{key}` | {limit.value:,} | {source} |\n"
        for key, allowed in profile.layer_cores.items():
            values = ", ".join(f"{value:,}" for value in allowed.values)
            text += f"| `{key}` | {values} | {_text(allowed.source)} |\n"
        if profile.chip:
            kept = "once" if profile.shares_kernels else "for every neuron"
            text += f"\nA core keeps a convolution's kernel {kept}.\n"
    return text
