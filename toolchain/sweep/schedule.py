"""Parallel measurement of points, in threads of this process or on a Dask scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING

from toolchain.audit.chip_fit import Chip
from toolchain.errors import BackendRunError
from toolchain.sweep.grid import Point
from toolchain.sweep.measure import Convert, Result, measure
from toolchain.sweep.store import Store

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
RETRIES = 3
"""Workers that may die at one point before it counts as failed."""

Progress = Callable[[int, int], None]


def run_points(
    points: Mapping[str, Point],
    store: Store,
    convert: Convert,
    data: str,
    chip: Chip,
    *,
    scheduler: str | None,
    workers: int,
    progress: Progress,
) -> None:
    """Measure all points, by key, that the store does not contain, and store each result.

    Other workers measure the points of a worker that dies.

    Raises
    ------
    BackendRunError
        If the scheduler does not answer, or the workers of a point die `RETRIES` times.
    """
    missing = {key: point for key, point in points.items() if key not in store.done()}
    done = len(points) - len(missing)
    progress(done, len(points))
    if not missing:
        return
    measured = partial(_measured, convert=convert, data=data, chip=chip)
    if scheduler is None:
        results = _here(measured, missing, workers)
    else:
        results = _on_workers(measured, missing, scheduler)
    for result in results:
        store.add(result)
        done += 1
        progress(done, len(points))


Measured = Callable[[tuple[str, Point]], Result]


def _measured(one: tuple[str, Point], convert: Convert, data: str, chip: Chip) -> Result:
    return measure(*one, convert, data, chip)


def _here(measured: Measured, points: Mapping[str, Point], workers: int) -> Iterator[Result]:
    """Results from threads that end with the process, without sockets."""

    def guarded(one: tuple[str, Point]) -> Result:
        try:
            return measured(one)
        except Exception as error:
            raise _failure(one[1], error) from error

    with ThreadPool(workers) as pool:
        yield from pool.imap_unordered(guarded, points.items())


def _on_workers(
    measured: Measured, points: Mapping[str, Point], scheduler: str
) -> Iterator[Result]:
    from distributed import as_completed

    with _client(scheduler) as client:
        futures = [
            client.submit(measured, one, key=one[0], retries=RETRIES) for one in points.items()
        ]
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:
                raise _failure(points[future.key], error) from error


def _failure(point: Point, error: Exception) -> BackendRunError:
    return BackendRunError(
        "a point could not be measured",
        node=f"{point.run}, {point.neuron}, {point.steps} steps, {point.weight_bits} bits",
        found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
        remedy="the results so far are kept; run it again",
    )


def _client(scheduler: str) -> Client:
    from distributed import Client

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise BackendRunError(
            "the scheduler does not answer",
            node=scheduler,
            found=str(error).splitlines()[0],
            remedy="dask scheduler starts one, dask worker ADDRESS workers; leave out scheduler= "
            "to run here",
        ) from error
