"""All measurements of one network on one data set, in the papers' protocol.

The ANN runs without noise. Float spiking networks and integer programs get the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from toolchain.conversion.frontend.user_module import in_one_type
from toolchain.engine.settle import MAX_SLEEP_FACTOR
from toolchain.errors import DataError
from toolchain.learning.activations import IF_ACTIVATIONS, ActivationMode
from toolchain.learning.data import Dataset, input_spikes
from toolchain.learning.evaluation.float_network import layer_gaps, spiking_logits
from toolchain.learning.evaluation.int_network import compare_counts, readouts
from toolchain.learning.evaluation.over_time import SequenceRun
from toolchain.learning.evaluation.results import FLOAT, AccuracyRow, Row, integer
from toolchain.learning.evaluation.schema import Counts, Gaps
from toolchain.learning.training.inference import logits, normalise
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.program.neurons import ConsistentIntegrateAndFire
from toolchain.progress import StageProgress
from toolchain.user_code import home_of, user_code
from toolchain.workers import Workers

Lower = Callable[[str, Schedule, int], IntProgram]
"""Converts the network for a neuron ("if", "cif"), a schedule and a number of weight bits."""


NO_FLOAT_SPIKES = (
    "the float spiking network and the layer errors are measured of networks that `train` has "
    "trained with NQ or QCFS"
)
ONLY_INTEGERS = (
    "a .net file holds integers only: the float networks and the layer errors are not measured"
)


def is_cif(program: IntProgram) -> bool:
    """Whether a program has CIF neurons."""
    return any(isinstance(p.neuron, ConsistentIntegrateAndFire) for p in program.populations)


@dataclass(frozen=True)
class Subject:
    """The network that is measured.

    Attributes
    ----------
    activation, levels:
        Its activation, as in `TrainConfig`, and the quantization levels of CQReLU.
    class_names:
        The classes it was trained on; None where unknown.
    gap_steps:
        Steps at which layers are compared; None of networks trained elsewhere.
    frames:
        Length of the sequences it was trained on; None of others.
    """

    model: nn.Module
    quantizer: InputQuantizer
    activation: str
    levels: int
    class_names: tuple[str, ...] | None = None
    gap_steps: int | None = None
    frames: int | None = None


@dataclass
class Measurement:
    """What is measured, and what was found; see `results.Evaluation`.

    Of sequences the ANN gets the means, and a spiking network one tensor in each step.

    Attributes
    ----------
    subject:
        None where there is a program only.
    steps:
        Time steps T of the IF networks; of sequences those after which they are looked at.
    weight_bits:
        Widths of the integer programs; of CIF networks the first.
    workers:
        Those that share the samples of the integer networks. The float networks run in this
        process, since sums of floats depend on how many samples are computed together.
    """

    subject: Subject | None
    data: Dataset
    steps: Sequence[int]
    weight_bits: Sequence[int]
    progress: StageProgress
    workers: Workers
    rows: list[AccuracyRow] = field(default_factory=list)
    gaps: Gaps | None = None
    counts: Counts | None = None
    sequences: list[SequenceRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
        subject, bits = self.subject, self.weight_bits[0]
        assert subject is not None
        self._check_data(subject)
        sleeping = subject.activation == "cqrelu"
        if sleeping:
            longest = Schedule(subject.levels, MAX_SLEEP_FACTOR * subject.levels)
            rate_coded = lower("if", Schedule(subject.levels), bits)
            cif = lower("cif", longest, bits)
        else:
            schedule = Schedule(self.data.steps or max(self.steps))
            programs = {integer(bits): lower("if", schedule, bits) for bits in self.weight_bits}
        first = cif if sleeping else next(iter(programs.values()))
        inputs = self._inputs(first)
        self._float_networks(subject)
        if sleeping:
            self._wake_sleep(cif, inputs, rate_coded)
            return
        for program in programs.values():
            self._by_steps(program, inputs)

    def measure_program(self, program: IntProgram) -> None:
        """A program as it is: IF networks by steps, CIF networks over their own schedule.

        Raises
        ------
        ProgramError, DataError
            If it is no classifier of these data.
        """
        self.notes.append(ONLY_INTEGERS)
        inputs = self._inputs(program)
        if is_cif(program):
            self._wake_sleep(program, inputs)
        else:
            self._by_steps(program, inputs)

    def _inputs(self, program: IntProgram) -> np.ndarray:
        """Graded input spikes, int (N, ...), of a classifier of these data."""
        outputs, classes = program.readout.shape[0], int(self.data.labels.max()) + 1
        if outputs < classes:
            raise DataError(
                "the network has fewer outputs than the data have classes",
                node=program.name,
                found=f"{outputs} outputs",
                allowed=f"{classes} classes",
            )
        inputs = input_spikes(program.input, self.data)
        program.check_inputs(inputs)
        return inputs

    def _check_data(self, subject: Subject) -> None:
        data, frames = self.data, subject.frames
        if frames is not None and data.steps not in (frames, None):
            self.notes.append(
                f"the network was trained on sequences of {frames} tensors, and these have "
                f"{data.steps}"
            )
        if subject.class_names is None:
            return
        steps = (data.steps,) if subject.quantizer.per_step else ()
        for what, found, allowed in (
            ("samples of another shape", data.sample_shape, (*steps, *subject.quantizer.shape)),
            ("other classes", data.class_names, subject.class_names),
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
        row = Row(network, arithmetic, neuron, steps)
        self.rows.append(AccuracyRow.of(row, outputs, self.data.labels))

    def _float_networks(self, subject: Subject) -> None:
        (model, kind), quantizer = in_one_type(subject.model), subject.quantizer
        real = torch.from_numpy(self.data.real()).to(kind)
        per_step = {"per_step": quantizer.per_step}
        lengths = (len(real), -1) if quantizer.per_step else (-1,)
        real = real.reshape(*lengths, *quantizer.shape)
        x = normalise(real, quantizer.mean, quantizer.std, quantizer.channel_axis)
        seen = x.mean(1) if quantizer.per_step else x
        with user_code("the network's forward fails", type(model).__name__, home_of(model)):
            outputs = logits(model, seen, ActivationMode.QUANTIZED).numpy()
        self._add("ANN", FLOAT, "", None, outputs)
        if subject.gap_steps is None:
            self.notes.append(NO_FLOAT_SPIKES)
            return
        if subject.activation not in IF_ACTIVATIONS:
            return
        report = partial(self.progress, "float spiking network")
        for steps, out in spiking_logits(model, x, self.steps, report, **per_step).items():
            self._add("SNN", FLOAT, "IF", steps, out)
        report = partial(self.progress, "layer errors")
        gaps = layer_gaps(model, x, subject.gap_steps, report, **per_step)
        layers = {name: gap.describe() for name, gap in gaps.items()}
        self.gaps = {"steps": subject.gap_steps, "layers": layers}

    def _by_steps(self, program: IntProgram, inputs: np.ndarray) -> None:
        arithmetic = integer(program.weight_bits)
        report = partial(self.progress, f"{arithmetic} spiking network")
        if program.input.per_step:
            run = SequenceRun.of(program, "IF", inputs, self.data, report, self.workers)
            self.sequences.append(run)
            found = {t: run.outputs[t - 1] for t in self.steps}
        else:
            found = readouts(program, inputs, self.steps, report, self.workers)
        for steps, out in found.items():
            self._add("SNN", arithmetic, "IF", steps, out)

    def _wake_sleep(
        self, sleeping: IntProgram, inputs: np.ndarray, rate_coded: IntProgram | None = None
    ) -> None:
        """IF, CIF and CIF with sleep; the latter two are one run, looked at twice.

        A program as it is, without the IF network beside it, need not settle.
        """
        wake, arithmetic = sleeping.schedule.wake_steps, integer(sleeping.weight_bits)
        variants = {}
        if rate_coded is not None:
            report = partial(self.progress, "IF")
            plain = compare_counts(rate_coded, inputs, report, workers=self.workers)
            variants["IF"] = (plain.awake, 0)
        settles = rate_coded is not None
        report = partial(self.progress, "CIF and sleep")
        cif = compare_counts(sleeping, inputs, report, must_settle=settles, workers=self.workers)
        variants["CIF"] = (cif.awake, 0)
        variants["CIF + sleep"] = (cif.settled, cif.settle_steps)
        self._add("ANN", arithmetic, "", None, cif.quantized_logits)
        for name, (comparison, sleep) in variants.items():
            self._add("SNN", arithmetic, name, wake + sleep, np.concatenate(comparison.logits))
        if sleeping.input.per_step:
            settled = replace(sleeping, schedule=Schedule(wake, cif.settle_steps))
            report = partial(self.progress, "over time")
            over = SequenceRun.of(settled, name, inputs, self.data, report, self.workers)
            self.sequences.append(over)
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
