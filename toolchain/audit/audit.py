"""All parts of an audit over one data source, as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from toolchain import __version__
from toolchain.accuracy import Accuracy
from toolchain.audit.activity import (
    LayerExtremes,
    count_spikes,
    quicker_engine,
    samples_at_once,
)
from toolchain.audit.agreement import describe_versions
from toolchain.audit.budget import Budget
from toolchain.audit.certificate import certify
from toolchain.audit.chip_fit import Chip
from toolchain.audit.energy import Cost, Counted, Operations
from toolchain.audit.error_ablation import Chain, make_chain
from toolchain.audit.gates import Gate
from toolchain.audit.layer_cores import LayerChip
from toolchain.audit.rasters import record_raster
from toolchain.audit.scorers import Scorer, answers, flat
from toolchain.audit.source_network import SourceNetwork
from toolchain.program.int_program import IntProgram
from toolchain.progress import StageProgress
from toolchain.workers import Work, Workers

VERSION = 1
FLOAT, QUANTIZED = "float network", "quantized network"
INTEGER, LAVA = "integer reference", "Lava"
BATCH = 64
"""Most samples per batch when the activity of every neuron is stored."""
BUDGET_BATCH = 16
"""Most samples per batch when float64 values of the source network are also stored."""


@dataclass(frozen=True)
class LavaRun:
    """Results of Lava on the first samples.

    Attributes
    ----------
    outputs:
        Outputs by readout, int64 (n, ...).
    compared, mismatches:
        Number of values compared with the reference, and of those that differ.
    divergence:
        The first difference, in words; empty if there is none.
    """

    outputs: Mapping[str, np.ndarray]
    compared: int
    mismatches: int
    divergence: str = ""


@dataclass(frozen=True)
class Subject:
    """The subject of an audit.

    Attributes
    ----------
    inputs:
        Graded input spikes, int (N, *sample_shape).
    samples:
        The samples before input quantization, normalised: float (N, ...), of sequences their means.
    scorer:
        Scores outputs, and compares predictions.
    source:
        The network that the program was converted from, if its checkpoint is given.
    versions:
        Outputs (N, P) of the checkpoint's own module, by version.
    lava:
        Results of Lava on the first samples; None if Lava did not run.
    simulated:
        Energy, time and counts of another simulator on the first samples, as plain values.
    """

    program: IntProgram
    inputs: np.ndarray
    samples: np.ndarray
    scorer: Scorer
    data: str
    source: SourceNetwork | None = None
    versions: Mapping[str, np.ndarray] = field(default_factory=dict)
    lava: LavaRun | None = None
    chip: Chip | LayerChip | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    simulated: Mapping[str, Any] | None = None


def run_audit(
    subject: Subject,
    gates: Sequence[Gate],
    budget_samples: int,
    progress: StageProgress,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Run all parts of the audit; returns plain values for JSON.

    `workers` share the samples of the integer network. Budget and chain are sums of floats, which
    depend on the samples of a batch, and run in this process. Ranges, chip and raster take no more
    than one sample.

    Raises
    ------
    ValueRangeError
        If a sum or state leaves its range.
    """
    program = subject.program
    work = Work(_count, program)
    report = partial(progress, "integer reference")
    counted = (workers or Workers()).over_samples(work, subject.inputs, report)
    observed = {p.name: LayerExtremes() for p in program.populations}
    operations = Operations(program)
    for extremes, done, _ in counted:
        operations.counted.include(done)
        for name, seen in extremes.items():
            observed[name].include(seen)
    steps = np.concatenate([readouts for *_, readouts in counted], axis=1)
    total = program.schedule.num_steps
    outputs = {**subject.versions, INTEGER: answers(program, steps[-1], total)}
    if subject.lava is not None:
        outputs[LAVA] = answers(program, flat(program, subject.lava.outputs), total)
    document: dict[str, Any] = {
        "audit_version": VERSION,
        "spikeport": __version__,
        "program": _describe_program(program),
        "data": {"name": subject.data, "samples": len(subject.inputs)},
        "score": subject.scorer.score,
        "versions": describe_versions(outputs, subject.scorer),
        "by_steps": _by_steps(program, steps, subject.scorer),
    }
    if subject.lava is not None:
        lava = subject.lava
        document["lava"] = {
            "samples": len(outputs[LAVA]),
            "compared": lava.compared,
            "mismatches": lava.mismatches,
            "divergence": lava.divergence,
        }
    if subject.source is not None:
        count = min(budget_samples, len(subject.inputs))
        document["budget"] = _budget(subject, subject.source, count, progress)
        if subject.scorer.has_ground_truth:
            chain = _chain(subject, subject.source, outputs[INTEGER], progress)
            document["chain"] = chain.describe(subject.scorer)
    progress("ranges", 0, 1)
    state = program.state_range
    document["ranges"] = {
        "state": [state.low, state.high],
        "populations": [row.describe(state) for row in certify(program, observed)],
    }
    document["energy"] = operations.describe(subject.costs)
    if subject.simulated is not None:
        document["energy"]["simulated"] = dict(subject.simulated)
    if subject.chip is not None:
        document["chip"] = subject.chip.fit(program).describe()
    document["rasters"] = record_raster(program, subject.inputs[:1]).describe()
    document["metrics"] = _metrics(document)
    document["gates"] = [gate.check(document["metrics"]) for gate in gates]
    document["passed"] = all(gate["passed"] for gate in document["gates"])
    return document


def _count(
    program: IntProgram, inputs: np.ndarray, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, LayerExtremes], Counted, np.ndarray]:
    """Extremes, operations, and the accumulators after each step, int64 (T, n, P)."""
    observed = {p.name: LayerExtremes() for p in program.populations}
    engine = quicker_engine(program, len(inputs))
    operations, readouts = Operations(program), []
    size = samples_at_once(program, BATCH)
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        found = count_spikes(engine, program, batch, observed)
        operations.add(batch, found)
        readouts.append(flat(program, found.outputs))
        if progress:
            progress(start + len(batch), len(inputs))
    return observed, operations.counted, np.concatenate(readouts, axis=1)


def _budget(
    subject: Subject, source: SourceNetwork, count: int, progress: StageProgress
) -> dict[str, Any]:
    """The error budget on the first samples."""
    program = subject.program
    engine, budget = quicker_engine(program, count), Budget(source)
    extremes = {p.name: LayerExtremes() for p in program.populations}
    size = samples_at_once(program, BUDGET_BATCH)
    for start in range(0, count, size):
        where = slice(start, min(start + size, count))
        found = count_spikes(engine, program, subject.inputs[where], extremes)
        budget.add(subject.inputs[where], subject.samples[where], found)
        progress("error budget", where.stop, count)
    return {"samples": count, "layers": [layer.describe() for layer in budget.layers.values()]}


def _chain(
    subject: Subject, source: SourceNetwork, readouts: np.ndarray, progress: StageProgress
) -> Chain:
    """Outputs of all versions between the float and the integer network, on all samples."""
    chains, count = [], len(subject.inputs)
    size = samples_at_once(subject.program, BATCH)
    for start in range(0, count, size):
        where = slice(start, min(start + size, count))
        batch = (subject.inputs[where], subject.samples[where], readouts[where])
        chains.append(make_chain(source, *batch))
        progress("accuracy of each version", where.stop, count)
    return Chain.joined(chains)


def _describe_program(program: IntProgram) -> dict[str, Any]:
    schedule = program.schedule
    return {
        "name": program.name,
        "hash": program.hash,
        "neurons": sorted({p.neuron.kind for p in program.populations}),
        "wake_steps": schedule.wake_steps,
        "sleep_steps": schedule.sleep_steps,
        "weight_bits": program.weight_bits,
        "state_bits": program.state_bits,
        "watch_ranges": program.watch_ranges,
        "layers": [{"name": p.name, "shape": list(p.shape)} for p in program.populations],
        "provenance": program.provenance,
    }


def _by_steps(program: IntProgram, steps: np.ndarray, scorer: Scorer) -> list[dict[str, Any]]:
    """Score of the integer network after each step, or its agreement with the last step."""
    end = answers(program, steps[-1], len(steps))
    found = []
    for t, accumulators in enumerate(steps):
        now = answers(program, accumulators, t + 1)
        described = (
            scorer.describe(now)
            if scorer.has_ground_truth
            else Accuracy(scorer.same(now, end), len(end)).describe()
        )
        found.append({"step": t + 1, "awake": t < program.schedule.wake_steps, **described})
    return found


def _metrics(document: Mapping[str, Any]) -> dict[str, float | None]:
    """Values of all metrics for gates; None if not measured."""
    accuracy = document["versions"]["accuracy"]
    agreement = document["versions"]["agreement"]
    integer = accuracy.get(INTEGER, {}).get("accuracy")
    float_one = accuracy.get(FLOAT, {}).get("accuracy")
    alike = agreement.get(FLOAT, {}).get(INTEGER)
    chip = document.get("chip", {})
    problems = chip.get("problems")
    ranges = document["ranges"]["populations"]
    both = None not in (integer, float_one)
    return {
        "mismatches": document.get("lava", {}).get("mismatches"),
        "drop": 100 * (float_one - integer) if both else None,
        "accuracy": None if integer is None else 100 * integer,
        "agreement": None if alike is None else 100 * alike["same"] / alike["samples"],
        "headroom": min(row["headroom_bits"] for row in ranges),
        "synops": document["energy"]["synops"],
        "cores": chip.get("cores"),
        "chips": chip.get("chips"),
        "chip_errors": None
        if problems is None
        else sum(problem["level"] == "error" for problem in problems),
    }
