"""`sweep`: many conversions and their Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from hw_models.profile import load_profile
from spikeport.chips import chip_of
from spikeport.given_network import CALIBRATION_SAMPLES, GivenNetwork, OpenNetwork, described
from spikeport.samples import steps_of
from toolchain.conversion.passes.fold import trained_activations
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.integerise import SPIKING_NEURONS
from toolchain.errors import ConversionError
from toolchain.int_range import TargetLimits
from toolchain.learning.data import open_split
from toolchain.learning.data.frames import OPTIONS
from toolchain.learning.data.source import EVENT_SOURCES
from toolchain.learning.training.checkpoint import CLASSIFICATION
from toolchain.output_policy import NETWORK, PLOT, STORE, check_output
from toolchain.program.int_program import IntProgram
from toolchain.progress import Progress
from toolchain.sweep.grid import Point, make_grid
from toolchain.sweep.measure import Result
from toolchain.sweep.pareto import front
from toolchain.sweep.plot import draw, save_plot
from toolchain.sweep.schedule import run_points
from toolchain.sweep.store import Store
from toolchain.workers import open_workers

STEPS = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class Sweep:
    """The points of a sweep.

    Attributes
    ----------
    results:
        One result per point, in the order of runs, neurons, steps, bits and largest spikes.
    notes:
        What the user should know about the networks.
    """

    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Result, ...]:
        """The points that no other beats in one respect without being worse in another."""
        return tuple(front(list(self.results)))

    @property
    def failed(self) -> tuple[Result, ...]:
        """The points that have an error instead of numbers."""
        return tuple(result for result in self.results if result.error)

    def plot(self, path: str | Path) -> None:
        """Draw the Pareto front (.png, .pdf, .svg).

        Raises
        ------
        OutputError
            If something else, or a file of another kind, has that name.
        """
        check_output(Path(path), PLOT)
        save_plot(draw(list(self.results)), Path(path))


def sweep(
    runs: Sequence[str | Path],
    data: str,
    store: str | Path,
    *,
    weights: str | Path | None = None,
    input_shape: int | Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    adapters: Sequence[str | Path] = (),
    calibrate: str | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    steps: Sequence[int] | None = None,
    weight_bits: Sequence[int] = (4, 8),
    neurons: Sequence[str] = ("if",),
    max_spikes: Sequence[int] = (1,),
    target: str = "loihi2",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Convert and run every combination of networks, neurons, steps, bits and largest spikes.

    A sweep that was stopped or killed continues where it was when it is called again.

    Parameters
    ----------
    runs:
        Networks by name, as in `convert`: checkpoint folders, "FILE.py:FACTORY", "model:NAME",
        ONNX files.
    data:
        A data source with labels.
    weights, input_shape, input_range, mean, std, adapters, calibrate, calibration_samples:
        As in `convert`; they hold for all `runs`. The shape is that of the data by default.
    store:
        SQLite file for the results.
    steps:
        Time steps of IF, or wake steps of CIF, by default `STEPS`. Of sequences (N, T, C, H, W), of
        which a network sees one tensor in each step, a point of fewer steps sees the first ones
        only: what can be said before a sequence has ended. The default ends with T then.
    max_spikes:
        Largest spikes of IF neurons, `max_spike` of `convert`.
    target:
        Hardware whose cores are counted: a name, or a TOML file.
    jobs, scheduler:
        As in `run`; parts are points. On a cluster the workers open networks and data by
        their names, which must be those of files that they have.

    Raises
    ------
    SpikeportError
        If a checkpoint or the data cannot be read, or workers die. A failed point is a result.
    """
    check_output(Path(store), STORE)
    limits, chip = load_profile(target).as_target_limits(), chip_of(target)
    dataset = open_split(data)
    said = described(input_shape, input_range, mean=mean, std=std).of_data(dataset)
    given = [
        GivenNetwork(
            _network_from_anywhere(str(run)),
            None if weights is None else Path(weights).resolve(),
            said,
            None if calibrate is None else _from_anywhere(calibrate),
            calibration_samples,
            adapters=tuple(Path(file).resolve() for file in adapters),
        )
        for run in runs
    ]
    networks = {str(network.network): (network, _opened(network).sha256) for network in given}
    grid = make_grid(
        [(run, _levels(_opened(network))) for run, (network, _) in networks.items()],
        _known(neurons),
        steps_of(dataset, steps, STEPS),
        sorted(weight_bits),
        sorted(max_spikes),
    )
    points = {p.key(networks[p.run][1], dataset.sha256, target): p for p in grid}
    kept = Store(Path(store))
    told = progress or (lambda _done, _total: None)
    lowering = Lowering(networks, limits)
    with open_workers(jobs, scheduler) as workers:
        run_points(points, kept, lowering, _from_anywhere(data), chip, workers, told)
    notes = dict.fromkeys(note for network in given for note in _opened(network).notes)
    return Sweep(tuple(kept.results(points)), tuple(notes))


_TRACING = Lock()
"""Lock for tracing: torch.fx replaces `Module.__call__` for the whole process meanwhile."""


@lru_cache(maxsize=4)
def _opened(network: GivenNetwork) -> OpenNetwork:
    if Path(str(network.network)).suffix in NETWORK.suffixes:
        raise ConversionError(
            "a .net file is converted already, so that nothing of it can vary",
            node=str(network.network),
            remedy="give the network it was made of; `spikeport evaluate` measures the file",
        )
    return network.open(task=CLASSIFICATION)


def _levels(opened: OpenNetwork) -> int:
    trained = opened.trained
    if trained.levels is not None:
        return trained.levels
    return trained_activations(trained.model, trained.quantizer.shape)[1] or 0


@dataclass(frozen=True)
class Lowering:
    """Conversion of the points of a sweep, in any process.

    Attributes
    ----------
    networks:
        Network and its hash by the `run` of points.
    """

    networks: Mapping[str, tuple[GivenNetwork, str]]
    limits: TargetLimits

    def __call__(self, point: Point) -> IntProgram:
        """The program of a point; raises SpikeportError if the network does not become one."""
        network, sha256 = self.networks[point.run]
        with _TRACING:
            opened = _opened(network)
            if opened.sha256 != sha256:
                raise ConversionError(
                    "the network is another one each time it is opened",
                    node=point.run,
                    remedy="give its weights=, or seed what its factory draws",
                )
            trained, calibration = opened.trained, opened.calibration
            if calibration is not None and trained.quantizer.per_step:
                inputs = calibration.inputs[:, : point.steps]
                calibration = replace(calibration, inputs=inputs)
            return convert(
                trained.model,
                trained.quantizer,
                ConversionOptions(
                    point.neuron, point.schedule, point.weight_bits, max_spike=point.max_spike
                ),
                self.limits,
                name=trained.name,
                calibration=calibration,
            ).program


def _network_from_anywhere(run: str) -> str:
    """The name of a network with an absolute path, since workers may run in other folders."""
    file, separator, factory = run.rpartition(":")
    if separator and file.endswith(".py"):
        return f"{Path(file).resolve()}:{factory}"
    return run if separator and not Path(run).exists() else str(Path(run).resolve())


def _known(neurons: Sequence[str]) -> Sequence[str]:
    for neuron in neurons:
        if neuron not in SPIKING_NEURONS:
            raise ConversionError(
                "no such neuron", found=neuron, allowed=", ".join(SPIKING_NEURONS)
            )
    return neurons


def _from_anywhere(data: str) -> str:
    """The source with an absolute path, since workers may run in other folders."""
    file, in_python, factory = data.partition(".py:")
    if in_python:
        return f"{Path(f'{file}.py').resolve()}:{factory}"
    name, separator, rest = data.partition(":")
    if not separator or "@" in name:
        return data
    path, at, split = rest.partition("@")
    parts = OPTIONS.match(path) if name in EVENT_SOURCES else None
    path, options = (parts["path"], parts["options"]) if parts else (path, "")
    return f"{name}:{Path(path).resolve()}{options}{at}{split}" if Path(path).exists() else data
