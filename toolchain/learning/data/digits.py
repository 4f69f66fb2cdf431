"""Handwritten digits of scikit-learn: 1,797 images of 8x8, pixels 0..16, inside the package.

It has no official test set; a fifth of each class, chosen by a fixed seed, serves as one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset, hold_out

TEST_FRACTION = 0.2
SPLIT_SEED = 20220425
"""Any fixed number; changing it changes the test set."""


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split; takes no path."""
    if path is not None:
        raise DataError("digits are embedded and take no path", node="digits", found=path)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = Dataset(
        name="digits",
        samples=bunch.images.astype(np.uint8)[:, None],
        labels=bunch.target.astype(np.int64),
        class_names=tuple(str(d) for d in range(10)),
        pixel_max=16,
    )
    train, test = hold_out(dataset, TEST_FRACTION, SPLIT_SEED)
    return train if split == "train" else test
