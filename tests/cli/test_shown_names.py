"""Nasty names through every command that prints, draws or writes: shown as they stand, run never.

In this process, so that a warning fails as well.
"""

import ast
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.report.__main__ import main as report
from exports.netx import read_net, write_net
from spikeport.reproducer import write_reproducer
from tests.command_line import ROOT, START, here
from toolchain.errors import DataError, ProgramError
from toolchain.learning.data import BoxDataset
from toolchain.learning.data.boxes import Boxes
from toolchain.learning.detection.detections import Detections
from toolchain.learning.detection.picture import draw
from toolchain.learning.evaluation.results import Evaluation
from toolchain.recording import Divergence
from toolchain.text import drawing, drawn

HTML = ("<img src=x onerror=alert(1)>", "<svg>&amp;]]>-->", '\'"""')
TERMINAL = ("\x1b[31mred\x07", "\u202egnp", "two\nlines", "\r\x9b2J", "\u200bunseen")
RICH = ("[red]m[v2]", "[#]", "[bold]", ":fire:")
MATPLOTLIB = ("$\\frac{$", "a$b$c", "\\$x$", "_hidden", "漢字🔥", "#010203")
OTHERS = ("{0}%s{{", "`|*_\\", "-o")
NAMES = (*HTML, *TERMINAL, *RICH, *MATPLOTLIB, *OTHERS)
PROGRAM = "[/]</script><script>alert(1)</script>\x1b]0;x\x07$\\frac{$"
FACTORY = f"""
import torch
from torch import nn
from toolchain.learning.activations import QCFS

def odd():
    torch.manual_seed(0)
    model, size = nn.Sequential(), 64
    model.add_module("flat", nn.Flatten())
    for index, name in enumerate({NAMES!r}):
        model.add_module(name, nn.Linear(size, 6))
        model.add_module(f"a{{index}}", QCFS(4, 1.0))
        size = 6
    model.add_module("last", nn.Linear(6, 10))
    return model
"""
FOLDER = "[x]$\\frac{$<img>\x1b[31m:fire:"
DRAWN = (HTML[0], TERMINAL[0], *MATPLOTLIB[:4])
DATA = "digits@test[:20]"


def command(*arguments, status=0):
    """What a command printed, which holds nothing that a terminal acts upon."""
    result = here(*arguments)
    assert result.exit_code == status, (result.output, result.error)
    assert all(line.isprintable() for line in result.output.split("\n")), ascii(result.output)
    return result.stdout


def escaped(name):
    """As a terminal shows it: what is not printable as Python's escape of it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shows(text, names=NAMES):
    missing = [name for name in names if escaped(name) not in text]
    assert missing == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    (folder / "nets.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shape = ("--input-shape", "1,8,8")
        shows(command("convert", "nets.py:odd", *shape, "-o", "first.net"))
        program = replace(read_net("first.net"), name=PROGRAM)
        write_net(program, "odd.net")
        last = program.populations[-1]
        changed = replace(last, bias=last.bias + 1)
        wrong = program.populations[1]
        wrong = replace(wrong, bias=wrong.bias + 9999)
        populations = (program.populations[0], wrong, *program.populations[2:-1], changed)
        write_net(replace(program, populations=populations), "other.net")
        for net in ("odd", "other"):
            shown = command("run", f"{net}.net", "--data", DATA, "-o", f"{net}.npz")
            assert escaped(PROGRAM) in shown
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_commands_that_print():
    for words in (("inspect", "odd.net"), ("verify", "odd.net")):
        assert escaped(PROGRAM) in command(*words)
    shows(command("inspect", "odd.net"))
    layers = json.loads(command("inspect", "odd.net", "--json"))["layers"]
    assert [layer["name"] for layer in layers] == [*NAMES, "last"]
    shows(command("export", "odd.net", "--to", "nir", "-o", "odd.nir", "--accept-hard-reset"))
    command("convert", "odd.nir", "-o", "back.net")
    assert read_net("back.net").hash == read_net("odd.net").hash


def test_lint_names_them(tmp_path):
    harmless = {"\u6f22\u5b57\U0001f525", "_hidden", "#010203", "-o"}
    shown = command("lint", "odd.net")
    report = json.loads(command("lint", "odd.net", "--json"))
    (file,) = report["files"]
    assert file["sound"]
    assert {f["rule"] for f in file["findings"]} == {"strange-name"}
    assert {f["found"] for f in file["findings"]} == {PROGRAM, *NAMES} - harmless
    shows(shown, [f["found"] for f in file["findings"]])
    command("lint", "odd.net", "--strict", status=1)


def test_sarif(folder):
    strange = folder / "[x](y) 100%\u00e9#?.net"
    strange.write_bytes((folder / "odd.net").read_bytes())
    (run,) = json.loads(command("lint", strange, "--format", "sarif"))["runs"]
    for result in run["results"]:
        (location,) = result["locations"]
        uri = location["physicalLocation"]["artifactLocation"]["uri"]
        assert uri.isascii()
        assert not set(uri) & set(' []#?<>"{}|\\^`')
        assert unquote_to_bytes(uri).decode() == str(strange)
        # No links, no placeholders, one line of what can be seen.
        text = result["message"]["text"]
        assert text.isprintable()
        bare = text.replace("\\\\", "").replace("\\[", "").replace("\\]", "")
        assert not set(bare) & set("[]\\")
        assert not set(text.replace("{{", "").replace("}}", "")) & set("{}")


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser takes them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.text = set(), set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)


def test_the_audit_page(folder):
    audit = ("audit", "odd.net", "--data", DATA, "--lava", "0", "--budget-samples", "20")
    source = ("--checkpoint", "nets.py:odd")
    shown = command(*audit, *source, "--html", "odd.html", "-o", "odd.json")
    shows(shown, (PROGRAM, *NAMES))
    document = json.loads((folder / "odd.json").read_text())
    page = Page((folder / "odd.html").read_text())
    names = [layer["name"] for layer in document["budget"]["layers"]]
    assert names == [*NAMES, "last"]
    assert not {"img", "a", "iframe"} & page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.scripts == [{"type": "application/json", "id": "audit"}]
    # A table's cell, a label of both charts by layer, a raster's summary and titles.
    for name in NAMES:
        assert page.text.count(escaped(name)) >= 4, name
    assert page.text.count(f"Spikes and membranes of {escaped(NAMES[0])}") == 1


def test_a_mismatch_and_its_script(folder, tmp_path):
    shown = command("compare", "odd.npz", "other.npz", status=1)
    assert f"layer {escaped(NAMES[1])}" in shown
    # The scripts of programs that differ in a name only are the same code.
    odd, run = read_net(folder / "odd.net"), {"backend": "reference"}
    inputs, trees = np.zeros((1, 1, 8, 8), np.int32), set()
    for name in ("plain", *HTML, *TERMINAL):
        program = renamed(odd, {name: "other", NAMES[0]: name})
        divergence = Divergence(name, "spikes", 1, 0, (0,), 1, 2)
        script = write_reproducer(program, inputs, divergence, (run, run), tmp_path / "small")
        assert escaped(name) in script.read_text()
        trees.add(ast.dump(ast.parse(script.read_text())))
    assert len(trees) == 1


def renamed(program, names):
    """The program with other names of populations."""
    populations = [
        replace(
            p,
            name=names.get(p.name, p.name),
            synapses=tuple(replace(s, source=names.get(s.source, s.source)) for s in p.synapses),
        )
        for p in program.populations
    ]
    return replace(program, populations=tuple(populations))


def odd_evaluation():
    """A real evaluation with nasty names wherever it holds text of its own."""
    found = Evaluation.read(ROOT / "benchmarks/papers/fashion-lenet-nq/evaluation.json")
    gaps = found.gaps
    layers = list(gaps["layers"].values())
    config = {**found.config, "model": HTML[0]}
    return replace(
        found,
        run={**found.run, "config": config},
        data=f"npz:{MATPLOTLIB[0]}{HTML[0]}.npz@test",
        gaps={**gaps, "layers": dict.fromkeys(DRAWN, layers[0])},
        made_by={**found.made_by, "command": "spikeport evaluate a\n```\n<script>", "x": HTML[0]},
        notes=(HTML[0], "[x](javascript:alert(1))", "a | b"),
    )


def test_the_results_page_and_figures(tmp_path):
    (tmp_path / FOLDER).mkdir()
    odd_evaluation().write(tmp_path / FOLDER / "evaluation.json")
    report([str(tmp_path), "--out", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    outside = re.sub(r"^```$.*?^```$", "", text, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)<[a-z!/]", outside)
    assert not re.search(r"(?<![\\!])\[[^\]]*(?<!\\)\]\(", outside)
    assert all(line.isprintable() for line in text.split("\n"))
    assert outside.count("```") == 0
    figures = list(tmp_path.glob("figures/*.svg"))
    assert len(figures) >= 4
    for figure in figures:
        assert ET.parse(figure).getroot().tag.endswith("}svg")


def test_pictures(tmp_path):
    boxes = Boxes(
        np.arange(1), np.array([[1.0, 1.0, 5.0, 5.0]]), np.zeros(1, np.int64), np.zeros(1, bool)
    )
    samples, one = np.zeros((1, 3, 8, 8), np.uint8), np.ones((1, 2))
    data = BoxDataset("d", samples, 8 * one, one, boxes, NAMES, ("a",))
    found = Detections(boxes.image, boxes.corners, boxes.label, np.ones(1))
    draw(tmp_path / "a.png", data, dict.fromkeys(DRAWN, found))
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 500


@pytest.mark.parametrize("name", [*NAMES, PROGRAM, "\x00", "\ud800"])
def test_what_everything_is_drawn_and_told_by(name):
    """Errors, matplotlib and Markdown show the name, and hold it as it is."""
    error = DataError("no", node=name, found=name)
    assert all(line.isprintable() for line in str(error).split("\n"))
    assert str(error).startswith(f"{escaped(name)}: no\n")
    assert error.as_dict()["node"] == name
    figure = Figure()
    figure.subplots().set_title(drawn(name))
    svg = io.StringIO()
    with drawing(), mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(svg, format="svg")
    assert escaped(name) in [e.text for e in ET.fromstring(svg.getvalue()).iter()]


def test_what_no_file_holds_is_refused(folder):
    program = read_net(folder / "odd.net")
    for name in ("nul\x00", "half\ud800"):
        with pytest.raises(ProgramError, match="Unicode without NUL"):
            renamed(program, {NAMES[0]: name}).check()
        with pytest.raises(ProgramError, match="Unicode without NUL"):
            replace(program, name=name).check()


def test_folders(folder, tmp_path, monkeypatch):
    """Trained, evaluated and swept in a folder of that name."""
    monkeypatch.chdir(tmp_path)
    how = ("--model", "mlp", "--activation", "qcfs", "--levels", "4", "--epochs", "1", *START)
    shows(command("train", "--data", "digits", *how, "--out", FOLDER), [FOLDER])
    shows(command("convert", FOLDER, "-o", f"{FOLDER}.net", "--steps", "2"), [FOLDER])
    assert read_net(f"{FOLDER}.net").name == FOLDER
    shows(command("evaluate", FOLDER, "--data", DATA, "--steps", "1"), [FOLDER])
    sweep = ("sweep", FOLDER, "--data", DATA, "--steps", "1", "--weight-bits", "4")
    shows(command(*sweep, "-o", f"{FOLDER}.sqlite", "--plot", f"{FOLDER}.png"), [FOLDER])
