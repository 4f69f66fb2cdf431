"""`sweep`: many conversions and their Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_models.profile import load_profile
from spikeport.auditing import chip_of
from toolchain.conversion.quantization.integerise import SPIKING_NEURONS
from toolchain.errors import ConversionError
from toolchain.learning.data import open_split
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.output_policy import PLOT, STORE, check_output
from toolchain.sweep.grid import make_grid
from toolchain.sweep.measure import Result
from toolchain.sweep.pareto import front
from toolchain.sweep.plot import draw, save_plot
from toolchain.sweep.schedule import run_points
from toolchain.sweep.store import Store

Progress = Callable[[int, int], None]
"""Called with the points done and the points in all."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """The points of a sweep.

    Attributes
    ----------
    results:
        One result per point, in the order of runs, neurons, steps and bits.
    """

    results: tuple[Result, ...]

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
            If there is something else of that name.
        OutputError
            If a file of another kind has that name.
        """
        check_output(Path(path), PLOT)
        save_plot(draw(list(self.results)), Path(path))


def sweep(
    runs: Sequence[str | Path],
    data: str,
    store: str | Path,
    *,
    steps: Sequence[int] = (1, 2, 4, 8),
    weight_bits: Sequence[int] = (4, 8),
    neurons: Sequence[str] = ("if",),
    target: str = "loihi2",
    scheduler: str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Convert and run every combination of networks, neurons, steps and weight bits.

    A sweep that was stopped or killed continues where it was when it is called again.

    Parameters
    ----------
    runs:
        Checkpoint folders written by `train`.
    data:
        A data source with labels.
    store:
        SQLite file for the results.
    steps:
        Time steps of IF, or wake steps of CIF.
    target:
        Hardware whose cores are counted: a name, or a TOML file.
    scheduler:
        Address of a Dask scheduler; None runs all points on this machine.
    workers:
        Number of points that run at the same time on this machine; each uses all cores.

    Raises
    ------
    SpikeportError
        If a checkpoint or the data cannot be read, or workers die. A failed point is a result.
    """
    check_output(Path(store), STORE)
    limits, chip = load_profile(target).as_target_limits(), chip_of(target)
    folders = [Path(run) for run in runs]
    checkpoints = {run: load_checkpoint(run) for run in folders}
    grid = make_grid(
        [(run, checkpoint.config.levels) for run, checkpoint in checkpoints.items()],
        _known(neurons),
        sorted(steps),
        sorted(weight_bits),
    )
    hashes = {str(run.resolve()): c.tensors_sha256 for run, c in checkpoints.items()}
    data_sha256 = open_split(data).sha256
    points = {p.key(hashes[p.run], data_sha256, target): p for p in grid}
    kept = Store(Path(store))
    run_points(
        points,
        kept,
        _from_anywhere(data),
        limits,
        chip,
        scheduler=scheduler,
        workers=workers,
        progress=progress or (lambda _done, _total: None),
    )
    return Sweep(tuple(kept.results(points)))


def _known(neurons: Sequence[str]) -> Sequence[str]:
    for neuron in neurons:
        if neuron not in SPIKING_NEURONS:
            raise ConversionError(
                "no such neuron", found=neuron, allowed=", ".join(SPIKING_NEURONS)
            )
    return neurons


def _from_anywhere(data: str) -> str:
    """The source with an absolute path, since workers may run in other folders."""
    name, separator, rest = data.partition(":")
    if not separator or "@" in name:
        return data
    path, at, split = rest.partition("@")
    return f"{name}:{Path(path).resolve()}{at}{split}" if Path(path).exists() else data
