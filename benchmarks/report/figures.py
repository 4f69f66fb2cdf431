"""The papers' figures, drawn from saved evaluations.

Each function takes evaluations and returns a matplotlib figure. Gaps and errors are in thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from toolchain.files import atomic_path, make_folder
from toolchain.learning.evaluation.float_network import GAP_EDGES
from toolchain.learning.evaluation.results import Evaluation
from toolchain.learning.evaluation.schema import CountsOfLayer, GapOfLayer
from toolchain.output_policy import PLOT, check_output
from toolchain.text import drawing, drawn

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe & Ito's palette, told apart with any colour vision."""
SHOWN_LAYERS, SHOWN_COLUMNS = 6, 4
NAMES = {"nq": "NQ", "qcfs": "QCFS", "cqrelu": "CQReLU", "relu": "ReLU"}
STYLE: Any = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.hashsalt": "spikeport",
}


def training_of(evaluation: Evaluation) -> str:
    """The activation a run was trained with, and what else sets it apart from others."""
    config = evaluation.config
    told = [NAMES[config["activation"]]]
    if config["fixed_noise"] is not None:
        told.append(f"noise {config['fixed_noise']:g}")
    # Runs are named data-model-activation, and then what sets them apart.
    start = (config.get("init") or "").rpartition("/")[2].split("-")
    of_start = [place for place, word in enumerate(start) if word in NAMES]
    if of_start and start[of_start[0]] != config["activation"]:
        told.append(f"from {NAMES[start[of_start[0]]]}")
    if config.get("teacher") is not None:
        told.append("taught")
    if config.get("errors", "modelled") == "own":
        told.append(f"own errors at T = {config['calibration_steps']}")
    if of_start:
        told += [word for word in start[of_start[0] + 1 :] if word not in told]
    return ", ".join(told)


def title_of(evaluation: Evaluation) -> str:
    """How a run was trained, and its model."""
    return f"{training_of(evaluation)} {evaluation.config['model']}"


def _figure(width: float, height: float) -> Figure:
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def _spread(names: Sequence[str], count: int) -> list[str]:
    """`count` names spread evenly, the first and the last among them."""
    if len(names) <= count:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]


def _layer_axis(axes: Axes) -> None:
    """Number layers from 0, in the order of the network."""
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _panels(count: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure = _figure(2.5 * columns, height * rows)
    with mpl.rc_context(STYLE):
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def _layers(evaluation: Evaluation) -> dict[str, GapOfLayer]:
    return evaluation.gaps["layers"] if evaluation.gaps else {}


def _gap_steps(evaluation: Evaluation) -> int | None:
    return evaluation.gaps["steps"] if evaluation.gaps else None


def residual_error(evaluation: Evaluation) -> Figure:
    """Distribution of the residual error by layer, against the Gaussian trained with."""
    layers = _layers(evaluation)
    names = _spread(list(layers), SHOWN_LAYERS)
    figure, panels = _panels(len(names), 3, 1.8)
    centres = (GAP_EDGES[1:] + GAP_EDGES[:-1]) / 2
    for axes, name in zip(panels, names, strict=True):
        layer = layers[name]
        counts = np.array(layer["histogram"], float)
        axes.bar(
            centres,
            counts / counts.sum() / np.diff(GAP_EDGES),
            np.diff(GAP_EDGES),
            color=COLOURS[0],
            label="measured",
        )
        sigma = layer["sigma"]
        if sigma:
            x = np.linspace(-1, 1, 400)
            density = np.exp(-0.5 * (x / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
            axes.plot(x, density, color=COLOURS[1], label=f"N(0, {sigma:.2f}²)")
        axes.set_yscale("log")
        axes.set_ylim(1e-3, None)
        axes.set_xlim(-1, 1)
        axes.set_title(drawn(name))
        axes.legend(fontsize=6)
    figure.supxlabel("residual error, in thresholds")
    figure.supylabel("density")
    figure.suptitle(drawn(f"{title_of(evaluation)}, T = {_gap_steps(evaluation)}"))
    return figure


def snn_against_ann(evaluations: Sequence[Evaluation]) -> Figure:
    """Share of neurons by ANN level and spike count; a row per network."""
    columns = min([SHOWN_COLUMNS, *(len(_layers(e)) for e in evaluations)])
    figure, panels = _panels(columns * len(evaluations), columns, 2.2)
    for row, evaluation in enumerate(evaluations):
        layers = _layers(evaluation)
        names = _spread(list(layers), columns)
        for axes, name in zip(panels[row * columns :], names, strict=False):
            joint = np.array(layers[name]["joint"], float)
            share = joint / np.maximum(joint.sum(1, keepdims=True), 1)
            levels, steps = joint.shape[0] - 1, joint.shape[1] - 1
            extent = (-0.5 / levels, 1 + 0.5 / levels, -0.5 / steps, 1 + 0.5 / steps)
            axes.imshow(share.T, origin="lower", extent=extent, aspect="auto", cmap="Blues")
            axes.plot([0, 1], [0, 1], color=COLOURS[1], linewidth=0.8)
            axes.grid(visible=False)
            axes.set_title(f"{drawn(title_of(evaluation))}\n{drawn(name)}", fontsize=7)
    figure.supxlabel("ANN activation, in thresholds")
    figure.supylabel("spike rate (share per column)")
    return figure


def fixed_noise(evaluation: Evaluation) -> float | None:
    """NQ's noise in thresholds where a run does not estimate it; none with own errors."""
    config = evaluation.config
    return None if config.get("errors") == "own" else config.get("fixed_noise")


def accuracy_by_noise(evaluations: Sequence[Evaluation]) -> Figure:
    """Accuracy of networks trained with fixed noise, by steps; the estimated one dashed."""
    fixed = sorted(
        (e for e in evaluations if fixed_noise(e) is not None),
        key=lambda e: fixed_noise(e) or 0.0,
    )
    estimated = [e for e in evaluations if fixed_noise(e) is None]
    figure = _figure(5.0, 3.2)
    with mpl.rc_context(STYLE):
        axes = figure.add_subplot()
    intensity = [fixed_noise(e) for e in fixed]
    for colour, steps in zip(COLOURS, (None, 1, 2, 4, 8), strict=False):
        label = "ANN" if steps is None else f"SNN, T = {steps}"
        values = [_accuracy(e, steps) for e in fixed]
        axes.plot(intensity, values, marker="o", markersize=3, color=colour, label=label)
        for evaluation in estimated:
            axes.axhline(_accuracy(evaluation, steps), color=colour, linestyle="--", linewidth=0.8)
    axes.set_xlabel("noise intensity, in thresholds (dashed: estimated by layer, NQ)")
    axes.set_ylabel("test accuracy, %")
    axes.legend()
    if fixed:
        axes.set_title(drawn(f"NQ {fixed[0].config['model']}, {fixed[0].data.partition(':')[0]}"))
    return figure


def _accuracy(evaluation: Evaluation, steps: int | None) -> float:
    network = "ANN" if steps is None else "SNN"
    row = evaluation.find(network=network, arithmetic="float", steps=steps)
    return float("nan") if row is None else 100 * float(row.accuracy["accuracy"])


def training_curves(evaluations: Sequence[Evaluation]) -> Figure:
    """Held-out accuracy of the ANN and of the spiking network during training."""
    figure = _figure(6.0, 3.2)
    with mpl.rc_context(STYLE):
        axes = figure.add_subplot()
    for colour, evaluation in zip(COLOURS * 9, evaluations, strict=False):
        history = evaluation.run["history"]
        epochs = [h["epoch"] for h in history]
        name = drawn(title_of(evaluation))
        quantized = [100 * h["held_out_quantized"] for h in history]
        axes.plot(epochs, quantized, color=colour, label=f"{name}, ANN")
        if "held_out_spiking" in history[0]:
            steps = evaluation.config["calibration_steps"]
            spiking = [100 * h["held_out_spiking"] for h in history]
            axes.plot(
                epochs, spiking, color=colour, linestyle=":", label=f"{name}, SNN T = {steps}"
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("held-out accuracy, %")
    axes.legend()
    return figure


def spikes_too_many_or_few(evaluation: Evaluation) -> Figure:
    """Share of neurons with more or fewer spikes than the quantized network, by layer."""
    variants = evaluation.counts["variants"] if evaluation.counts else {}
    figure, panels = _panels(len(variants), len(variants), 2.6)
    for axes, (name, variant) in zip(panels, variants.items(), strict=True):
        layers = variant["layers"]
        position = np.arange(len(layers))
        many = np.array([100 * layer["too_many"] for layer in layers.values()])
        few = np.array([100 * layer["too_few"] for layer in layers.values()])
        axes.bar(position, many, color=COLOURS[1], label="too many")
        axes.bar(position, -few, color=COLOURS[0], label="too few")
        axes.set_title(drawn(name))
        _layer_axis(axes)
        axes.axhline(0, color="black", linewidth=0.6)
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(low, high)
    panels[0].set_ylabel("share of neurons, %")
    panels[0].legend()
    figure.suptitle(drawn(title_of(evaluation)))
    return figure


_Layers = Mapping[str, GapOfLayer] | Mapping[str, CountsOfLayer]


def relative_error(named_layers: Mapping[str, _Layers], heading: str) -> Figure:
    """Relative error of each layer over images, one panel per network.

    Boxes from the 25 to the 75 % quantile, whiskers to 5 and 95 %.
    """
    figure, panels = _panels(len(named_layers), min(3, len(named_layers)), 2.6)
    for axes, (name, layers) in zip(panels, named_layers.items(), strict=True):
        boxes = [layer["relative_error"] for layer in layers.values()]
        stats = [
            {
                "med": b["median"],
                "q1": b["q1"],
                "q3": b["q3"],
                "whislo": b["low"],
                "whishi": b["high"],
            }
            for b in boxes
            if b is not None
        ]
        positions = [i for i, b in enumerate(boxes) if b is not None]
        axes.bxp(stats, positions=positions, showfliers=False, widths=0.6, manage_ticks=False)
        axes.set_title(drawn(name))
        _layer_axis(axes)
    panels[0].set_ylabel("sum |difference| / sum of the ANN")
    figure.suptitle(drawn(heading))
    return figure


def mean_gap(evaluations: Sequence[Evaluation]) -> Figure:
    """Theorem 1 as measured: mean residual error of each layer with its 95 % interval."""
    figure, panels = _panels(len(evaluations), min(2, len(evaluations)), 2.6)
    for axes, evaluation in zip(panels, evaluations, strict=True):
        layers = list(_layers(evaluation).values())
        position = np.arange(len(layers))
        means = np.array([layer["mean"] for layer in layers])
        high = np.array([layer["mean_high"] for layer in layers])
        axes.errorbar(position, means, yerr=high - means, fmt="o", markersize=3, color=COLOURS[0])
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(drawn(f"{title_of(evaluation)}, T = {_gap_steps(evaluation)}"))
        _layer_axis(axes)
    panels[0].set_ylabel("mean gap, in thresholds")
    return figure


def draw(folder: Path, figures: dict[str, Callable[[], Figure]]) -> dict[str, Path]:
    """Draw each figure into `folder` as SVG; returns the files by name."""
    make_folder(folder)
    for name in figures:
        check_output(folder / f"{name}.svg", PLOT)
    files = {}
    for name, make in figures.items():
        path = folder / f"{name}.svg"
        with (
            mpl.rc_context(STYLE),
            drawing(),
            atomic_path(path) as temporary,
            temporary.open("wb") as file,
        ):
            make().savefig(file, format="svg", metadata={"Date": None})
        files[name] = path
    return files
