"""Which results are worth having: no other is better in one respect and as good in all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from toolchain.files import atomic_path
from toolchain.sweep.measure import Result

MARKERS = {"if": "o", "cif": "s"}
_AXES: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("synops a sample", lambda r: r.synops),
    ("latency, steps", lambda r: r.latency),
    ("cores", lambda r: r.cores),
)


def costs(result: Result) -> tuple[float, float, int, int]:
    """Errors, synops, latency and cores: less is better of each."""
    return (-result.accuracy, result.synops, result.latency, result.cores)


def front(results: Sequence[Result]) -> list[Result]:
    """Those that no other result dominates, in their order; failed ones are never among them."""
    whole = [r for r in results if not r.error]
    table = np.array([costs(r) for r in whole], np.float64).reshape(len(whole), 4)
    kept = []
    for index, row in enumerate(table):
        better = (table <= row).all(axis=1) & (table < row).any(axis=1)
        if not better.any():
            kept.append(whole[index])
    return kept


def draw(results: Sequence[Result]) -> Figure:
    """Accuracy against synops, latency and cores; the front is filled, T are the time steps."""
    best = {r.key for r in front(results)}
    whole = [r for r in results if not r.error]
    figure = Figure((10, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, 3, sharey=True)
    for axes, (name, of) in zip(panels, _AXES, strict=True):
        for bits in sorted({r.point.weight_bits for r in whole}):
            for neuron, marker in MARKERS.items():
                chosen = [
                    r for r in whole if (r.point.weight_bits, r.point.neuron) == (bits, neuron)
                ]
                if not chosen:
                    continue
                (line,) = axes.plot(
                    [of(r) for r in chosen],
                    [100 * r.accuracy for r in chosen],
                    marker,
                    fillstyle="none",
                    label=f"{neuron.upper()}, {bits} bits",
                )
                top = [r for r in chosen if r.key in best]
                points = ([of(r) for r in top], [100 * r.accuracy for r in top])
                axes.plot(*points, marker, color=line.get_color())
                if axes is panels[0]:
                    for r in chosen:
                        _name(axes, r, line.get_color())
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in panels[:2]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].xaxis.set_major_formatter(EngFormatter())
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latencies = sorted({r.latency for r in whole})
    panels[1].set_xticks(latencies, [str(latency) for latency in latencies])
    cores = {r.cores for r in whole}
    panels[2].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[2].set_xlim(min(cores, default=0) - 1, max(cores, default=0) + 1)
    panels[0].set_ylabel("accuracy, %")
    if whole:
        handles, _ = panels[0].get_legend_handles_labels()
        how = {"fontsize": 8, "title": "filled: on the front\nT: time steps", "title_fontsize": 8}
        figure.legend(handles=handles, loc="outside right upper", **how)
    return figure


def _name(axes: Any, result: Result, color: str) -> None:
    """Write a point's time steps beside it."""
    axes.annotate(
        f"T={result.point.steps}",
        (result.synops, 100 * result.accuracy),
        (4, -9),
        textcoords="offset points",
        fontsize=6.5,
        color=color,
    )


def save_plot(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the name ends in, PNG without an ending."""
    form = path.suffix.lower().removeprefix(".") or "png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format=form)
