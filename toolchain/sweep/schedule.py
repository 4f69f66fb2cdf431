"""Points measured in parallel on Dask: in this process, or on the workers of a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolchain.audit.chip_fit import Chip
from toolchain.errors import BackendRunError
from toolchain.int_range import TargetLimits
from toolchain.sweep.grid import Point
from toolchain.sweep.measure import Result, measure
from toolchain.sweep.store import Store

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
RETRIES = 3
"""Workers that may die over one point before it counts as failed."""

Progress = Callable[[int, int], None]


def run_points(
    points: Mapping[str, Point],
    store: Store,
    data: str,
    limits: TargetLimits,
    chip: Chip,
    *,
    scheduler: str | None,
    workers: int,
    progress: Progress,
) -> None:
    """Measure all points, by key, that the store does not hold; each is stored when it is done.

    A worker that dies has its points measured by others.

    Raises
    ------
    BackendRunError
        If the scheduler does not answer, or a point ends its workers again and again.
    """
    from distributed import as_completed

    missing = {key: point for key, point in points.items() if key not in store.done()}
    progress(len(points) - len(missing), len(points))
    if not missing:
        return
    with _client(scheduler, workers) as client:
        futures = [
            client.submit(measure, key, point, data, limits, chip, key=key, retries=RETRIES)
            for key, point in missing.items()
        ]
        done = len(points) - len(missing)
        for future in as_completed(futures):
            store.add(_result(future, points))
            done += 1
            progress(done, len(points))


def _result(future: Any, points: Mapping[str, Point]) -> Result:
    try:
        result: Result = future.result()
    except Exception as error:
        point = points[future.key]
        raise BackendRunError(
            "a point could not be measured",
            node=f"{point.run}, {point.neuron}, {point.steps} steps, {point.weight_bits} bits",
            found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy="the results so far are kept; run it again",
        ) from error
    return result


@contextmanager
def _client(scheduler: str | None, workers: int) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    if scheduler is None:
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=workers, processes=False, dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise BackendRunError(
            "the scheduler does not answer",
            node=scheduler,
            found=str(error).splitlines()[0],
            remedy="dask scheduler starts one, dask worker ADDRESS workers; leave out --scheduler "
            "to run here",
        ) from error
    with client:
        yield client
