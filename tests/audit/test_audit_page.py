"""The audit as a command and as a page, which is opened in a real browser."""

import json
import re
from html import unescape

import numpy as np
import pytest
from PIL import Image

from exports.netx import write_net
from tests.browser import CHROMIUM, browse
from tests.command_line import START, fails, ok, spikeport
from tests.networks import random_program
from toolchain.audit.html_report import write_page
from toolchain.learning.data import open_split

PROBE = """
<script>
const box = e => { const b = e.getBoundingClientRect(); return [b.width, b.height]; };
const css = e => getComputedStyle(e);
const found = {
  svgs: [...document.querySelectorAll("svg")].filter(e => e.checkVisibility()).map(box),
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  cut: [...document.querySelectorAll("table")].filter(
    t => t.parentElement.scrollWidth > t.parentElement.clientWidth).map(t => t.id),
  tables: Object.fromEntries([...document.querySelectorAll("table")].map(
    t => [t.id, [...t.rows].map(r => [...r.cells].map(c => c.textContent))])),
  cards: document.querySelectorAll("#summary .card").length,
  titles: [...document.querySelectorAll("svg > title")].map(t => t.textContent),
  ink: css(document.body).color, page: css(document.body).backgroundColor,
  stroke: css(document.querySelector("svg text")).fill,
  audit: JSON.parse(document.getElementById("audit").textContent).metrics,
  requests: performance.getEntriesByType("resource").length,
};
document.body.insertAdjacentHTML("beforeend", "<pre id=found></pre>");
document.getElementById("found").textContent = JSON.stringify(found);
</script>
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained network, its file, and an audit of it."""
    folder = tmp_path_factory.mktemp("audit")
    train = ("--model", "lenet", "--activation", "qcfs", "--levels", "4", "--epochs", "2", *START)
    ok("train", "--data", "digits", *train, "--out", "run", cwd=folder)
    ok("convert", "run", "-o", "net.net", "--steps", "4", cwd=folder)
    ok(
        "audit",
        "net.net",
        *("--data", "digits@test[:120]", "--checkpoint", "run", "--lava", "4"),
        *("--gate", "mismatches=0", "--gate", "chip_errors<=99", "--budget-samples", "40"),
        *("--html", "audit.html", "-o", "audit.json"),
        cwd=folder,
    )
    return folder


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "audit.json").read_text())


def test_the_document_holds_every_part(document):
    assert list(document["versions"]["accuracy"]) == [
        "float network",
        "quantized network",
        "integer reference",
        "Lava",
    ]
    assert document["lava"]["mismatches"] == 0
    assert document["lava"]["compared"] > 0
    assert document["passed"]
    steps = document["chain"]["steps"]
    accuracy = document["versions"]["accuracy"]
    assert steps[0]["correct"] == accuracy["float network"]["correct"]
    assert steps[-1]["correct"] == accuracy["integer reference"]["correct"]
    gap = steps[-1]["accuracy"] - steps[0]["accuracy"]
    assert sum(s["change"] for s in steps[1:]) == pytest.approx(gap, abs=1e-12)
    assert document["metrics"]["drop"] == pytest.approx(-100 * gap, abs=1e-9)
    for layer in document["budget"]["layers"]:
        assert layer["unexplained"] < 1e-9
    assert document["by_steps"][-1]["correct"] == accuracy["integer reference"]["correct"]
    origin = document["program"]["provenance"]
    assert origin["checkpoint_sha256"]
    assert origin["training_data_sha256"] == open_split("digits@train").sha256


def test_gates_set_the_exit_code(folder):
    audit = ("audit", "net.net", "--data", "digits@test[:20]", "--lava", "0")
    failed = spikeport(*audit, "--gate", "accuracy>=101", cwd=folder)
    assert failed.returncode == 1
    assert "gate accuracy>=101: FAILED" in failed.stdout
    # What was not measured does not pass.
    failed = spikeport(*audit, "--gate", "mismatches=0", "--json", cwd=folder)
    assert failed.returncode == 1
    report = json.loads(failed.stdout)
    assert report["gates"][0]["found"] is None
    told = spikeport(*audit, "--gate", "drop<=1", cwd=folder).stdout
    assert "not measured: needs the network it was converted from (--checkpoint)" in told
    assert "budget" not in report
    ok(*audit, "--gate", "accuracy>=0", "--target", "loihi1", cwd=folder)


LINEAR = """
import torch
from torch import nn

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


def test_a_network_without_spiking_layers(folder):
    """No chart by spiking layer, no raster; all else is there."""
    (folder / "linear.py").write_text(LINEAR)
    ok("convert", "linear.py:linear", "--input-shape", "1,8,8", "-o", "linear.net", cwd=folder)
    audit = ("audit", "linear.net", "--data", "digits@test[:9]", "--lava", "0")
    ok(*audit, "--checkpoint", "linear.py:linear", "--html", "linear.html", cwd=folder)
    page = (folder / "linear.html").read_text()
    assert 'id="budget"' in page
    assert 'id="unevenness"' not in page


def test_wrong_uses(folder, tmp_path):
    audit = ("audit", "net.net", "--data", "digits@test[:9]", "--lava", "0")
    fails(2, "no such metric", *audit, "--gate", "taste>3", cwd=folder)
    fails(2, "is not a gate", *audit, "--gate", "drop", cwd=folder)
    fails(2, "is no chip", *audit, "--target", "stock-netx", cwd=folder)
    fails(2, "no such target", *audit, "--target", "tpu", cwd=folder)
    fails(2, "not a checkpoint folder", *audit, "--checkpoint", "nowhere", cwd=folder)
    fails(2, "is not there", *audit, "--html", "nowhere/x.html", cwd=folder)
    write_net(random_program(1), folder / "other.net")
    fails(2, "do not have the shape", "audit", "other.net", "--data", "digits", cwd=folder)
    other = ("--model", "lenet", "--activation", "qcfs", "--levels", "4", "--epochs", "1", *START)
    ok("train", "--data", "digits", *other, "--seed", "9", "--out", "second", cwd=folder)
    fails(
        2, "is not what the file was converted from", *audit, "--checkpoint", "second", cwd=folder
    )


def test_the_page_needs_nothing_else(folder):
    page = (folder / "audit.html").read_text()
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)
    links = set(re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)([^\"']+)", outside))
    assert not links
    assert not re.search(r"@import|url\((?!#)", outside)
    assert outside.count("<title>") > 5


def probe(folder, page, name, *flags):
    """What the probe finds on a page in a browser."""
    probed = folder / f"{name}.html"
    probed.write_text(page.replace("</body>", f"{PROBE}</body>"))
    dom, console = browse(folder, probed, "--dump-dom", *flags)
    assert console == []
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; continuous integration installs one")
@pytest.mark.parametrize("width", [500, 800, 1400])
def test_long_names_take_no_room_from_numbers(folder, document, width):
    """Names of 60 characters wrap: only the widest tables are cut, and only in a narrow window."""
    names = {row["name"]: row["name"].ljust(60, "x") for row in document["ranges"]["populations"]}
    text = json.dumps(document)
    for name, long in names.items():
        text = text.replace(f'"{name}"', f'"{long}"')
    page = write_page(json.loads(text))
    found = probe(folder, page, f"long-{width}", f"--window-size={width},900")
    assert found["wide"] <= 0
    assert set(found["cut"]) <= ({"budget", "ranges", "chip"} if width == 500 else set())
    assert [row[0] for row in found["tables"]["ranges"][1:]] == list(names.values())
    assert all(box[0] <= width for box in found["svgs"])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; continuous integration installs one")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(folder, document, scheme):
    page = (folder / "audit.html").read_text()
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    found = probe(folder, page, f"probed-{scheme}", "--window-size=1000,900", preferred)
    assert found["requests"] == 0
    assert found["wide"] <= 0
    assert found["cut"] == []
    assert len(found["svgs"]) >= 4 + 3
    assert all(width > 150 and height > 20 for width, height in found["svgs"])
    assert found["cards"] >= 7
    assert found["audit"] == document["metrics"]
    # Text in charts follows the scheme as the page does.
    assert found["stroke"] == found["ink"]
    background = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert found["page"] == background
    tables = found["tables"]
    assert tables["gates"][1][:3] == ["mismatches=0", "0", "passed"]
    names = [row[0] for row in tables["budget"][1:]]
    assert names == [layer["name"] for layer in document["budget"]["layers"]]
    assert [row[0] for row in tables["accuracy"][1:]] == list(document["versions"]["accuracy"])
    assert [row[0] for row in tables["ranges"][1:]] == [
        row["name"] for row in document["ranges"]["populations"]
    ]
    assert len(tables["chip"]) == 1 + len(document["chip"]["layers"])
    limits = {row[0]: row[1:] for row in tables["limits"][1:]}
    assert limits["weight_bits"] == ["8", document["chip"]["numbers"]["weight_bits"]["source"]]
    assert "no public source" in limits["in_axons"][1]
    assert len(limits) == 1 + 4 + 7


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; continuous integration installs one")
def test_it_is_drawn(folder):
    """Pixels: the chart's colours are on the page, light and dark."""
    colours = {"light": (9, 105, 218), "dark": (88, 166, 255)}
    for scheme, colour in colours.items():
        shot = folder / f"{scheme}.png"
        preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
        size = ("--window-size=1000,3000", f"--screenshot={shot}", preferred)
        browse(folder, folder / "audit.html", *size)
        pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
        assert (np.abs(pixels - colour).sum(-1) < 12).sum() > 200
