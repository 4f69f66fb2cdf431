"""Arrays in an `.npz` file: `train_samples`, `train_labels`, `test_samples`, `test_labels`.

Samples are uint8 pixels (real value = pixel / 255) or floats taken as they are, of shape
(N, C, H, W), (N, H, W) or (N, F). Optional: `class_names`. Pickled content is never loaded.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from toolchain.data.dataset import Dataset
from toolchain.errors import DataError


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
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in wanted if name not in file]
            if missing:
                raise DataError(
                    "arrays are missing",
                    node=node,
                    found=", ".join(file.files) or "nothing",
                    allowed=", ".join(wanted),
                )
            samples, labels = (file[name] for name in wanted)
            names = [str(n) for n in file["class_names"]] if "class_names" in file else None
            every_label = [file[k] for k in ("train_labels", "test_labels") if k in file]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise DataError("not a readable .npz file", node=node, found=error) from error
    if samples.ndim == 3:
        samples = samples[:, None]
    if samples.ndim not in (2, 4):
        raise DataError(
            "samples need 2, 3 or 4 axes", node=node, found=samples.shape, allowed="(N, ...)"
        )
    if samples.dtype != np.uint8 and samples.dtype.kind != "f":
        raise DataError("samples must be uint8 pixels or floats", node=node, found=samples.dtype)
    if labels.dtype.kind not in "iu":
        raise DataError("labels must be integers", node=node, found=labels.dtype)
    if names is None:
        names = [str(i) for i in range(1 + max(int(x.max(initial=0)) for x in every_label))]
    pixel_max = 255 if samples.dtype == np.uint8 else None
    if pixel_max is None:
        samples = samples.astype(np.float32)
    return Dataset(node, samples, labels.astype(np.int64), tuple(names), pixel_max)
