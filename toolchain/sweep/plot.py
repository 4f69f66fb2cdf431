"""A figure of a sweep: accuracy against cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from toolchain.files import atomic_path
from toolchain.sweep.measure import Result
from toolchain.sweep.pareto import front
from toolchain.text import drawing, drawn

MARKERS = {"if": "o", "cif": "s"}
LINES = ("-", "--", ":", "-.")
_AXES: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("synops per sample", lambda r: r.synops),
    ("latency, steps", lambda r: r.latency),
    ("cores", lambda r: r.cores),
)


def draw(results: Sequence[Result]) -> Figure:
    """Accuracy against synops, latency and cores; each point shows its number of time steps.

    Points on the front are filled. A line joins the points of one network with the same neuron,
    weight width and largest spike, which share a colour.
    """
    best = {r.key for r in front(results)}
    whole = sorted((r for r in results if not r.error), key=lambda r: r.latency)
    kinds = {k: f"C{i}" for i, k in enumerate(sorted(set(map(_kind, whole)), reverse=True))}
    runs = {r: LINES[i % len(LINES)] for i, r in enumerate(sorted({r.point.run for r in whole}))}
    figure = Figure((10, 4), layout="constrained")
    panels: Any = figure.subplots(1, 3, sharey=True)
    for axes, (name, of) in zip(panels, _AXES, strict=True):
        for run, line in runs.items():
            for kind, colour in kinds.items():
                joined = [r for r in whole if (r.point.run, _kind(r)) == (run, kind)]
                places = [of(r) for r in joined], [100 * r.accuracy for r in joined]
                axes.plot(*places, linestyle=line, linewidth=0.7, color=colour)
        for r in sorted(whole, key=lambda r: r.key in best):
            _point(axes, of(r), r, kinds[_kind(r)], filled=r.key in best)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        axes.margins(0.08)
    panels[0].set_ylabel("accuracy, %")
    _ticks(panels, whole)
    if whole:
        _legend(figure, kinds, runs if len(runs) > 1 else {})
    return figure


def _kind(result: Result) -> tuple[str, int, int]:
    return result.point.neuron, result.point.weight_bits, result.point.max_spike


def _point(axes: Any, x: float, result: Result, colour: str, *, filled: bool) -> None:
    """A marker with the number of time steps; later markers hide earlier ones."""
    y, above = 100 * result.accuracy, 3 + len(axes.texts)
    face, ink = (colour, "white") if filled else ("white", colour)
    mark: Any = {"marker": MARKERS[result.point.neuron], "facecolor": face, "edgecolor": colour}
    axes.scatter(x, y, 75, zorder=above, **mark)
    how: Any = {"ha": "center", "va": "center", "fontsize": 6, "clip_on": True}
    axes.text(x, y, str(result.point.steps), zorder=above, color=ink, **how)


def _ticks(panels: Any, results: Sequence[Result]) -> None:
    """Ticks at each latency and at whole cores; logarithmic axes for positive values."""
    if results and all(r.synops for r in results):
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].xaxis.set_minor_formatter(NullFormatter())
    panels[0].xaxis.set_major_formatter(EngFormatter())
    if results:
        panels[1].set_xscale("log")
        latencies = sorted({r.latency for r in results})
        panels[1].set_xticks(latencies, [str(latency) for latency in latencies])
        panels[1].xaxis.set_minor_locator(NullLocator())
    cores = {r.cores for r in results}
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[2].set_xlim(min(cores, default=0) - 1, max(cores, default=0) + 1)


def _legend(figure: Figure, kinds: dict[tuple[str, int, int], str], runs: dict[str, str]) -> None:
    """Legend of the colours and markers of neurons and weights, and of the networks' lines."""
    handles = []
    for (neuron, bits, most), colour in kinds.items():
        how: Any = {"color": colour, "marker": MARKERS[neuron], "linestyle": ""}
        graded = f", spikes to {most}" if most > 1 else ""
        handles.append(Line2D([], [], label=f"{neuron.upper()}{graded}, {bits} bits", **how))
    for run, line in runs.items():
        how = {"color": "black", "linestyle": line, "linewidth": 0.7}
        handles.append(Line2D([], [], label=drawn(Path(run).name), **how))
    title: Any = {"title": "number: time steps\nfilled: on the front", "title_fontsize": 8}
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, **title)


def save_plot(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the name's ending, PNG without an ending."""
    form = path.suffix.lower().removeprefix(".") or "png"
    with atomic_path(path) as temporary, drawing():
        figure.savefig(temporary, dpi=150, format=form)
