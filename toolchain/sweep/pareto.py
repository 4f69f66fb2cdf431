"""The Pareto front of results: no other is better in one respect and at least as good in all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolchain.sweep.measure import Result


def costs(result: Result) -> tuple[float, float, int, int]:
    """Errors, synops, latency and cores of a result; less is better."""
    return (-result.accuracy, result.synops, result.latency, result.cores)


def front(results: Sequence[Result]) -> list[Result]:
    """The results that no other dominates, in their order, without the failed ones."""
    whole = [r for r in results if not r.error]
    table = np.array([costs(r) for r in whole], np.float64).reshape(len(whole), 4)
    kept = []
    for index, row in enumerate(table):
        better = (table <= row).all(axis=1) & (table < row).any(axis=1)
        if not better.any():
            kept.append(whole[index])
    return kept
