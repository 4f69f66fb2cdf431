"""A trained detector and its spiking counterparts on data with boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import Tensor

from toolchain.audit.activity import LayerExtremes, count_spikes, samples_at_once
from toolchain.audit.energy import Counted, Operations
from toolchain.engine.engine import Detail, Engine
from toolchain.engine.settle import with_measured_sleep
from toolchain.learning.activations import IF_ACTIVATIONS, ActivationMode, CQReLU, activation_mode
from toolchain.learning.data import BoxDataset, input_spikes
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.checkpoint import DetectorCheckpoint
from toolchain.learning.detection.detections import Detections, detect, real_outputs
from toolchain.learning.detection.document import Exactness, PrecisionRow
from toolchain.learning.detection.train_detector import detector_outputs
from toolchain.learning.evaluation.evaluate_run import Lower
from toolchain.learning.evaluation.results import FLOAT, integer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.progress import StageProgress
from toolchain.simulator.quantized_network import quantized_counts
from toolchain.workers import Work, Workers

Told = Callable[[int, int], None]
BATCH = 8
"""Images at a time at most, of which every layer's counts are kept."""


@dataclass
class DetectorMeasurement:
    """What is measured, and what was found; see `document.DetectorEvaluation`.

    Attributes
    ----------
    steps:
        Time steps after which an IF network is shown.
    workers:
        They share the images of the integer networks.
    """

    checkpoint: DetectorCheckpoint
    data: BoxDataset
    steps: Sequence[int]
    weight_bits: int
    progress: StageProgress
    workers: Workers = field(default_factory=Workers)
    rows: list[PrecisionRow] = field(default_factory=list)
    settle: dict[str, int] = field(default_factory=dict)
    exactness: Exactness | None = None
    operations: Operations | None = None
    program: IntProgram | None = None

    def measure(self, lower: Lower) -> None:
        """Average precision of all forms of a detector.

        NQ and QCFS become IF networks; CQReLU becomes CIF with as many wake steps as levels and
        the sleep steps that these images need, shown after every power of two of them. A ReLU
        network is measured as it is.

        Raises
        ------
        DataError
            If the data have other classes than the network.
        ConversionError
            If a CIF network does not settle.
        """
        self.data.check_classes(self.checkpoint.class_names)
        self._float_networks()
        kind = self.checkpoint.config.activation
        if kind in IF_ACTIVATIONS:
            self._spiking(
                lower("if", Schedule(max(self.steps)), self.weight_bits), sorted(self.steps)
            )
        elif kind == CQReLU.kind:
            self._wake_sleep(lower)

    def _add(
        self,
        outputs: Sequence[Tensor],
        network: str,
        arithmetic: str,
        neuron: str = "",
        steps: int | None = None,
    ) -> Detections:
        boxes = detect(self.checkpoint.spec, outputs, self.data)
        found = average_precision(boxes, self.data).describe()
        self.rows.append(PrecisionRow(network, arithmetic, neuron, steps, **found))
        return boxes

    def _float_networks(self) -> None:
        model, config = self.checkpoint.model, self.checkpoint.config
        modes = {FLOAT: ActivationMode.CLIPPED, "quantized": ActivationMode.QUANTIZED}
        if config.activation == CQReLU.kind:
            del modes[FLOAT]  # without the floor its values are half a level off: another network
        elif config.activation not in IF_ACTIVATIONS:
            del modes["quantized"]
        for index, (arithmetic, mode) in enumerate(modes.items()):
            self.progress(f"{arithmetic} network", index, len(modes))
            with activation_mode(model, mode):
                outputs = detector_outputs(model, self.data, config.mean, config.std)
            self._add(outputs, "ANN", arithmetic)

    def _wake_sleep(self, lower: Lower) -> None:
        """CIF until settled, and every output of it against the quantized network's."""
        wake = self.checkpoint.config.levels
        self.progress("sleep steps", 0, 1)
        unmeasured = lower("cif", Schedule(wake, wake), self.weight_bits)
        inputs = input_spikes(unmeasured.input, self.data)
        settled = with_measured_sleep(unmeasured, inputs)
        program, sleep = settled.program, settled.measured
        chosen = {wake + (1 << k) for k in range(sleep.bit_length()) if 1 << k < sleep}
        found = self.workers.over_samples(Work(_settle_part, program), inputs)
        self.settle = {name: max(part[name] for part in found) for name in found[0]}
        ends, boxes = self._spiking(program, sorted({*chosen, wake, wake + sleep}))
        report = partial(self.progress, "quantized network in integers")
        parts = self.workers.over_samples(Work(_quantized_part, program), inputs, report)
        quantized = {name: np.concatenate([p[name] for p in parts]) for name in ends}
        wanted = self._add(real_outputs(program, quantized), "ANN", integer(program.weight_bits))
        images = range(len(self.data))
        self.exactness = Exactness(
            outputs=sum(value.size for value in ends.values()),
            differing=sum(int((ends[name] != quantized[name]).sum()) for name in ends),
            images=len(images),
            unequal_images=sum(not boxes.of_image(i).equal(wanted.of_image(i)) for i in images),
        )

    def _spiking(
        self, program: IntProgram, steps: Sequence[int]
    ) -> tuple[dict[str, np.ndarray], Detections]:
        """Rows after each of `steps`, operations, and the accumulators and boxes at the end."""
        inputs, operations = input_spikes(program.input, self.data), Operations(program)
        work = Work(_spiking_part, (program, tuple(steps)))
        report = partial(self.progress, "spiking network")
        parts = self.workers.over_samples(work, inputs, report)
        for _, counted in parts:
            operations.counted.include(counted)
        neuron = program.spiking[0].neuron.kind
        for number, t in enumerate(steps):
            ends = {
                readout.name: np.concatenate([sums[readout.name][number] for sums, _ in parts])
                for readout in program.readouts
            }
            outputs = outputs_after(program, ends, t)
            boxes = self._add(outputs, "SNN", integer(program.weight_bits), neuron, t)
        self.operations, self.program = operations, program
        return ends, boxes


def _batches(
    program: IntProgram, inputs: np.ndarray, progress: Told | None
) -> Iterator[np.ndarray]:
    size = samples_at_once(program, BATCH)
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        yield batch
        if progress:
            progress(start + len(batch), len(inputs))


def _spiking_part(
    shared: tuple[IntProgram, tuple[int, ...]], inputs: np.ndarray, progress: Told | None
) -> tuple[dict[str, np.ndarray], Counted]:
    """Accumulators after each of the steps, by readout, (steps, n, ...), and operations."""
    program, steps = shared
    engine, operations, sums = Engine(program), Operations(program), []
    extremes = {p.name: LayerExtremes() for p in program.populations}
    last = [t - 1 for t in steps]
    for batch in _batches(program, inputs, progress):
        counts = count_spikes(engine, program, batch, extremes)
        operations.add(batch, counts)
        sums.append({name: value[last] for name, value in counts.outputs.items()})
    return {k: np.concatenate([s[k] for s in sums], axis=1) for k in sums[0]}, operations.counted


def _quantized_part(
    program: IntProgram, inputs: np.ndarray, progress: Told | None
) -> dict[str, np.ndarray]:
    """Accumulators of the quantized network, by readout."""
    parts = [quantized_counts(program, batch)[1] for batch in _batches(program, inputs, progress)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _settle_part(program: IntProgram, inputs: np.ndarray, _: Told | None) -> dict[str, int]:
    return settle_by_layer(program, inputs)


def outputs_after(program: IntProgram, ends: dict[str, np.ndarray], steps: int) -> list[Tensor]:
    """`real_outputs` of a run that stopped after `steps` steps: divided by its wake steps."""
    wake = program.schedule.wake_steps
    return [value * (wake / min(steps, wake)) for value in real_outputs(program, ends)]


def settle_by_layer(program: IntProgram, inputs: np.ndarray) -> dict[str, int]:
    """Sleep steps after which no neuron of a layer fires any more, by spiking layer, 0 for none.

    Parameters
    ----------
    inputs:
        Graded input spikes, int (N, ...); the sample that takes longest counts.
    """
    last = {p.name: 0 for p in program.spiking}
    engine = Engine(program)
    for _, blocks in engine.passes(inputs, Detail.SPIKES):
        for block in blocks:
            if block.awake:
                continue
            asleep = block.first - program.schedule.wake_steps
            for name, spikes in block.spikes.items():
                fired = np.flatnonzero(spikes.reshape(len(spikes), -1).any(1))
                if len(fired):
                    last[name] = max(last[name], asleep + int(fired[-1]) + 1)
    return last
