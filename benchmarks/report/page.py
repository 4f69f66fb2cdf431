"""`RESULTS.md` from saved evaluations: tables, figures and the commands behind every number."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.report import figures
from benchmarks.report.detection import detection_lines, provenance_lines
from benchmarks.report.markdown import image, ran, table_line
from benchmarks.report.sequences import sequence_lines
from benchmarks.report.speed import Measurement
from toolchain.files import atomic_write
from toolchain.learning.detection.document import DetectorEvaluation
from toolchain.learning.evaluation.results import FILE_NAME, AccuracyRow, Evaluation
from toolchain.text import markdown, visible

PUBLISHED = {
    ("vgg16", "cifar10"): (95.21, {1: 88.46, 2: 91.93, 4: 94.80, 8: 95.48, 16: 95.70}),
    ("resnet18", "cifar10"): (95.52, {1: 89.64, 2: 93.72, 4: 95.37, 8: 96.21, 16: 96.38}),
    ("resnet20", "cifar10"): (85.18, {1: 65.99, 2: 77.30, 4: 84.54, 8: 87.43, 16: 88.26}),
    ("vgg16", "cifar100"): (74.86, {1: 62.27, 2: 69.39, 4: 74.57, 8: 76.73, 16: 77.68}),
    ("resnet18", "cifar100"): (76.66, {1: 62.35, 2: 70.86, 4: 76.81, 8: 78.85, 16: 79.44}),
    ("resnet20", "cifar100"): (62.34, {1: 21.78, 2: 33.87, 4: 50.28, 8: 60.93, 16: 64.73}),
}
"""NQ's accuracies in its authors' README, %: the "ANN" (measured with its noise on) and T."""


def find_evaluations(folder: Path) -> dict[str, Evaluation]:
    """Every evaluation of a trained run below `folder`, by the name of its folder, sorted."""
    found = {
        file.parent.relative_to(folder).as_posix(): Evaluation.read(file)
        for file in sorted(folder.rglob(FILE_NAME))
    }
    return {name: evaluation for name, evaluation in found.items() if evaluation.run is not None}


def write_page(
    evaluations: Mapping[str, Evaluation],
    page: Path,
    figure_folder: Path,
    measurements: Mapping[str, Measurement] | None = None,
    detectors: Mapping[str, DetectorEvaluation] | None = None,
    folder: Path = Path(),
) -> list[Path]:
    """Write the page and its figures; returns the figures.

    Figures that need something no evaluation holds are left out.

    Parameters
    ----------
    measurements:
        What benchmarks of speed found, by name.
    detectors:
        Evaluations of detectors, by the name of their folder below `folder`.
    """
    measurements, detectors = measurements or {}, detectors or {}
    drawn = figures.draw(figure_folder, _figures(evaluations))
    lines = ["# Results", "", _INTRODUCTION, ""]
    for (data, model), group in _groups(evaluations).items():
        lines += [f"## {markdown(model)} on {markdown(data)}", ""]
        lines += _accuracy_table(data, model, group)
        lines += _counts_table(group)
        lines += sequence_lines(group)
    lines += detection_lines(detectors, folder, page)
    for measurement in measurements.values():
        lines += measurement.lines()
    lines += ["## Figures", ""]
    for name, path in drawn.items():
        lines += [image(name.replace("-", " "), path, page), ""]
    lines += ["## How each number was made", ""]
    for name, evaluation in evaluations.items():
        lines += _provenance(name, evaluation)
    lines += provenance_lines(detectors)
    for name, measurement in measurements.items():
        command = visible(measurement.made["command"])
        made = ran(measurement.made)
        lines += [f"**{markdown(name)}**:", "", "```", command, "```", "", made, ""]
    atomic_write(page, ("\n".join(lines).rstrip() + "\n").encode())
    return list(drawn.values())


_INTRODUCTION = (
    "Written by `python -m benchmarks.report`; not edited by hand. Accuracies are on test data, "
    "top-1, in %, with half the width of the 95 % interval; the epoch was chosen on a held-out "
    "tenth of the training data. The ANN runs without noise. Integer networks are converted for "
    "the longest T shown; their readout after fewer steps is what the same program gives when it "
    "stops there."
)


_FLIPS = (
    "In brackets: images that only the first of the two has right, and only the second; p of "
    "McNemar's exact test, two-sided."
)


def _data_name(evaluation: Evaluation) -> str:
    """The source without its split; image folders by the name of the folder or file."""
    base = evaluation.data.partition("@")[0]
    name, _, path = base.partition(":")
    return f"{name}:{Path(path).name}" if path else name


def _groups(evaluations: Mapping[str, Evaluation]) -> dict[tuple[str, str], dict[str, Evaluation]]:
    groups: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for name, evaluation in evaluations.items():
        config = evaluation.config
        width = "" if config["width"] == 1 else f" (width {config['width']:g})"
        key = (_data_name(evaluation), f"{config['model']}{width}")
        groups.setdefault(key, {})[name] = evaluation
    return groups


def _percent(row: AccuracyRow | None) -> str:
    if row is None:
        return ""
    a = row.accuracy
    return f"{100 * a['accuracy']:.2f} ± {50 * (a['high'] - a['low']):.2f}"


def _accuracy_table(data: str, model: str, group: dict[str, Evaluation]) -> list[str]:
    """IF networks by steps, one line for each arithmetic; then what ran on Lava."""
    timed = [e for e in group.values() if e.counts is None]
    steps = sorted({r.steps for e in timed for r in e.rows if r.neuron == "IF" and r.steps})
    if not steps:
        return _lava_lines(group)
    lines = [
        table_line(["trained with", "arithmetic", "ANN", *(f"T = {t}" for t in steps), "samples"]),
        table_line(["---"] * 2 + ["---:"] * (len(steps) + 2)),
    ]
    for evaluation in timed:
        lines += _accuracy_lines(evaluation, steps)
    published = PUBLISHED.get((model, "cifar10" if "cifar10" in data else data.partition(":")[0]))
    if published:
        published_ann, by_steps = published
        cells = [f"{by_steps[t]:.2f}" if t in by_steps else "" for t in steps]
        lines.append(table_line(["NQ, published", "float", f"{published_ann:.2f}", *cells, 10000]))
    return [*lines, "", *_difference_lines(timed, steps), *_lava_lines(group)]


def _difference_lines(timed: Sequence[Evaluation], steps: Sequence[int]) -> list[str]:
    """NQ against QCFS trained alike, and integers against float, in percentage points.

    Fixed noise is left out.
    """
    trained = [e for e in timed if figures.fixed_noise(e) is None]
    pairs = [
        (f"{figures.training_of(nq)} - QCFS, both float", (nq, "float"), (qcfs, "float"))
        for nq in trained
        for qcfs in trained
        if qcfs.config["activation"] == "qcfs" and nq.config == {**qcfs.config, "activation": "nq"}
    ]
    for evaluation in trained:
        for arithmetic in dict.fromkeys(r.arithmetic for r in evaluation.rows if r.neuron == "IF"):
            if arithmetic != "float":
                what = f"{figures.training_of(evaluation)}: {arithmetic} - float"
                pairs.append((what, (evaluation, arithmetic), (evaluation, "float")))
    if not pairs:
        return []
    rows = [
        table_line([what, *(_difference(first, second, t) for t in steps)])
        for what, first, second in pairs
    ]
    head = ["difference in percentage points", *(f"T = {t}" for t in steps)]
    said = [_FLIPS, ""] if any("p = " in row for row in rows) else []
    return [table_line(head), table_line(["---"] + ["---:"] * len(steps)), *rows, "", *said]


def _difference(first: tuple[Evaluation, str], second: tuple[Evaluation, str], steps: int) -> str:
    a, b = (
        e.find(neuron="IF", arithmetic=arithmetic, steps=steps) for e, arithmetic in (first, second)
    )
    if a is None or b is None:
        return ""
    points = 100 * (a.accuracy["accuracy"] - b.accuracy["accuracy"])
    return str(a.flips(b) or f"{points:+.2f}")


def _lava_lines(group: dict[str, Evaluation]) -> list[str]:
    """Runs on Lava against the reference simulator: every spike, membrane potential and logit."""
    rows = [
        table_line([name, lava["samples"], lava["steps"], lava["weight_bits"], values, wrong])
        for name, evaluation in group.items()
        if (lava := evaluation.lava)
        for values, wrong in ((f"{lava['values']:,}", lava["mismatches"]),)
    ]
    if not rows:
        return []
    head = ["on Lava", "images", "steps", "weight bits", "values compared", "mismatches"]
    return [table_line(head), table_line(["---"] + ["---:"] * 5), *rows, ""]


def _accuracy_lines(evaluation: Evaluation, steps: Sequence[int]) -> list[str]:
    spiking = [r for r in evaluation.rows if r.neuron == "IF"]
    lines = []
    for arithmetic in dict.fromkeys(r.arithmetic for r in spiking):
        cells = [
            _percent(evaluation.find(neuron="IF", arithmetic=arithmetic, steps=t)) for t in steps
        ]
        ann = _percent(evaluation.find(network="ANN", arithmetic=arithmetic))
        total = next(r for r in spiking if r.arithmetic == arithmetic).accuracy["total"]
        lines.append(table_line([figures.training_of(evaluation), arithmetic, ann, *cells, total]))
    return lines


def _counts_table(group: dict[str, Evaluation]) -> list[str]:
    """CIF and wake-sleep against the quantized network with the same integers."""
    lines: list[str] = []
    for name, evaluation in group.items():
        counts = evaluation.counts
        if counts is None:
            continue
        in_float = _percent(evaluation.find(network="ANN", arithmetic="float"))
        in_integers = _percent(evaluation.find(network="ANN", arithmetic=counts["arithmetic"]))
        lines += [
            f"{markdown(name)}, Q = {counts['wake_steps']}: the quantized network reaches "
            f"{in_float} in float and {in_integers} in {counts['arithmetic']}. All "
            f"{counts['samples']} images had settled {counts['settle_steps']} steps after the "
            "last wake step.",
            "",
            table_line(["neurons", "accuracy", "counts that differ", "images with a difference"]),
            table_line(["---"] + ["---:"] * 3),
        ]
        for variant, values in counts["variants"].items():
            layers = values["layers"].values()
            wrong, neurons = sum(x["wrong"] for x in layers), sum(x["neurons"] for x in layers)
            row = evaluation.find(neuron=variant, arithmetic=counts["arithmetic"])
            share = f"{wrong:,} of {neurons:,} ({100 * wrong / neurons:.3f} %)"
            images = f"{values['unequal_images']} of {counts['samples']}"
            lines.append(table_line([variant, _percent(row), share, images]))
        lines.append("")
    return lines


def _provenance(name: str, evaluation: Evaluation) -> list[str]:
    made, run = evaluation.made_by, evaluation.run
    words = shlex.split(made["command"])
    folder = words[2] if words[1:2] == ["evaluate"] else name
    return [
        f"**{markdown(name)}**: epoch {run['epoch']} of {run['config']['epochs']}, seed "
        f"{run['config']['seed']}, tensors {run['checkpoint_sha256'][:16]}.",
        "",
        "```",
        visible(f"spikeport train --config {folder}/config.toml --out {folder}"),
        visible(made["command"]),
        "```",
        "",
        ran(made),
        *(f"Note: {markdown(note)}" for note in evaluation.notes),
        "",
    ]


def _figures(evaluations: Mapping[str, Evaluation]) -> dict[str, Callable[[], Figure]]:
    """What can be drawn from the evaluations at hand."""
    whole = {n: e for n, e in evaluations.items() if figures.fixed_noise(e) is None}
    chosen: dict[str, Callable[[], Figure]] = {}
    for group_key, group in _groups(whole).items():
        gaps = [e for e in group.values() if e.gaps]
        key = _slug(group_key)
        for evaluation in gaps:
            if evaluation.config["activation"] == "nq":
                chosen[f"residual-error-{key}"] = partial(figures.residual_error, evaluation)
        if gaps:
            chosen[f"snn-against-ann-{key}"] = partial(figures.snn_against_ann, gaps)
            chosen[f"mean-gap-{key}"] = partial(figures.mean_gap, gaps)
            layers: dict[str, Any] = {
                f"{figures.title_of(e)}, T = {e.gaps['steps']}": e.gaps["layers"]
                for e in gaps
                if e.gaps
            }
            chosen[f"relative-error-{key}"] = partial(
                figures.relative_error, layers, "float spiking network"
            )
        for evaluation in group.values():
            if evaluation.counts:
                variants = {n: v["layers"] for n, v in evaluation.counts["variants"].items()}
                chosen[f"spike-errors-{key}"] = partial(figures.spikes_too_many_or_few, evaluation)
                chosen[f"relative-error-counts-{key}"] = partial(
                    figures.relative_error, variants, figures.title_of(evaluation)
                )
        trained = [e for e in group.values() if e.run["history"]]
        if trained:
            chosen[f"training-{key}"] = partial(figures.training_curves, trained)
    trained_with_noise = {n: e for n, e in evaluations.items() if e.config["activation"] == "nq"}
    for group_key, group in _groups(trained_with_noise).items():
        if any(figures.fixed_noise(e) is not None for e in group.values()):
            chosen[f"noise-intensity-{_slug(group_key)}"] = partial(
                figures.accuracy_by_noise, list(group.values())
            )
    return chosen


def _slug(group: tuple[str, str]) -> str:
    """Data and model as part of a file name: "cifar10-jpeg-resnet20"."""
    data, model = group
    name = Path(data.rpartition(":")[2]).stem
    return "-".join(re.findall(r"[a-z0-9.]+", f"{name} {model}".lower()))
