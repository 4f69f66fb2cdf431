"""The audit as one HTML file that needs no network: what it says is the document, told in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from toolchain.audit import charts
from toolchain.audit.budget import TERMS

STYLE = """
:root { --ink: #1c2128; --faint: #8b949e; --page: #ffffff; --card: #f6f8fa; --line: #d0d7de;
  --good: #1a7f37; --bad: #cf222e; --series-1: #0969da; --series-2: #bc4c00; --series-3: #1a7f37;
  --series-4: #8250df; --series-5: #bf3989; --series-6: #7d6400; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #7d8590; --page: #0d1117; --card: #161b22; --line: #30363d;
    --good: #3fb950; --bad: #f85149; --series-1: #58a6ff; --series-2: #f0883e;
    --series-3: #56d364; --series-4: #bc8cff; --series-5: #f778ba; --series-6: #e3b341; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; } .faint { color: var(--faint); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem 1rem; min-width: 9rem; }
.card b { display: block; font-size: 1.35rem; } .good { color: var(--good); }
.bad, .error { color: var(--bad); } .warning { color: var(--series-2); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
svg { max-width: 100%; height: auto; } details { margin: .6rem 0; }
summary { cursor: pointer; } code { font-size: 12px; }
"""
RASTERS_OPEN = 3
"""Layers whose rasters are open at first: the first so many."""


def write_page(document: dict[str, Any]) -> str:
    """The whole page."""
    program, data = document["program"], document["data"]
    parts = [
        f"<h1>Audit of {escape(program['name'])}</h1>",
        f'<p class="faint">{data["samples"]:,} samples of {escape(data["name"])}; program '
        f"{program['hash'][:16]}, spikeport {escape(document['spikeport'])}</p>",
        _summary(document),
        _gates(document["gates"]),
        _versions(document),
        _chain(document),
        _budget(document),
        _ranges(document),
        _chip(document),
        _energy(document["energy"]),
        _rasters(document["rasters"]),
        _provenance(program),
    ]
    body = "\n".join(part for part in parts if part)
    data_block = json.dumps(document, default=str).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Audit of {escape(program['name'])}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n"
        f'<script type="application/json" id="audit">{data_block}</script>\n</body></html>\n'
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def interval(accuracy: dict[str, Any]) -> str:
    """The 95 % interval of an accuracy; a dash where there is none."""
    if accuracy["low"] is None:
        return "-"
    return f"{_percent(accuracy['low'])} .. {_percent(accuracy['high'])}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], name: str) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    lines = (
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _summary(document: dict[str, Any]) -> str:
    program, metrics = document["program"], document["metrics"]
    cards = []
    if document["gates"]:
        passed = document["passed"]
        word = "passed" if passed else "failed"
        cards.append(("gates", f'<span class="{"good" if passed else "bad"}">{word}</span>'))
    if metrics["accuracy"] is not None:
        cards.append(
            (f"{document['score']} of the integer network", f"{metrics['accuracy']:.2f} %")
        )
    if metrics["drop"] is not None:
        cards.append(("lost against the float network", f"{metrics['drop']:.2f} points"))
    if metrics["mismatches"] is not None:
        kind = "good" if metrics["mismatches"] == 0 else "bad"
        cards.append(("mismatches on Lava", f'<span class="{kind}">{metrics["mismatches"]}</span>'))
    cards.append(("smallest headroom", f"{metrics['headroom']:.1f} bits"))
    cards.append(("synops a sample", f"{metrics['synops']:,.0f}"))
    if metrics["cores"] is not None:
        cards.append((f"cores of {escape(document['chip']['chip'])}", f"{metrics['cores']:,}"))
    steps = f"{program['wake_steps']} wake + {program['sleep_steps']} sleep"
    cards.append((f"steps, {' and '.join(program['neurons'])}", steps))
    shown = "".join(f'<div class="card">{name}<b>{value}</b></div>' for name, value in cards)
    return f'<div class="cards" id="summary">{shown}</div>'


def _gates(gates: Sequence[dict[str, Any]]) -> str:
    if not gates:
        return ""
    rows = [
        (
            g["gate"],
            "not measured" if g["found"] is None else f"{g['found']:.6g}",
            "passed" if g["passed"] else "FAILED",
            g["meaning"],
        )
        for g in gates
    ]
    return "<h2>Gates</h2>" + _table(("gate", "found", "", "meaning"), rows, "gates")


def _versions(document: dict[str, Any]) -> str:
    versions, lava = document["versions"], document.get("lava")
    out = ["<h2>Four ways to run it</h2>"]
    if lava is not None:
        told = f"On Lava, {lava['samples']:,} samples: {lava['compared']:,} values compared, "
        told += f"{lava['mismatches']:,} mismatches."
        if lava["divergence"]:
            told += f" The first: {lava['divergence']}."
        out.append(f"<p>{escape(told)}</p>")
    accuracy = versions["accuracy"]
    if accuracy:
        rows = [
            (
                name,
                _percent(a["accuracy"]),
                interval(a),
                a["total"],
            )
            for name, a in accuracy.items()
        ]
        columns = ("version", document["score"], "95 % interval", "samples")
        out.append(_table(columns, rows, "accuracy"))
    names = list(versions["agreement"])
    if len(names) > 1:
        out.append("<p>Samples answered alike:</p>")
        alike: list[tuple[str, ...]] = []
        for first in names:
            cells = [versions["agreement"][first][second] for second in names]
            same = (_percent(c["same"] / max(c["samples"], 1)) for c in cells)
            alike.append((first, *same))
        out.append(_table(("", *names), alike, "agreement"))
    out.append(charts.accuracy_by_steps(document))
    return "".join(out)


def _chain(document: dict[str, Any]) -> str:
    if "chain" not in document:
        return ""
    chain = document["chain"]
    rows = [
        (
            s["name"],
            _percent(s["accuracy"]),
            "" if s["change"] is None else f"{100 * s['change']:+.2f}",
        )
        for s in chain["steps"]
    ]
    rows += [(s["name"], _percent(s["accuracy"]), "") for s in chain["without"]]
    advice = "".join(f"<li>{escape(line)}</li>" for line in chain["advice"])
    return (
        "<h2>What each source of error costs</h2><p>One more in each line; the changes, in points, "
        "add up to the whole gap. Below, the integer network without one of them.</p>"
        + _table(("version", document["score"], "change"), rows, "chain")
        + f'<ul id="advice">{advice}</ul>'
    )


def _budget(document: dict[str, Any]) -> str:
    if "budget" not in document:
        return (
            "<h2>Error budget</h2><p>Not made: it needs the network that the file was converted "
            "from (--checkpoint).</p>"
        )
    budget = document["budget"]
    rows = []
    for layer in budget["layers"]:
        terms = layer["terms"]
        cells = [f"{terms[t]['mean']:+.4f}" if t in terms else "" for t in TERMS]
        spikes = ["", "", "", ""]
        if layer["unit"] == "lam":
            spikes = [_percent(layer[k]) for k in ("too_many", "too_few", "below", "above")]
        rows.append(
            (
                layer["name"],
                f"{layer['total']['mean']:+.4f}",
                *cells,
                f"{layer['total']['rms']:.4f}",
                *spikes,
            )
        )
    columns = ("layer", "error", *TERMS, "rms", "too many", "too few", "v < 0", "v > theta")
    return (
        f"<h2>Error budget</h2><p>Mean error of a neuron against the float network on "
        f"{budget['samples']:,} samples, in thresholds a step (logits for the readout), and where "
        "it comes from: <b>propagated</b> from the layers before, the <b>input</b> rounded to "
        "graded spikes, <b>clipping</b> at the threshold, <b>quantization</b> to whole spikes, "
        "<b>rounding</b> of weights and thresholds, and "
        "<b>unevenness</b>, spikes that came too early or too late. The terms add up to the "
        "error.</p>" + charts.budget(budget["layers"]) + _table(columns, rows, "budget")
    )


def _ranges(document: dict[str, Any]) -> str:
    found = document["ranges"]
    rows = []
    for row in found["populations"]:
        state = row["state"]
        reached = "bound attained" if state["attained"] else _percent(state["share"])
        rows.append(
            (
                row["name"],
                *(f"{state[k][0]:,} .. {state[k][1]:,}" for k in ("bound", "observed", "reached")),
                reached,
                f"{row['headroom_bits']:.1f}",
            )
        )
    columns = ("layer", "proved for any input", "observed", "constructed", "reached", "headroom")
    driven = sum(row["driven"] for row in found["populations"])
    told = ""
    if driven < len(rows):
        told = f" Inputs were constructed for the {driven} layers with the least headroom."
    return (
        "<h2>Range certificate</h2><p>Membrane potentials before firing, in a register of "
        f"{document['program']['state_bits']} bits. The bound is proved for every input; the "
        f"constructed input drives the channel with the largest bound.{told}</p>"
        + charts.ranges(found["populations"], document["program"]["state_bits"])
        + _table(columns, rows, "ranges")
    )


def _chip(document: dict[str, Any]) -> str:
    if "chip" not in document:
        return ""
    chip = document["chip"]
    rows = [
        (
            f"{index + 1}  {layer['name']}",
            layer["cores"],
            layer["split"],
            "-"
            if layer["other_split"] is None
            else f"{layer['other_split']['cores']} by {layer['other_split']['split']}",
            *(f"{layer['use'][k]:,}" for k in ("neurons", "in_axons", "out_axons", "synapse_bits")),
        )
        for index, layer in enumerate(chip["layers"])
    ]
    columns = ("layer", "cores", "cut by", "other cut", "neurons", "in-axons", "out-axons", "bits")
    limits = [
        (k, f"{v['value']:,}", v["source"] or "no public source: a warning, not an error")
        for k, v in {
            "cores a chip": chip["cores_per_chip"],
            **chip["limits"],
            **chip["numbers"],
        }.items()
    ]
    problems = "".join(
        f'<li class="{p["level"]}">{p["level"]}: {escape(p["layer"])} needs '
        f"{escape(p['told'])} ({escape(p['source'] or 'no public source')})</li>"
        for p in chip["problems"]
    )
    return (
        f"<h2>On {escape(chip['chip'])}</h2><p>{chip['cores']:,} cores, {chip['chips']:,} "
        "chip(s), largest piece of each layer:</p>"
        + (f"<ul>{problems}</ul>" if problems else "")
        + charts.core_map(chip)
        + _table(columns, rows, "chip")
        + _table(("limit", "value", "source"), limits, "limits")
    )


def _energy(energy: dict[str, Any]) -> str:
    rows = [
        (
            layer["name"],
            f"{layer['events']:,.1f}",
            f"{layer['synops']:,.0f}",
            f"{layer['synops_by_magnitude']:,.0f}",
        )
        for layer in energy["layers"]
    ]
    estimate = energy["estimate"]
    costs = [
        (name, c["picojoules"], f"{estimate['nanojoules'][name]:,.1f}", c["source"])
        for name, c in estimate["costs"].items()
    ]
    return (
        f"<h2>Operations</h2><p>A sample: {energy['synops']:,.0f} synaptic operations "
        f"({energy['synops_by_magnitude']:,.0f} with graded spikes by their size), "
        f"{energy['neuron_updates']:,} neuron updates; one forward pass of the float network takes "
        f"{energy['ann_macs']:,} multiply-adds.</p>"
        + _table(("sent by", "spikes", "synops", "by magnitude"), rows, "operations")
        + "<p>With costs from tables. This is an estimate; nothing was measured.</p>"
        + _table(("operation", "pJ each", "nJ a sample", "source"), costs, "energy")
    )


def _rasters(rasters: Sequence[dict[str, Any]]) -> str:
    shown = [
        f"<details{' open' if index < RASTERS_OPEN else ''}><summary>{escape(layer['name'])}"
        f"</summary>{charts.raster(layer)}</details>"
        for index, layer in enumerate(rasters)
    ]
    return (
        "<h2>Spikes and membranes</h2><p>Of the first sample: neurons that fire, and the membranes "
        "of the busiest in thresholds.</p>" + "".join(shown)
    )


def _provenance(program: dict[str, Any]) -> str:
    text = json.dumps(program["provenance"], indent=1, default=str)
    return (
        "<h2>Provenance</h2><details><summary>of the file</summary>"
        f"<pre><code>{escape(text)}</code></pre></details>"
    )
