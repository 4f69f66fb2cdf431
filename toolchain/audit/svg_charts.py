"""The audit's charts as SVG, with colours from the page, for light and dark mode.

matplotlib draws with placeholder colours, which become CSS variables; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from toolchain.text import drawing, drawn, visible

INK, FAINT, PAGE = "#010203", "#040506", "#070809"
SERIES = ("#100001", "#100002", "#100003", "#100004", "#100005", "#100006")
"""Placeholder colours; the page defines --ink, --faint, --page and --series-1 .. 6."""
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    PAGE: "var(--page)",
    **{placeholder: f"var(--series-{i + 1})" for i, placeholder in enumerate(SERIES)},
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spikeport",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
}
PIXELS_PER_POINT = 4 / 3
ROW = 0.26
"""Height of a bar's row, in inches."""
LINE = 0.16
"""Height of each further line of a name, in inches."""
NAME = re.compile(r".{1,28}$|.{1,28}(?<=[._/ -])|.{1,28}")
"""Lines of a name, split between its parts if they fit."""
WIDTH = 6.4
"""Width of a chart with its names, in inches: 600 pixels."""
CORE = 0.22
"""Side of a core's square, in inches."""
LEAST_MAP = 1.8
"""Width of the smallest map of cores, in inches; its squares are larger."""
_COLOUR = re.compile("(fill: |stroke: )(" + "|".join(_VARIABLES) + ")")


def _svg(figure: Figure, title: str) -> Markup:
    """An inline SVG element with an accessible title; texts are escaped."""
    buffer = io.StringIO()
    how: Any = {"transparent": True, "metadata": {"Date": None}}
    with drawing():
        figure.savefig(buffer, format="svg", **how)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = _COLOUR.sub(lambda found: found[1] + _VARIABLES[found[2]], text)
    width = PIXELS_PER_POINT * float(re.search(r'width="([\d.]+)pt"', text)[1])  # type: ignore[index]
    size = f'style="width: {width:.0f}px"'
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', size, text, count=1)
    named = f' role="img"><title>{escape(visible(title))}</title>'
    return Markup(text.replace(">", named, 1))


def accuracy_by_steps(document: dict[str, Any]) -> Markup:
    """Accuracy after each step with its interval, and the accuracy of the float network."""
    steps = document["by_steps"]
    with mpl.rc_context(_STYLE):
        figure = Figure((WIDTH * 0.85, 2.8), layout="constrained")
        axes = figure.subplots()
        x = [s["step"] for s in steps]
        middle, low, high = (
            np.array([100 * (s["accuracy"] if s[key] is None else s[key]) for s in steps])
            for key in ("accuracy", "low", "high")
        )
        axes.fill_between(x, low, high, color=SERIES[0], alpha=0.2, linewidth=0)
        axes.plot(x, middle, "o-", color=SERIES[0], label="integer network, 95 % interval")
        for index, (name, found) in enumerate(document["versions"]["accuracy"].items()):
            if "network" in name:
                axes.axhline(
                    100 * found["accuracy"],
                    color=SERIES[1 + index],
                    linestyle=("--", ":")[index % 2],
                    label=name,
                )
        asleep = [s["step"] for s in steps if not s["awake"]]
        if asleep:
            axes.axvspan(min(asleep) - 0.5, max(asleep) + 0.5, color=FAINT, alpha=0.15)
        axes.set_xlabel("local step (shaded: asleep)" if asleep else "local step")
        known = document["versions"]["accuracy"]
        axes.set_ylabel(f"{document['score']}, %" if known else "agreement, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        _legend(figure, 2)
        return _svg(figure, "Accuracy after each step")


def budget(layers: Sequence[dict[str, Any]]) -> Markup:
    """Root mean square of each term by layer, in thresholds."""
    layers = [layer for layer in layers if layer["unit"] == "lam"]
    terms = list(layers[0]["terms"])
    with mpl.rc_context(_STYLE):
        figure, axes = _rows([layer["name"] for layer in layers])
        places = np.arange(len(layers))
        left = np.zeros(len(layers))
        for index, term in enumerate(terms):
            sizes = np.array([layer["terms"][term]["rms"] for layer in layers])
            axes.barh(places, sizes, 0.7, left, color=SERIES[index], label=term)
            left += sizes
        totals = [layer["total"]["rms"] for layer in layers]
        mark: Any = {"color": INK, "markersize": 10, "clip_on": False}
        axes.plot(totals, places, "|", label="all together", **mark)
        axes.set_xlim(left=0)
        axes.set_xlabel("root mean square per neuron, in thresholds (lam) per step")
        _legend(figure, 4)
        return _svg(figure, "Error budget of every layer")


def ranges(rows: Sequence[dict[str, Any]], state_bits: int) -> Markup:
    """Bits of the states: proved, observed, and of the register."""
    with mpl.rc_context(_STYLE):
        figure, axes = _rows([row["name"] for row in rows])
        places = np.arange(len(rows))
        for offset, key, color in (
            (-0.2, "bound", SERIES[0]),
            (0.0, "reached", SERIES[1]),
            (0.2, "observed", SERIES[2]),
        ):
            bits = [_bits(row["state"][key]) for row in rows]
            axes.barh(places + offset, bits, 0.2, color=color, label=_RANGE_NAMES[key])
        axes.axvline(state_bits, color=INK, linestyle="--", label=f"register, {state_bits} bits")
        axes.set_xlabel("bits with sign")
        _legend(figure, 2)
        return _svg(figure, "Ranges of membrane potentials")


_RANGE_NAMES = {
    "bound": "proved bound",
    "reached": "reached by a constructed input",
    "observed": "observed on data",
}


def _bits(interval: Sequence[int]) -> float:
    return float(np.log2(max(-interval[0], interval[1], 1)) + 1)


def raster(layer: dict[str, Any]) -> Markup:
    """Spikes of some neurons over the steps, and membrane potentials of the most active ones."""
    spikes, potential = np.array(layer["spikes"]), np.array(layer["potential"])
    steps = np.arange(1, spikes.shape[1] + 1)
    with mpl.rc_context(_STYLE):
        figure = Figure((WIDTH * 0.85, 2.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for sign, color, label in ((1, SERIES[0], "spike"), (-1, SERIES[1], "taken back")):
            rows, times = (spikes * sign > 0).nonzero()
            if len(rows):
                above.scatter(steps[times], rows, 9, color=color, marker="|", label=label)
        above.set_ylabel("neuron")
        above.set_yticks([])
        if not spikes.any():
            middle: Any = {"ha": "center", "va": "center", "transform": above.transAxes}
            above.text(0.5, 0.5, "nothing fires", **middle)
        for index, values in enumerate(potential):
            below.plot(steps, values, ".-", color=SERIES[2 + index], linewidth=1)
        for level in (0, 1):
            below.axhline(level, color=FAINT, linewidth=0.6)
        below.set_ylabel("v / theta")
        below.set_xlabel("local step")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, f"Spikes and membranes of {layer['name']}")


def core_map(chip: dict[str, Any]) -> Markup:
    """Every core as a square with the number of its layer, chip after chip.

    Where layers have cores with an index, all cores of the chip are drawn, those without a layer
    pale.
    """
    per_chip = chip["cores_per_chip"]["value"]
    homes = _homes(chip)
    total = len(homes)
    columns = min(32, total)
    chips = -(-total // per_chip)
    rows_of_chip = -(-min(per_chip, total) // columns)
    rows = (rows_of_chip + 1) * chips - 1
    with mpl.rc_context(_STYLE):
        side = max(CORE, LEAST_MAP / columns)
        figure = Figure((side * columns, side * rows))
        axes = figure.add_axes((0, 0, 1, 1))
        for core, index in enumerate(homes):
            of_chip, place = divmod(core, per_chip)
            x, y = place % columns, of_chip * (rows_of_chip + 1) + place // columns
            how: Any = {"color": FAINT, "alpha": 0.25}
            if index is not None:
                how = {"color": SERIES[index % len(SERIES)], "alpha": 1 - 0.4 * (index // 6 % 2)}
                number: Any = {"ha": "center", "va": "center", "fontsize": 7, "color": PAGE}
                axes.text(x + 0.5, y + 0.5, str(index + 1), **number)
            axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, linewidth=0, **how))
        axes.set_xlim(0, columns)
        axes.set_ylim(rows, 0)
        axes.axis("off")
        return _svg(figure, f"{chip['cores']} cores on {chips} chips")


def _homes(chip: dict[str, Any]) -> list[int | None]:
    """Index of the layer of each core, in the order of cores; None without one."""
    layers = chip["layers"]
    if "core" not in layers[0]:
        return [index for index, layer in enumerate(layers) for _ in range(layer["cores"])]
    of = {layer["core"]: index for index, layer in enumerate(layers)}
    return [of.get(core) for core in range(chip["cores_per_chip"]["value"])]


def _rows(names: Sequence[str]) -> tuple[Figure, Any]:
    """A figure with one row per name, from top to bottom; long names take several lines."""
    told = [NAME.findall(visible(name)) for name in names]
    row = ROW + LINE * (max(map(len, told), default=1) - 1)
    figure = Figure((WIDTH, 1.2 + row * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(np.arange(len(names)), ["\n".join(map(drawn, lines)) for lines in told])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(loc="outside upper left", ncols=columns, fontsize=8)
