"""The results page's part on detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report.figures import NAMES
from benchmarks.report.markdown import image, ran, table_line
from toolchain.learning.detection.document import FILE_NAME, DetectorEvaluation, PrecisionRow
from toolchain.text import markdown, visible

PICTURE = "detections.png"
"""Beside an evaluation, see `spikeport detector show`."""


def find_detector_evaluations(folder: Path) -> dict[str, DetectorEvaluation]:
    """Every one below `folder`, by the name of the folder it lies in, sorted."""
    files = sorted(folder.rglob(FILE_NAME)) if folder.is_dir() else []
    return {f.parent.relative_to(folder).as_posix(): DetectorEvaluation.read(f) for f in files}


def detection_lines(
    evaluations: Mapping[str, DetectorEvaluation], folder: Path, page: Path
) -> list[str]:
    """Markdown of all evaluations, which lie below `folder`; nothing if there are none."""
    if not evaluations:
        return []
    lines = [
        "## Object detection",
        "",
        "mAP by pycocotools, in %, boxes of any score from 0.01 on, at most 100 per image. Outputs "
        "of spiking networks are accumulators divided by the wake steps; boxes are decoded from "
        "them. Float is the network without quantization, quantized has float weights.",
        "",
    ]
    for data, group in _groups(evaluations).items():
        first = next(iter(group.values()))
        lines += [f"{data}: {first.num_images} images, {first.num_boxes} boxes.", ""]
        lines += _precision_table(group)
        for name, evaluation in group.items():
            lines += _exactness(name, evaluation)
            lines += _operations(name, evaluation)
        lines += _lava(group)
        for name in group:
            picture = folder / name / PICTURE
            if picture.is_file():
                lines += [image("Detections by ANN and SNN", picture, page), ""]
    return lines


def _groups(
    evaluations: Mapping[str, DetectorEvaluation],
) -> dict[str, dict[str, DetectorEvaluation]]:
    """By data and network."""
    groups: dict[str, dict[str, DetectorEvaluation]] = {}
    for name, evaluation in evaluations.items():
        config = evaluation.config
        source, _, split = evaluation.data.partition("@")
        kind, _, path = source.partition(":")
        height, width = config["input_size"]
        key = (
            f"**{markdown(config['backbone'])} (width {config['width']:g}), "
            f"{markdown(config['neck'])} neck, {markdown(config['head'])} head, "
            f"stride {config['stride']}, {width}x{height}** on "
            f"{markdown(f'{kind}:{Path(path).name}@{split}')}"
        )
        groups.setdefault(key, {})[name] = evaluation
    return groups


def _precision_table(group: dict[str, DetectorEvaluation]) -> list[str]:
    classes = sorted({c for e in group.values() for row in e.rows for c in row.by_class})
    head = ["trained with", "network", "arithmetic", "steps", "mAP@0.5", "mAP@[.5:.95]"]
    head += [f"AP@0.5 {c}" for c in classes]
    lines = [table_line(head), table_line(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for evaluation in group.values():
        trained = NAMES[evaluation.config["activation"]]
        lines += [table_line(_cells(trained, row, classes)) for row in evaluation.rows]
    return [*lines, ""]


def _cells(trained: str, row: PrecisionRow, classes: Sequence[str]) -> list[str]:
    return [
        trained,
        f"{row.network} {row.neuron}".strip(),
        row.arithmetic,
        "" if row.steps is None else str(row.steps),
        f"{100 * row.at_half:.2f}",
        f"{100 * row.mean:.2f}",
        *(f"{100 * row.by_class[c]:.1f}" if c in row.by_class else "" for c in classes),
    ]


def _exactness(name: str, evaluation: DetectorEvaluation) -> list[str]:
    exact = evaluation.exactness
    if exact is None:
        return []
    sleep, wake = max(evaluation.settle.values()), evaluation.config["levels"]
    lines = [
        f"{markdown(name)}: after {wake} wake and {sleep} sleep steps no neuron fires on any "
        f"image. Of {exact.outputs:,} outputs then {exact.differing} differ from those of the "
        f"quantized network with the same integers, and {exact.unequal_images} of "
        f"{exact.images} images have other boxes, labels or scores in any bit.",
        "",
        table_line(["layer", "settles after sleep steps"]),
        table_line(["---", "---:"]),
    ]
    return [*lines, *(table_line([k, v]) for k, v in evaluation.settle.items()), ""]


def _operations(name: str, evaluation: DetectorEvaluation) -> list[str]:
    found = evaluation.operations
    if found is None:
        return []
    estimate = found["estimate"]["nanojoules"]
    costs = found["estimate"]["costs"]
    told = "; ".join(
        markdown(f"{k} {1e-6 * estimate[k]:,.2f} mJ at {c['picojoules']:g} pJ ({c['source']})")
        for k, c in costs.items()
    )
    return [
        f"{markdown(name)}: {found['synops'] / 1e6:,.0f} M synaptic operations and "
        f"{found['neuron_updates'] / 1e6:,.1f} M neuron updates per image, against "
        f"{found['ann_macs'] / 1e6:,.0f} M multiply-adds of the ANN. Energy, estimated from "
        f"public costs and not measured: {told}.",
        "",
    ]


def _lava(group: dict[str, DetectorEvaluation]) -> list[str]:
    rows = [
        table_line(
            [
                name,
                e.lava["samples"],
                e.lava["steps"],
                e.lava["weight_bits"],
                f"{e.lava['compared']:,}",
                e.lava["mismatches"],
            ]
        )
        for name, e in group.items()
        if e.lava
    ]
    if not rows:
        return []
    head = ["on Lava", "images", "steps", "weight bits", "digests compared", "mismatches"]
    return [table_line(head), table_line(["---"] + ["---:"] * 5), *rows, ""]


def provenance_lines(evaluations: Mapping[str, DetectorEvaluation]) -> list[str]:
    """How each evaluation was made."""
    lines = []
    for name, evaluation in evaluations.items():
        made, run = evaluation.made_by, evaluation.run
        folder = made["command"].split()[3]
        lines += [
            f"**{markdown(name)}**: epoch {run['epoch']} of {run['config']['epochs']}, seed "
            f"{run['config']['seed']}, tensors {run['checkpoint_sha256'][:16]}.",
            "",
            "```",
            visible(f"spikeport detector train --config {folder}/config.toml --out {folder}"),
            visible(made["command"]),
            "```",
            "",
            ran(made),
            "",
        ]
    return lines
