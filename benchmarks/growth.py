"""How time and memory of the engine grow: with steps, batch, width, image size, and samples.

    python benchmarks/growth.py

A seeded VGG11 with 8-bit weights; one of the five changes at a time. Each point is a process of its
own with one thread: processor time of the fastest of four runs, and peak memory. The exponent is
the slope of a line through the logarithms: 1 is linear.

What it finds goes into benchmarks/speed, its figure into docs/results; `benchmarks/papers.sh` puts
both into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import images, make_program  # noqa: E402

Point = Mapping[str, float]
BASE: Point = {"steps": 4, "batch": 16, "width": 0.5, "side": 32, "samples": 16}
AXES: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "steps": ("T", (1, 2, 4, 8, 16, 32, 64)),
    "batch": ("samples at a time", (1, 4, 16, 64, 256)),
    "width": ("multiply-adds of a step", (0.125, 0.25, 0.5, 1, 2)),
    "side": ("pixels", (32, 64, 128, 224)),
    "samples": ("samples", (16, 64, 256, 1024)),
}
"""What is changed, and what time and memory are fitted against."""
RUNS = 4
"""Of a point; the fastest counts, since other processes only slow it."""
FIGURE = "docs/results/growth.svg"
TEXT = (
    "The engine on VGG11 (half width, 32x32, T = 4, batch 16, readout only; seeded weights), one "
    "setting changed at a time; processor seconds of one thread, and peak memory of the process "
    "above what it has with the inputs. The exponent is the slope in logarithms, of all points and "
    "of the last two; width and image size are counted as multiply-adds and pixels. Samples are "
    "run in batches of 16, by the batch axis all at once.\n\n"
    "![time and memory against each setting]({figure})"
)


def measured(point: Point) -> tuple[float, float, float]:
    """Seconds, peak memory in MB, and multiply-adds of a step for one sample."""
    from toolchain.engine.engine import Engine
    from toolchain.program.synops import dense_operations

    side, batch = int(point["side"]), int(point["batch"])
    shape = (3, side, side)
    program = make_program("vgg11", shape, point["width"], weight_bits=8, target="loihi2")
    program = replace(program, schedule=replace(program.schedule, wake_steps=int(point["steps"])))
    inputs, before = images(program, int(point["samples"])), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak until now is that of the conversion
    engine = Engine(program)
    seconds = []
    for _ in range(RUNS):
        started = time.process_time()
        for start in range(0, len(inputs), batch):
            for _, blocks in engine.passes(inputs[start : start + batch]):
                for _ in blocks:
                    pass
        seconds.append(time.process_time() - started)
    return min(seconds), max(resident("VmHWM") - before, 0.1), dense_operations(program)


def resident(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most."""
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) / 1024


def slope(x: np.ndarray, y: np.ndarray) -> str:
    """The exponent of y's growth with x."""
    return f"{np.polyfit(np.log(x), np.log(y), 1)[0]:.2f}"


def in_a_process(point: Point) -> tuple[float, float, float]:
    """`measured` in a process that does nothing else."""
    result = subprocess.run(
        [sys.executable, __file__, "--point", json.dumps(point)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, memory, sums = json.loads(result.stdout.rpartition("RESULT")[2])
    print(point, f"{seconds:.3f} s, {memory:.0f} MB", file=sys.stderr, flush=True)
    return seconds, memory, sums


def main() -> None:
    """Measure all points, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        print("RESULT" + json.dumps(measured(given.point)))
        return
    started = time.perf_counter()
    figure = Figure(figsize=(11, 2.6), layout="constrained")
    rows, panels = [], figure.subplots(1, len(AXES))
    for panel, (axis, (label, values)) in zip(panels, AXES.items(), strict=True):
        changed = [dict(BASE, **{axis: v}) for v in values]
        if axis == "batch":
            changed = [dict(p, samples=p["batch"]) for p in changed]
        found = np.array([in_a_process(point) for point in changed]).T
        x = {"width": found[2], "side": np.array(values) ** 2}.get(axis, np.array(values))
        slopes = [(slope(x, y), slope(x[-2:], y[-2:])) for y in found[:2]]
        ends = [f"{y[0]:.3g} to {y[-1]:.3g}" for y in found[:2]]
        rows.append(
            (
                f"{label}, {x[0]:,.0f} to {x[-1]:,.0f}",
                *(cell for e, s in zip(ends, slopes, strict=True) for cell in (e, *s)),
            )
        )
        panel.loglog(x, found[0], "o-", label="s")
        panel.loglog(x, found[1], "s--", label="MB")
        panel.set_xlabel(label)
    panels[0].legend()
    figure.savefig(ROOT / FIGURE, metadata={"Date": None})
    head = ("", "seconds", "exponent", "at the end", "MB", "exponent", "at the end")
    Measurement.publish(
        "growth",
        "Growth",
        TEXT.format(figure=FIGURE),
        [Table("From the first value to the last", head, tuple(rows))],
        "python benchmarks/growth.py",
        time.perf_counter() - started,
        numpy=np.__version__,
    )


if __name__ == "__main__":
    main()
