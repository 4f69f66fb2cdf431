"""Measurement of the points that a store does not contain, on any workers."""

from __future__ import annotations

from collections.abc import Mapping

from toolchain.audit.chip_fit import Chip
from toolchain.audit.layer_cores import LayerChip
from toolchain.progress import Progress
from toolchain.sweep.grid import Point
from toolchain.sweep.measure import Convert, Result, measure
from toolchain.sweep.store import Store
from toolchain.workers import Work, Workers


def run_points(
    points: Mapping[str, Point],
    store: Store,
    convert: Convert,
    data: str,
    chip: Chip | LayerChip,
    workers: Workers,
    progress: Progress,
) -> None:
    """Measure all points, by key, that the store does not contain, and store each result.

    Raises
    ------
    BackendRunError
        If the workers of a point die; results so far stay in the store.
    """
    done = store.done()
    missing = [(key, point) for key, point in points.items() if key not in done]
    progress(len(points) - len(missing), len(points))
    results = workers.each(Work(_measured, (convert, data, chip)), missing)
    for count, (_, result) in enumerate(results, 1 + len(points) - len(missing)):
        store.add(result)
        progress(count, len(points))


def _measured(
    shared: tuple[Convert, str, Chip], one: tuple[str, Point], _progress: Progress | None
) -> Result:
    (key, point), (convert, data, chip) = one, shared
    return measure(key, point, convert, data, chip)
