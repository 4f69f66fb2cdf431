"""Samples in every form: a data source, an array, a tensor, a torch Dataset or DataLoader.

Samples are (N, C, H, W), (N, H, W), (N, F) or, with a tensor for each step, (N, T, C, H, W): uint8
pixels, read as pixel / 255, or floats, read unchanged. Data sources and torch datasets also give
labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data import (
    BoxDataset,
    Samples,
    open_boxes,
    open_split,
    parse_source,
)
from toolchain.learning.data.boxes import Size
from toolchain.learning.data.source import BOX_SOURCES
from toolchain.learning.data.torch_data import of_torch, some_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset

Data: TypeAlias = "str | Samples | np.ndarray | Tensor | TorchDataset[Any] | DataLoader[Any]"


def open_samples(
    data: Data,
    *,
    split: str = "test",
    image_size: Size | None = None,
    most: int | None = None,
    seed: int = 0,
) -> Samples:
    """Read `data`.

    Parameters
    ----------
    data:
        A data source, an array, a tensor, a torch Dataset or DataLoader; the last two give samples
        or (sample, label) pairs.
    split:
        Split of a data source that names none.
    image_size:
        (height, width) to which images with boxes are scaled.
    most:
        Largest number of samples: a random choice with `seed`, or the first ones of a stream
        without a length.

    Raises
    ------
    DataError
        If `data` has another form, cannot be read, or does not contain such samples.
    """
    if has_boxes(data):
        return _images(data, split, image_size)
    if isinstance(data, str):
        return some_of(open_split(data, split), most, seed)
    if isinstance(data, Samples):
        return some_of(data, most, seed)
    if isinstance(data, np.ndarray):
        return some_of(Samples.of(data, "an array"), most, seed)
    return of_torch(data, most, seed)


def has_boxes(data: Data) -> bool:
    """Whether these are images with boxes, for detectors."""
    if isinstance(data, str):
        return parse_source(data).name in BOX_SOURCES
    return isinstance(data, BoxDataset)


def _images(data: Any, split: str, size: Size | None) -> BoxDataset:
    if isinstance(data, BoxDataset):
        return data
    if size is None:
        raise DataError("these data are images with boxes, for detectors", node=data)
    return open_boxes(data, size, split)


def steps_of(samples: Samples, steps: Sequence[int] | None, usual: Sequence[int]) -> list[int]:
    """Steps after which networks are looked at: `steps`, or `usual`; of sequences up to their end.

    Raises
    ------
    DataError
        If sequences have fewer steps.
    """
    longest = samples.steps
    if longest is None:
        return sorted(steps or usual)
    if steps is None:
        return up_to(longest, usual)
    if max(steps) > longest:
        raise DataError(
            "the sequences have fewer steps",
            node=samples.name,
            found=max(steps),
            allowed=f"up to {longest}",
        )
    return sorted(steps)


def up_to(longest: int, usual: Sequence[int]) -> list[int]:
    """The usual steps below the longest, and that."""
    return sorted({step for step in usual if step < longest} | {longest})
