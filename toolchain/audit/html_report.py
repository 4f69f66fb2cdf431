"""The audit as one self-contained HTML file: the document, explained in words.

The text is in `html_report.html`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from toolchain.accuracy import interval_of
from toolchain.audit import svg_charts
from toolchain.audit.budget import TERMS
from toolchain.audit.pages import render
from toolchain.text import counted

USES = {
    **{"in_axons": "in-axons", "out_axons": "out-axons", "synapse_bits": "bits"},
    **{"kernel_memory": "kernels", "neuron_memory": "states", "bias_memory": "biases"},
}
"""Headings of columns where they are not the names in the document."""
RASTERS_OPEN = 3
"""Number of rasters that are open at first."""


def write_page(document: dict[str, Any]) -> str:
    """The whole page as HTML, from the audit's document."""
    steps = document.get("chain")
    return render(
        "html_report.html",
        document={"lava": None, "chain": None, "budget": None, "chip": None, **document},
        program=document["program"],
        charts=svg_charts,
        counted=counted,
        terms=TERMS,
        rasters_open=RASTERS_OPEN,
        gates=_gates(document),
        accuracy=accuracies(document),
        agreement=_agreement(document),
        chain=chain([*steps["steps"], *steps["without"]]) if steps else (),
        budget=_budget(document) if "budget" in document else (),
        uneven=_uneven(document) if "budget" in document else (),
        ranges=[_range(row) for row in document["ranges"]["populations"]],
        driven=sum(row["driven"] for row in document["ranges"]["populations"]),
        chip=_chip(document) if "chip" in document else (),
        uses=_uses(document) if "chip" in document else [],
        where="core" if _has_places(document) else "cores",
        limits=_limits(document) if "chip" in document else (),
        energy=document["energy"],
        operations=_operations(document),
        costs=_costs(document),
        simulated=document["energy"].get("simulated"),
        simulation=_simulation(document) if "simulated" in document["energy"] else (),
        provenance=json.dumps(document["program"]["provenance"], indent=1, default=str).split("\n"),
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


Rows = list[tuple[object, ...]]


def accuracies(document: dict[str, Any]) -> Rows:
    """Version, accuracy, interval and samples, which may be only the first ones."""
    found = document["versions"]["accuracy"]
    most = max((a["total"] for a in found.values()), default=0)
    return [
        (
            name,
            _percent(a["accuracy"]),
            interval_of(a),
            f"{a['total']:,}" if a["total"] == most else f"the first {a['total']:,} only",
        )
        for name, a in found.items()
    ]


def chain(steps: Sequence[dict[str, Any]]) -> Rows:
    """Version, accuracy, change in points, and interval."""
    return [
        (
            s["name"],
            _percent(s["accuracy"]),
            "" if s.get("change") is None else f"{100 * s['change']:+.2f}",
            interval_of(s),
        )
        for s in steps
    ]


def _gates(document: dict[str, Any]) -> Rows:
    return [
        (
            g["gate"],
            "not measured" if g["found"] is None else f"{g['found']:.6g}",
            "passed" if g["passed"] else "FAILED",
            g["meaning"],
        )
        for g in document["gates"]
    ]


def _agreement(document: dict[str, Any]) -> Rows:
    return [
        (name, *(_percent(c["same"] / max(c["samples"], 1)) for c in others.values()))
        for name, others in document["versions"]["agreement"].items()
    ]


def _budget(document: dict[str, Any]) -> Rows:
    rows: Rows = []
    for layer in document["budget"]["layers"]:
        terms = layer["terms"]
        cells = [f"{terms[t]['mean']:+.4f}" if t in terms else "" for t in TERMS]
        total = layer["total"]
        rows.append((layer["name"], f"{total['mean']:+.4f}", *cells, f"{total['rms']:.4f}"))
    return rows


def _uneven(document: dict[str, Any]) -> Rows:
    shares = ("too_many", "too_few", "below", "above")
    return [
        (layer["name"], *(_percent(layer[k]) for k in shares))
        for layer in document["budget"]["layers"]
        if layer["unit"] == "lam"
    ]


def _range(row: dict[str, Any]) -> tuple[object, ...]:
    state = row["state"]
    return (
        row["name"],
        *(f"{state[k][0]:,} .. {state[k][1]:,}" for k in ("bound", "observed", "reached")),
        "bound attained" if state["attained"] else _percent(state["share"]),
        f"{row['headroom_bits']:.1f}",
    )


def _uses(document: dict[str, Any]) -> list[str]:
    """Names of what layers use of a core."""
    return [_heading(name) for name in document["chip"]["layers"][0]["use"]]


def _heading(name: str) -> str:
    """A name of the document as the heading of a column."""
    return USES.get(name, name)


def _has_places(document: dict[str, Any]) -> bool:
    """Whether each layer has one core with an index, as on Speck."""
    return "chip" in document and "core" in document["chip"]["layers"][0]


def _fullest(found: dict[str, Any] | None) -> str:
    """The limit that a core meets first, and how much of it is used."""
    if found is None:
        return "-"
    return (
        f"{USES.get(found['limit'], found['limit'].replace('_memory', 's'))} {found['share']:.0%}"
    )


def _chip(document: dict[str, Any]) -> Rows:
    rows: Rows = []
    placed = _has_places(document)
    for index, layer in enumerate(document["chip"]["layers"]):
        other = layer["other_split"]
        use = [f"{used:,}" for used in layer["use"].values()]
        rows.append(
            (
                f"{index + 1}. {layer['name']}",
                ("none" if layer["core"] is None else layer["core"]) if placed else layer["cores"],
                layer["split"],
                "-" if other is None else f"{other['cores']} by {other['split']}",
                _fullest(layer["fullest"]),
                *use,
            )
        )
    return rows


def _limits(document: dict[str, Any]) -> Rows:
    chip = document["chip"]
    limits = {"cores per chip": chip["cores_per_chip"], **chip["limits"], **chip["numbers"]}
    return [
        (k, _numbers(v["value"]), v["source"] or "no public source: a warning, not an error")
        for k, v in limits.items()
    ]


def _numbers(value: int | Sequence[int]) -> str:
    """A limit, or one for each core."""
    return ", ".join(f"{v:,}" for v in ([value] if isinstance(value, int) else value))


def _operations(document: dict[str, Any]) -> Rows:
    return [
        (
            layer["name"],
            f"{layer['events']:,.1f}",
            f"{layer['synops']:,.0f}",
            f"{layer['synops_by_magnitude']:,.0f}",
        )
        for layer in document["energy"]["layers"]
    ]


def _costs(document: dict[str, Any]) -> Rows:
    estimate = document["energy"]["estimate"]
    return [
        (name, c["picojoules"], f"{estimate['nanojoules'][name]:,.1f}", c["source"])
        for name, c in estimate["costs"].items()
    ]


def _simulation(document: dict[str, Any]) -> Rows:
    """Figures of the simulator of energy, beside those that the audit has."""
    energy = document["energy"]
    found, ours = energy["simulated"], energy["estimate"]["nanojoules"]
    spikes = sum(layer["events"] for layer in energy["layers"])
    known = {
        "synapse": f"{ours['synop']:,.1f}",
        "soma": f"{ours['neuron_update']:,.1f}",
        "total": f"{ours['synop'] + ours['neuron_update']:,.1f}",
    }
    rows: Rows = [
        (f"nJ, {part}", f"{value:,.1f}", known.get(part, "-"))
        for part, value in found["nanojoules"].items()
    ]
    return [
        *rows,
        ("microseconds", f"{found['microseconds']:,.1f}", "-"),
        ("synaptic operations", f"{found['synops']:,.0f}", f"{energy['synops']:,.0f}"),
        ("neuron updates", f"{found['updates']:,.0f}", f"{energy['neuron_updates']:,}"),
        ("spikes", f"{found['events']:,.1f}", f"{spikes:,.1f}"),
        ("messages", f"{found['messages']:,.1f}", "-"),
    ]
