"""Several versions of one network on the same samples: their accuracies and agreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.audit.scorers import Scorer


def describe_versions(outputs: Mapping[str, np.ndarray], scorer: Scorer) -> dict[str, Any]:
    """Accuracies and agreements as JSON.

    Parameters
    ----------
    outputs:
        Outputs by version, (N, P) each; a version may cover only the first samples.

    Returns
    -------
    `accuracy` by version, and `agreement` by pair: the number of common samples with the same
    prediction.
    """
    accuracy: dict[str, Any] = {}
    if scorer.has_ground_truth:
        accuracy = {name: scorer.describe(values) for name, values in outputs.items()}
    agreement = {
        first: {second: _agreement(outputs[first], outputs[second], scorer) for second in outputs}
        for first in outputs
    }
    return {"accuracy": accuracy, "agreement": agreement}


def _agreement(first: np.ndarray, second: np.ndarray, scorer: Scorer) -> dict[str, Any]:
    common = min(len(first), len(second))
    return {"same": scorer.same(first[:common], second[:common]), "samples": common}
