"""Training that starts from the tensors of another run, or of a file, as far as they fit."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import Tensor, nn

from toolchain.errors import CheckpointError
from toolchain.learning.activations import QuantizedActivation
from toolchain.learning.training.checkpoint import CLASSIFICATION, read_checkpoint
from toolchain.learning.training.quantize import START, start_thresholds
from toolchain.learning.training.state_dict import MOST_NAMED, fitted_names, read_tensors

_log = logging.getLogger(__name__)


def start_from(model: nn.Module, source: Path, samples: Tensor) -> None:
    """Give `model` each tensor of `source` that has its name and shape; the rest is logged.

    Thresholds that `source` does not have start at a percentile of what the activations give
    as ReLUs.

    Parameters
    ----------
    source:
        A checkpoint folder, or a file of weights.
    samples:
        Normalised samples for the thresholds, float32 (N, ...), on the network's device.

    Raises
    ------
    CheckpointError
        If `source` cannot be read, or nothing in it fits.
    """
    file = read_checkpoint(source, CLASSIFICATION)[1] if source.is_dir() else source
    expected = model.state_dict()
    tensors, original = fitted_names(model, read_tensors(file))
    taken = {k: v for k, v in tensors.items() if k in expected and v.shape == expected[k].shape}
    if not any(k in original for k in taken):
        raise CheckpointError("no tensor fits the network", node=str(source))
    model.load_state_dict(taken, strict=False)
    missing = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantizedActivation) and f"{name}.threshold" not in taken
    }
    if missing:
        start_thresholds(model, missing, samples, START)
    _log.info("%s: %d of the network's %d tensors", source, len(taken), len(expected))
    for what, names in (
        ("started anew", [k for k in expected if k not in taken]),
        ("not taken", [original[k] for k in tensors if k not in taken]),
    ):
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            _log.info("%s: %s%s", what, ", ".join(names[:MOST_NAMED]), more)
