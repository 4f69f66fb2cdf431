"""Fashion-MNIST from its original IDX files (28x28, ten classes, 60,000 + 10,000).

`fashion-mnist` alone looks where Debian's package dataset-fashion-mnist puts it.
"""

from __future__ import annotations

from pathlib import Path

from toolchain.data.dataset import Dataset
from toolchain.data.idx import read_idx
from toolchain.errors import DataError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_PREFIX = {"train": "train", "test": "t10k"}


def load(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split from folder `path`.

    Raises
    ------
    DataError
        If a file is missing or malformed.
    """
    folder = path or DEBIAN_FOLDER
    if not folder.is_dir():
        raise DataError(
            "the data are not there",
            node="fashion-mnist",
            found=folder,
            remedy="apt-get install dataset-fashion-mnist, or give the folder: fashion-mnist:DIR",
        )
    images = read_idx(folder / f"{_PREFIX[split]}-images-idx3-ubyte", 3)
    labels = read_idx(folder / f"{_PREFIX[split]}-labels-idx1-ubyte", 1)
    return Dataset(
        name="fashion-mnist",
        samples=images[:, None],
        labels=labels.astype("int64"),
        class_names=CLASS_NAMES,
        pixel_max=255,
    )
