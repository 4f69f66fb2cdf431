"""Accuracy lost to each source of error, on the way from the float to the integer network.

Each version adds one more source of error, so that the steps from the first to the last add
up to the whole gap. Each version "without" lacks only one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from toolchain.audit.scorers import Scorer, answers, flat
from toolchain.audit.source_network import Acts, SourceNetwork
from toolchain.simulator.quantized_network import quantized_counts

FLOAT, CLIPPED = "float network", "+ clipping"
QUANTIZED, INPUT_QUANTIZED = "+ activation quantization", "+ input quantization"
ROUNDED, UNEVEN = "+ threshold and weight rounding", "+ unevenness (the integer network)"
WITHOUT_ROUNDING = "without threshold and weight rounding"
WITHOUT_UNEVENNESS = "without unevenness"


NOTABLE = 0.002
"""Share of the samples from which a loss is reported with advice."""
ADVICE = {
    CLIPPED: "a higher relu_percentile=, or training with trained thresholds (qcfs, nq)",
    QUANTIZED: "more steps, or training with as many levels as there are steps",
    INPUT_QUANTIZED: "more input_bits=",
    ROUNDED: 'more weight_bits=, or rounding="gptq" with calibrate=',
    UNEVEN: "more steps, training that models it (nq), or CIF neurons with sleep (cqrelu), which "
    "have none once settled",
}
"""Advice against each source of error."""


@dataclass(frozen=True)
class Chain:
    """Outputs (N, P) by version: with one more error each, and with all errors except one."""

    steps: Mapping[str, np.ndarray]
    without: Mapping[str, np.ndarray]

    @classmethod
    def joined(cls, chains: Sequence[Chain]) -> Chain:
        """The chains of several batches of one network, joined."""
        whole = [
            {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            for batches in ([c.steps for c in chains], [c.without for c in chains])
        ]
        return cls(*whole)

    def describe(self, scorer: Scorer) -> dict[str, Any]:
        """Accuracies as JSON; the changes of the steps add up to the gap between first and last."""
        steps: list[dict[str, Any]] = []
        before: float | None = None
        for name, outputs in self.steps.items():
            found = scorer.describe(outputs)
            change = None if before is None else found["accuracy"] - before
            steps.append({"name": name, **found, "change": change})
            before = found["accuracy"]
        without = [
            {"name": name, **scorer.describe(outputs)} for name, outputs in self.without.items()
        ]
        return {"steps": steps, "without": without, "advice": _advice(steps)}


def _advice(steps: Sequence[dict[str, Any]]) -> list[str]:
    """Notable losses, the largest first, each with advice."""
    losses = sorted(
        ((before, s) for before, s in pairwise(steps) if s["change"] <= -NOTABLE),
        key=lambda pair: pair[1]["change"],
    )
    return [
        f"{s['name'].removeprefix('+ ')} costs {-100 * s['change']:.2f} points"
        f"{_weight(before, s)}: {ADVICE[s['name']]}"
        for before, s in losses
    ]


def _weight(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Weight of a classifier's loss: samples, and whether it may be due to chance alone."""
    if before["low"] is None:
        return ""
    lost = before["correct"] - after["correct"]
    # Close to 0 and 1 the intervals are asymmetric: it is enough to lie in that of the other.
    inside = before["low"] <= after["accuracy"] or before["accuracy"] <= after["high"]
    where = "inside" if inside else "outside"
    return f" ({lost} of {before['total']:,} samples, {where} the 95 % interval)"


@torch.no_grad()
def make_chain(
    network: SourceNetwork, inputs: np.ndarray, samples: np.ndarray, spiking: np.ndarray
) -> Chain:
    """Outputs of all versions on some samples.

    Parameters
    ----------
    inputs:
        Graded input spikes, int (n, *sample_shape).
    samples:
        Normalised samples before input quantization, float (n, ...), of sequences their means.
    spiking:
        Outputs of the integer network, (n, P).
    """
    program = network.program
    real = torch.from_numpy(samples).float()
    given = torch.from_numpy(program.input.mean_inputs(inputs) * program.input.scale).float()

    def outputs(x: torch.Tensor, acts: Acts) -> np.ndarray:
        values = network.forward(x, acts)
        return flat(program, {p.name: values[p.name].numpy() for p in program.readouts})

    steps = {FLOAT: outputs(real, Acts.RELU if network.measured else Acts.CLIPPED)}
    if network.measured:
        steps[CLIPPED] = outputs(real, Acts.CLIPPED)
    steps[QUANTIZED] = outputs(real, Acts.QUANTIZED)
    steps[INPUT_QUANTIZED] = outputs(given, Acts.QUANTIZED)
    rounded = flat(program, quantized_counts(program, inputs)[1])
    steps[ROUNDED] = answers(program, rounded, program.schedule.wake_steps)
    steps[UNEVEN] = spiking
    without = {
        WITHOUT_ROUNDING: flat(program, network.spiking_outputs(inputs)),
        WITHOUT_UNEVENNESS: steps[ROUNDED],
    }
    return Chain(steps, without)
