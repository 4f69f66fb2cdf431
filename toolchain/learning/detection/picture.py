"""Detections drawn into images: what is there, what the ANN and what the SNN found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from toolchain.files import atomic_path
from toolchain.learning.data import BoxDataset
from toolchain.learning.detection.detections import Detections
from toolchain.text import drawing, drawn

COLOURS = ("#e69f00", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe & Ito's palette; class k has the k-th, around."""
SHOWN_SCORE = 0.35
WIDTH, DPI = 3.2, 110
"""Inches of an image."""


def draw(
    path: Path, data: BoxDataset, found: Mapping[str, Detections], score: float = SHOWN_SCORE
) -> None:
    """Write a PNG: a row for each image of `data`, a column for the truth and for each network.

    Raises
    ------
    OutputError
        If the path cannot be written.
    """
    columns: dict[str, Detections] = {"annotated": _truth(data)}
    columns |= {name: boxes.above(score) for name, boxes in found.items()}
    count = len(data)
    height, width = (float(v) for v in data.sizes[0])
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(
            figsize=(WIDTH * len(columns), WIDTH * height / width * count + 0.45),
            layout="constrained",
        )
        axes = figure.subplots(count, len(columns), squeeze=False)
        for row in range(count):
            for column, (name, boxes) in enumerate(columns.items()):
                _image(axes[row, column], data, row, boxes.of_image(row))
                if row == 0:
                    axes[row, column].set_title(drawn(name))
        names = data.class_names
        handles = [Line2D([], [], color=_colour(i), label=str(i)) for i in range(len(names))]
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False
        )
        # As labels of lines, names that begin with an underscore would not be shown.
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(drawn(name))
        with atomic_path(path) as temporary, drawing():
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _truth(data: BoxDataset) -> Detections:
    boxes = data.boxes
    return Detections(boxes.image, boxes.corners, boxes.label, np.ones(len(boxes)))


def _image(axes: Axes, data: BoxDataset, index: int, boxes: Detections) -> None:
    height, width = (int(v) for v in data.sizes[index])
    rows, columns = (round(v) for v in data.sizes[index] * data.scales[index])
    axes.imshow(
        data.samples[index, :, :rows, :columns].transpose(1, 2, 0), extent=(0, width, height, 0)
    )
    for (left, top, right, bottom), label in zip(boxes.corners, boxes.label, strict=True):
        axes.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                linewidth=1.1,
                edgecolor=_colour(int(label)),
            )
        )
    axes.set_axis_off()
