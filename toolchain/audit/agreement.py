"""Several versions of one network on the same samples: accuracies, and where they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.evaluation.accuracy import Accuracy


def describe_versions(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray | None
) -> dict[str, Any]:
    """Accuracies and agreements as JSON.

    Parameters
    ----------
    outputs:
        By version, (N, K) each; a version may have answered only the first samples.
    labels:
        (N,), or None where there are none.

    Returns
    -------
    `accuracy` by version, and `agreement`: by pair, the share of samples with the same prediction
    among those that both have answered.
    """
    accuracy: dict[str, Any] = {}
    if labels is not None:
        accuracy = {
            name: Accuracy.of(values, labels[: len(values)]).describe()
            for name, values in outputs.items()
        }
    agreement = {
        first: {second: _agreement(outputs[first], outputs[second]) for second in outputs}
        for first in outputs
    }
    return {"accuracy": accuracy, "agreement": agreement}


def _agreement(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    common = min(len(first), len(second))
    same = int((first[:common].argmax(1) == second[:common].argmax(1)).sum())
    return {"same": same, "samples": common}
