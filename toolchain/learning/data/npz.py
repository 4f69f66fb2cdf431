"""Arrays in an `.npz` file: `train_samples`, `train_labels`, `test_samples`, `test_labels`.

Samples are uint8 pixels (real value = pixel / 255) or floats taken as they are, float64 included,
of shape (N, C, H, W), (N, H, W), (N, F) or, with a tensor for each step, (N, T, C, H, W). Optional:
`class_names`. Pickled content is never loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolchain.containers import npz_names, read_npz
from toolchain.documents import as_error
from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset, Samples

MOST_CLASSES = 1 << 20
"""Without `class_names` each label up to the largest is a class; ImageNet-21k has 21,841."""
_LABELS = ("train_labels", "test_labels")


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split of an `.npz` file.

    Raises
    ------
    DataError
        If the file or an array is missing or malformed.
    """
    if path is None:
        raise DataError("a path is needed", node="npz", remedy="npz:PATH")
    node = f"npz:{path}"
    if not path.is_file():
        raise DataError("no such file", node=node)
    wanted = (f"{split}_samples", f"{split}_labels")
    with as_error(DataError, "not a readable .npz file", node):
        arrays = read_npz(path, (wanted[0], *_LABELS, "class_names"))
        if any(name not in arrays for name in wanted):
            raise DataError(
                "arrays are missing",
                node=node,
                found=", ".join(npz_names(path)) or "nothing",
                allowed=", ".join(wanted),
            )
    samples = Samples.of(arrays[wanted[0]], node)
    for name in _LABELS:
        _check_labels(arrays.get(name, np.zeros(0, np.int64)), f"{node}, {name}")
    names = [str(n) for n in arrays["class_names"].reshape(-1)] if "class_names" in arrays else None
    if names is None:
        largest = max(int(arrays[n].max(initial=0)) for n in _LABELS if n in arrays)
        names = [str(i) for i in range(1 + largest)]
    labels = arrays[wanted[1]].astype(np.int64)
    return Dataset(node, samples.samples, samples.pixel_max, labels, tuple(names))


def _check_labels(labels: np.ndarray, node: str) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError("labels must be integers", node=node, found=labels.dtype)
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < MOST_CLASSES:
        raise DataError(
            "labels must be numbers of classes",
            node=node,
            found=f"{labels.min()} .. {labels.max()}",
            allowed=f"0 .. {MOST_CLASSES - 1}",
        )
