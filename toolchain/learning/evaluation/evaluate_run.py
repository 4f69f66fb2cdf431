"""All measurements of one trained network on one data set, in the papers' protocol.

The ANN runs without noise. Float spiking networks and integer programs get the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolchain.accuracy import Accuracy
from toolchain.engine.settle import MAX_SLEEP_FACTOR
from toolchain.errors import DataError
from toolchain.learning.activations import IF_ACTIVATIONS, ActivationMode
from toolchain.learning.data import Dataset, input_spikes
from toolchain.learning.evaluation.float_network import layer_gaps, spiking_logits
from toolchain.learning.evaluation.int_network import compare_counts, readouts
from toolchain.learning.evaluation.results import FLOAT, AccuracyRow, integer
from toolchain.learning.evaluation.schema import Counts, Gaps
from toolchain.learning.training.checkpoint import Checkpoint
from toolchain.learning.training.inference import logits, normalised
from toolchain.program.int_program import IntProgram, Schedule

Lower = Callable[[str, Schedule, int], IntProgram]
"""Converts the network for a neuron ("if", "cif"), a schedule and a number of weight bits."""
Progress = Callable[[str, int, int], None]
"""Called with what is being measured, samples done and samples in all."""


@dataclass
class Measurement:
    """What is measured, and what was found; see `results.Evaluation`.

    Attributes
    ----------
    steps:
        Time steps T of the IF networks.
    weight_bits:
        Widths of the integer programs; of CIF networks the first.
    gap_steps:
        Steps at which layers are compared, by default those that sigma was estimated from.
    """

    checkpoint: Checkpoint
    data: Dataset
    steps: Sequence[int]
    weight_bits: Sequence[int]
    gap_steps: int | None
    progress: Progress
    rows: list[AccuracyRow] = field(default_factory=list)
    gaps: Gaps | None = None
    counts: Counts | None = None

    def measure(self, lower: Lower) -> None:
        """IF networks for NQ, QCFS and ReLU, CIF and wake-sleep for CQReLU.

        Everything is converted before anything is measured.

        Raises
        ------
        DataError
            If the data are not of the kind the network was trained on.
        SpikeportError
            If it cannot be converted.
        """
        self._check_data()
        config, bits = self.checkpoint.config, self.weight_bits[0]
        sleeping = config.activation == "cqrelu"
        if sleeping:
            longest = Schedule(config.levels, MAX_SLEEP_FACTOR * config.levels)
            rate_coded = lower("if", Schedule(config.levels), bits)
            cif = lower("cif", longest, bits)
        else:
            schedule = Schedule(max(self.steps))
            programs = {integer(bits): lower("if", schedule, bits) for bits in self.weight_bits}
        self._float_networks()
        if sleeping:
            self._wake_sleep(rate_coded, cif)
            return
        for arithmetic, program in programs.items():
            inputs, name = input_spikes(program.input, self.data), f"{arithmetic} spiking network"
            outputs = readouts(program, inputs, self.steps, partial(self.progress, name))
            for steps, out in outputs.items():
                self._add("SNN", arithmetic, "IF", steps, out)

    def _check_data(self) -> None:
        data, trained = self.data, self.checkpoint
        for what, found, allowed in (
            ("samples of another shape", data.sample_shape, trained.sample_shape),
            ("other classes", data.class_names, trained.class_names),
        ):
            if found != allowed:
                raise DataError(
                    f"{what} than the network was trained on",
                    node=data.name,
                    found=found,
                    allowed=allowed,
                )

    def _add(
        self, network: str, arithmetic: str, neuron: str, steps: int | None, outputs: np.ndarray
    ) -> None:
        accuracy = Accuracy.of(outputs, self.data.labels).describe()
        self.rows.append(AccuracyRow(network, arithmetic, neuron, steps, accuracy))

    def _float_networks(self) -> None:
        model, config = self.checkpoint.model, self.checkpoint.config
        x = normalised(self.data, config.mean, config.std)
        self._add("ANN", FLOAT, "", None, logits(model, x, ActivationMode.QUANTIZED).numpy())
        if config.activation not in IF_ACTIVATIONS:
            return
        report = partial(self.progress, "float spiking network")
        for steps, out in spiking_logits(model, x, self.steps, report).items():
            self._add("SNN", FLOAT, "IF", steps, out)
        gap_steps = self.gap_steps or config.calibration_steps
        gaps = layer_gaps(model, x, gap_steps, partial(self.progress, "layer errors"))
        layers = {name: gap.describe() for name, gap in gaps.items()}
        self.gaps = {"steps": gap_steps, "layers": layers}

    def _wake_sleep(self, rate_coded: IntProgram, sleeping: IntProgram) -> None:
        """IF, CIF and CIF with sleep until settled; the latter two are one run, looked at twice."""
        wake, arithmetic = sleeping.schedule.wake_steps, integer(sleeping.weight_bits)
        inputs = input_spikes(sleeping.input, self.data)
        plain = compare_counts(rate_coded, inputs, partial(self.progress, "IF"))
        cif = compare_counts(sleeping, inputs, partial(self.progress, "CIF and sleep"))
        variants = {
            "IF": (plain.awake, 0),
            "CIF": (cif.awake, 0),
            "CIF + sleep": (cif.settled, cif.settle_steps),
        }
        self._add("ANN", arithmetic, "", None, cif.quantized_logits)
        for name, (comparison, sleep) in variants.items():
            self._add("SNN", arithmetic, name, wake + sleep, np.concatenate(comparison.logits))
        self.counts = {
            "arithmetic": arithmetic,
            "wake_steps": wake,
            "settle_steps": cif.settle_steps,
            "samples": len(self.data),
            "variants": {
                name: {
                    "sleep_steps": sleep,
                    "unequal_images": comparison.unequal_images,
                    "layers": {n: e.describe() for n, e in comparison.layers.items()},
                }
                for name, (comparison, sleep) in variants.items()
            },
        }
