"""A trained detector and its spiking counterparts on data with boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from toolchain.audit.activity import LayerExtremes, count_spikes, samples_at_once
from toolchain.audit.energy import Operations
from toolchain.engine.engine import Detail, Engine
from toolchain.engine.settle import with_measured_sleep
from toolchain.learning.activations import IF_ACTIVATIONS, ActivationMode, CQReLU, activation_mode
from toolchain.learning.data import BoxDataset, input_spikes
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.checkpoint import DetectorCheckpoint
from toolchain.learning.detection.detections import Detections, detect, real_outputs
from toolchain.learning.detection.document import Exactness, PrecisionRow
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.detection.task import detector_outputs
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.simulator.quantized_network import quantized_counts

Lower = Callable[[str, Schedule], IntProgram]
"""Converts the checkpoint: name of the neuron, schedule."""
Progress = Callable[[str, int, int], None]
BATCH = 8
"""Images at a time at most, of which every layer's counts are kept."""


@dataclass
class Measured:
    """What was found; see `DetectorEvaluation`."""

    rows: list[PrecisionRow] = field(default_factory=list)
    settle: dict[str, int] = field(default_factory=dict)
    exactness: Exactness | None = None
    operations: Operations | None = None
    program: IntProgram | None = None


def measure_detector(
    checkpoint: DetectorCheckpoint,
    data: BoxDataset,
    steps: Sequence[int],
    lower: Lower,
    progress: Progress,
) -> Measured:
    """Average precision of all forms of a detector.

    NQ and QCFS become IF networks, shown after `steps` steps; CQReLU becomes CIF with as many wake
    steps as levels and the sleep steps that these images need, shown after every power of two of
    them. A ReLU network is measured as it is.

    Raises
    ------
    DataError
        If the data have other classes than the network.
    ConversionError
        If a CIF network does not settle.
    """
    data.check_classes(checkpoint.class_names)
    found = Measured()
    _measure_float(checkpoint, data, found, progress)
    kind = checkpoint.config.activation
    if kind in IF_ACTIVATIONS:
        program = lower("if", Schedule(max(steps)))
        _measure_spiking(program, checkpoint.spec, data, sorted(steps), found, progress)
    elif kind == CQReLU.kind:
        _measure_cif(checkpoint, data, lower, found, progress)
    return found


def _measure_float(
    checkpoint: DetectorCheckpoint, data: BoxDataset, found: Measured, progress: Progress
) -> None:
    config = checkpoint.config
    modes = {"float": ActivationMode.CLIPPED, "quantized": ActivationMode.QUANTIZED}
    if config.activation == CQReLU.kind:
        del modes["float"]  # without the floor its values are half a level off: another network
    elif config.activation not in IF_ACTIVATIONS:
        del modes["quantized"]
    for index, (arithmetic, mode) in enumerate(modes.items()):
        progress(f"{arithmetic} network", index, len(modes))
        with activation_mode(checkpoint.model, mode):
            outputs = detector_outputs(checkpoint.model, data, config.mean, config.std)
        _add(found, detect(checkpoint.spec, outputs, data), data, "ANN", arithmetic)


def _add(
    found: Measured,
    boxes: Detections,
    data: BoxDataset,
    network: str,
    arithmetic: str,
    neuron: str = "",
    steps: int | None = None,
) -> None:
    value = average_precision(boxes, data)
    found.rows.append(
        PrecisionRow(network, arithmetic, neuron, steps, value.at_half, value.mean, value.by_class)
    )


def _measure_cif(
    checkpoint: DetectorCheckpoint,
    data: BoxDataset,
    lower: Lower,
    found: Measured,
    progress: Progress,
) -> None:
    wake = checkpoint.config.levels
    progress("sleep steps", 0, 1)
    unmeasured = lower("cif", Schedule(wake, wake))
    inputs = _inputs(unmeasured, data)
    settled = with_measured_sleep(unmeasured, inputs)
    program, sleep = settled.program, settled.measured
    chosen = [wake, *(wake + (1 << k) for k in range(sleep.bit_length()) if 1 << k < sleep)]
    chosen = sorted({*chosen, wake + sleep})
    found.settle = settle_by_layer(program, inputs)
    ends = _measure_spiking(program, checkpoint.spec, data, chosen, found, progress)
    boxes = detect(checkpoint.spec, real_outputs(program, ends), data)
    quantized = {name: np.zeros_like(value) for name, value in ends.items()}
    size = samples_at_once(program, BATCH)
    for start in range(0, len(inputs), size):
        where = slice(start, min(start + size, len(inputs)))
        progress("quantized network in integers", start, len(inputs))
        for name, value in quantized_counts(program, inputs[where])[1].items():
            quantized[name][where] = value
    wanted = detect(checkpoint.spec, real_outputs(program, quantized), data)
    _add(found, wanted, data, "ANN", _integers(program))
    unequal = sum(not boxes.of_image(i).equal(wanted.of_image(i)) for i in range(len(data)))
    found.exactness = Exactness(
        outputs=sum(value.size for value in ends.values()),
        differing=sum(int((ends[name] != quantized[name]).sum()) for name in ends),
        images=len(data),
        unequal_images=unequal,
    )


def _integers(program: IntProgram) -> str:
    return f"{program.weight_bits}-bit integer"


def _inputs(program: IntProgram, data: BoxDataset) -> np.ndarray:
    return input_spikes(program.input, data)


def _measure_spiking(
    program: IntProgram,
    spec: DetectorSpec,
    data: BoxDataset,
    steps: Sequence[int],
    found: Measured,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Rows after each of `steps`, operations, and the accumulators at the end."""
    inputs = _inputs(program, data)
    engine, operations = Engine(program), Operations(program)
    extremes = {p.name: LayerExtremes() for p in program.populations}
    parts: dict[int, list[dict[str, np.ndarray]]] = {t: [] for t in steps}
    size = samples_at_once(program, BATCH)
    for start in range(0, len(inputs), size):
        progress("spiking network", start, len(inputs))
        batch = inputs[start : start + size]
        counts = count_spikes(engine, program, batch, extremes)
        operations.add(batch, counts)
        for t in steps:
            parts[t].append({name: value[t - 1] for name, value in counts.outputs.items()})
    neuron = program.spiking[0].neuron.kind
    ends: dict[str, np.ndarray] = {}
    for t, batches in parts.items():
        ends = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        boxes = detect(spec, outputs_after(program, ends, t), data)
        _add(found, boxes, data, "SNN", _integers(program), neuron, t)
    found.operations, found.program = operations, program
    return ends


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
