"""`audit`: why a conversion loses accuracy, and whether it may be shipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_models.energy import load_costs
from spikeport.backends import Lava, Reference
from spikeport.chips import chip_of
from spikeport.files import as_program
from spikeport.given_network import GivenNetwork
from spikeport.running import open_for, run_inputs
from spikeport.samples import Data
from spikeport.trained_network import InputDescription, TrainedNetwork
from toolchain.audit.audit import FLOAT, QUANTIZED, LavaRun, Subject, run_audit
from toolchain.audit.energy import Cost
from toolchain.audit.gates import Gate
from toolchain.audit.scorers import AnyOutputs, Classifier, Scorer
from toolchain.audit.source_network import SourceNetwork
from toolchain.errors import CheckpointError, UsageError
from toolchain.files import atomic_write
from toolchain.learning.data import BoxDataset, Dataset, Samples, input_spikes
from toolchain.learning.detection.scorer import DetectorScorer
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.output_policy import AUDIT, PAGE, check_output
from toolchain.progress import Progress
from toolchain.recording import Mode, compare
from toolchain.workers import Workers, open_workers

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from toolchain.conversion.pipeline import Conversion
    from toolchain.program.int_program import IntProgram

LAVA_SAMPLES = 16
"""Samples that `audit` runs on Lava by default."""
BUDGET_SAMPLES = 128
"""Samples of the error budget by default."""
SANAFE = "sanafe"
"""The only simulator of energy that `audit` knows."""
ENERGY_SAMPLES = 4
"""Samples that SANA-FE simulates."""
Told = Callable[[str, int, int], None]
"""Called with the name of the current step, the samples done and the samples in all."""


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes
    ----------
    document:
        The audit as plain values, as `-o OUT.json` writes them.
    """

    document: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every gate that was given holds."""
        return bool(self.document["passed"])

    def save(self, path: str | Path) -> None:
        """Write one offline page (.html), or the document (.json).

        Raises
        ------
        OutputError
            If the name ends otherwise, or something else, or a file of another kind, has it.
        """
        file = Path(path)
        if file.suffix.lower() in PAGE.suffixes:
            from toolchain.audit.html_report import write_page

            check_output(file, PAGE)
            atomic_write(file, write_page(self.document).encode())
            return
        check_output(file, AUDIT)
        text = json.dumps(self.document, indent=1, default=str)
        atomic_write(file, text.encode() + b"\n")


def audit(
    program: IntProgram | Conversion | str | Path,
    samples: Data,
    *,
    network: nn.Module | str | Path | None = None,
    weights: str | Path | None = None,
    adapters: Sequence[str | Path] = (),
    gates: Sequence[str] = (),
    lava_samples: int = LAVA_SAMPLES,
    target: str = "loihi2",
    budget_samples: int = BUDGET_SAMPLES,
    jobs: int = 1,
    scheduler: str | None = None,
    time_limit: float = 3600.0,
    energy: str | None = None,
    progress: Told | None = None,
) -> Audit:
    """Measure what accuracy each layer of a network loses, and what hardware it needs.

    The network runs in four ways: float, quantized, integer reference and Lava. The audit contains
    an error budget and the accuracy that each source of error costs (with `network`), the proved
    and measured ranges, the cores of the target and the operation counts.

    Workers share the samples of the integer network and of Lava: spikes, extremes, operations and
    outputs are sums, ranges or lists over samples, so that the audit is the same for any split.
    What `network` computes in floating point runs once, in this process, since sums of floats
    depend on how many samples are computed together: float and quantized outputs, the error budget
    and the accuracy of each version.

    Parameters
    ----------
    program:
        A result of `convert` or `load`, or a `.net` file.
    samples:
        As in `run`; accuracies need labels.
    network:
        The network that the program was converted from: a module, a checkpoint folder,
        FILE.py:FACTORY or FILE.onnx.
    weights:
        State dict for FILE.py:FACTORY.
    gates:
        Conditions such as "mismatches=0" or "drop<=1"; `passed` says whether they hold.
    lava_samples:
        Number of samples that also run on Lava; 0 for none.
    target:
        Chip whose cores are counted: a name, or a TOML file.
    budget_samples:
        Number of samples of the error budget.
    jobs, scheduler:
        As in `run`.
    time_limit:
        Time limit of the runs on Lava and in SANA-FE, in seconds; of each worker.
    energy:
        "sanafe": SANA-FE also simulates the energy and latency of the first samples on Loihi, spike
        by spike. It must be installed.
    progress:
        See `Told`.

    Raises
    ------
    SpikeportError
        If samples or network do not fit the program, or a gate names no metric.
    """
    told = progress or (lambda _what, _done, _total: None)
    wanted = [Gate.parse(text) for text in gates]
    chip = chip_of(target)
    if energy not in (None, SANAFE):
        raise UsageError("no such simulator of energy", found=energy, allowed=SANAFE)
    with open_workers(jobs, scheduler) as workers:
        loaded = as_program(program)
        data = open_for(loaded, samples)
        inputs = input_spikes(loaded.input, data)
        real = loaded.input.float_samples(data.real())
        source, versions = _float_side(loaded, network, weights, adapters, real)
        simulated = None
        if energy == SANAFE:
            from spikeport.simulated_energy import in_sanafe

            told(f"SANA-FE: {loaded.name}", 0, 1)
            simulated = in_sanafe(loaded, inputs[:ENERGY_SAMPLES], time_limit)
        lava = None
        if lava_samples:
            report = partial(told, f"lava: {loaded.name}")
            lava = on_lava(loaded, inputs[:lava_samples], time_limit, report, workers)
        subject = Subject(
            program=loaded,
            inputs=inputs,
            samples=real,
            scorer=scorer_of(loaded, data),
            data=data.name,
            source=source,
            versions=versions,
            lava=lava,
            chip=chip,
            costs=operation_costs(),
            simulated=simulated,
        )
        return Audit(run_audit(subject, wanted, budget_samples, told, workers))


def scorer_of(program: IntProgram, data: Samples) -> Scorer:
    """What scores the outputs of a program on these data."""
    shapes = tuple(p.shape for p in program.readouts)
    if isinstance(data, BoxDataset):
        return DetectorScorer(DetectorSpec.of(program), data, shapes)
    is_classifier = len(shapes) == 1 and len(shapes[0]) == 1
    return Classifier(data.labels) if is_classifier and isinstance(data, Dataset) else AnyOutputs()


def operation_costs() -> dict[str, Cost]:
    """The costs per operation of `hw_models.energy`, for the audit."""
    return {k: Cost(c.picojoules, c.source) for k, c in load_costs().items()}


def on_lava(
    program: IntProgram,
    inputs: np.ndarray,
    time_limit: float,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> LavaRun:
    """Run graded input spikes, int (N, ...), on Lava and compare digests with the reference.

    Raises
    ------
    SpikeportError
        If Lava cannot run it.
    """
    lava = Lava("fast", time_limit=time_limit)
    found = run_inputs(program, inputs, lava, Mode.DIGEST, progress, workers)
    expected = run_inputs(program, inputs, Reference(), Mode.DIGEST, workers=workers)
    outcome = compare(expected, found)
    first = "" if outcome.first is None else str(outcome.first)
    return LavaRun(found.outputs, outcome.compared, outcome.total, first)


def _float_side(
    program: IntProgram,
    network: nn.Module | str | Path | None,
    weights: str | Path | None,
    adapters: Sequence[str | Path],
    samples: np.ndarray,
) -> tuple[SourceNetwork | None, Mapping[str, np.ndarray]]:
    """The network that the program was converted from, and the outputs of the user's own module."""
    if network is None:
        return None, {}
    import torch

    from toolchain.conversion.frontend.user_module import in_one_type
    from toolchain.learning.activations import ActivationMode
    from toolchain.learning.training.inference import logits
    from toolchain.user_code import home_of, user_code

    description = InputDescription(program.input.shape, None, program.input.bits, (0.0,), (1.0,))
    given = GivenNetwork(network, weights, description, adapters=tuple(adapters))
    trained = given.open().trained
    node = str(network) if isinstance(network, str | Path) else type(network).__name__
    _check_origin(program, trained, node)
    assert isinstance(trained.model, torch.nn.Module)
    source = SourceNetwork.of(program, trained.model)
    model, kind = in_one_type(trained.model)
    with user_code("the network's forward fails", node, home_of(model)):
        versions = {
            name: logits(model, torch.tensor(samples, dtype=kind), mode).numpy()
            for name, mode in {
                FLOAT: ActivationMode.CLIPPED,
                QUANTIZED: ActivationMode.QUANTIZED,
            }.items()
        }
    if source.measured:
        del versions[QUANTIZED]
    return source, versions


def _check_origin(program: IntProgram, trained: TrainedNetwork, node: str) -> None:
    for key in ("checkpoint_sha256", "weights_sha256"):
        ours, theirs = trained.provenance.get(key), program.provenance.get(key)
        if theirs is not None and ours != theirs:
            raise CheckpointError(
                "is not what the file was converted from",
                node=node,
                found=f"{key} {ours}",
                allowed=theirs,
                remedy="give the checkpoint (and weights=) it was made of",
            )
