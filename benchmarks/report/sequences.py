"""When networks are right on sequences, and what that takes, for the results page."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report.markdown import table_line
from toolchain.learning.evaluation.over_time import median_step
from toolchain.learning.evaluation.results import Evaluation
from toolchain.learning.evaluation.schema import OverTime

COLUMNS = ("first right", "for good", "never right, %", "events", "spikes", "synops")


def cost_cells(run: OverTime) -> tuple[str, ...]:
    """The cells of `COLUMNS`: medians over all samples in steps, a share, numbers per sample."""
    samples, operations = run["samples"], run["operations"]
    steps = (median_step(run["first_right"], samples), median_step(run["right_for_good"], samples))
    never = 100 * (1 - sum(run["first_right"]) / samples)
    events = run["camera_events"]
    spikes = sum(layer["events"] for layer in operations["layers"] if layer["name"] != "input")
    return (
        *("-" if step is None else str(step) for step in steps),
        f"{never:.1f}",
        "-" if events is None else f"{events:,.0f}",
        f"{spikes:,.0f}",
        f"{operations['synops']:,.0f}",
    )


def sequence_lines(group: Mapping[str, Evaluation]) -> list[str]:
    """Markdown of all evaluations of sequences; nothing if there are none."""
    rows = [
        table_line([name, run["neuron"], run["arithmetic"], *cost_cells(run)])
        for name, evaluation in group.items()
        for run in evaluation.sequences
    ]
    if not rows:
        return []
    head = ["on sequences", "neurons", "arithmetic", *COLUMNS]
    return [table_line(head), table_line(["---"] * 3 + ["---:"] * len(COLUMNS)), *rows, ""]
