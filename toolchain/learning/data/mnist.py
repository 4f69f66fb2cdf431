"""The MNIST family from its original IDX files (28x28 grey, ten classes, 60,000 + 10,000).

`mnist:DIR`, and `fashion-mnist`, which alone looks where Debian's package
dataset-fashion-mnist puts it.
"""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset
from toolchain.learning.data.idx import read_idx

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DIGITS = tuple(str(d) for d in range(10))
CLOTHES = (
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


def load_mnist(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split of MNIST from folder `path`.

    Raises
    ------
    DataError
        If the path is left out, or a file is missing or malformed.
    """
    if path is None or not path.is_dir():
        raise DataError(
            "a folder with the IDX files is needed", node="mnist", found=path, remedy="mnist:DIR"
        )
    return _load("mnist", path, split, DIGITS)


def load_fashion_mnist(path: Path | None, split: str) -> Dataset:
    """The `train` or `test` split of Fashion-MNIST from folder `path`.

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
    return _load("fashion-mnist", folder, split, CLOTHES)


def _load(name: str, folder: Path, split: str, class_names: tuple[str, ...]) -> Dataset:
    images = read_idx(folder / f"{_PREFIX[split]}-images-idx3-ubyte", 3)
    labels = read_idx(folder / f"{_PREFIX[split]}-labels-idx1-ubyte", 1)
    return Dataset(name, images[:, None], 255, labels.astype("int64"), class_names)
