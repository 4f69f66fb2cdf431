"""Handwritten digits of scikit-learn: 1,797 images of 8x8, pixels 0..16, inside the package.

It has no official test set; a fifth of each class, chosen by a fixed seed, serves as one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset, hold_out

TEST_FRACTION = 0.2
SPLIT_SEED = 20220425
"""Any fixed number; changing it changes the test set."""
FILE = "datasets/data/digits.csv.gz"
"""Where scikit-learn 0.18 to 1.9 has the images."""


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split; takes no path."""
    if path is not None:
        raise DataError("digits are embedded and take no path", node="digits", found=path)
    rows = _rows()
    dataset = Dataset(
        name="digits",
        samples=rows[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8),
        labels=rows[:, -1].astype(np.int64),
        class_names=tuple(str(d) for d in range(10)),
        pixel_max=16,
    )
    train, test = hold_out(dataset, TEST_FRACTION, SPLIT_SEED)
    return train if split == "train" else test


def _rows() -> np.ndarray:
    """64 pixels, row by row, and the label of each image, (N, 65).

    Read from scikit-learn's file without importing scikit-learn, which takes a second.
    """
    package = find_spec("sklearn")
    if package and package.origin:
        path = Path(package.origin).parent / FILE
        if path.exists():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
