"""Samples in every form: a data source, an array, a tensor, a torch Dataset or DataLoader.

Samples are (N, C, H, W), (N, H, W) or (N, F): uint8 pixels, read as pixel / 255, or floats, read
unchanged. Data sources and torch datasets also give labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data import (
    BoxDataset,
    Dataset,
    Samples,
    open_boxes,
    open_split,
    parse_source,
)
from toolchain.learning.data.boxes import Size
from toolchain.learning.data.dataset import choose_samples
from toolchain.learning.data.source import BOX_SOURCES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset

Data: TypeAlias = "str | Samples | np.ndarray | Tensor | TorchDataset[Any] | DataLoader[Any]"
FORMS = "a data source, an array, a tensor, a torch Dataset or DataLoader"
_PAIR = 2


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
        See `FORMS`. A torch Dataset or DataLoader gives samples or (sample, label) pairs.
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
        return _some(open_split(data, split), most, seed)
    if isinstance(data, Samples):
        return _some(data, most, seed)
    if isinstance(data, np.ndarray):
        return _some(Samples.of(data, "an array"), most, seed)
    return _of_torch(data, most, seed)


def has_boxes(data: Data) -> bool:
    """Whether these are images with boxes, for detectors."""
    if isinstance(data, str):
        return parse_source(data).name in BOX_SOURCES
    return isinstance(data, BoxDataset)


def _some(samples: Samples, most: int | None, seed: int) -> Samples:
    """The samples (N, ...), or `most` of them that the seed chooses."""
    if most is None or len(samples) <= most:
        return samples
    return samples.take(choose_samples(len(samples), most, seed))


def _images(data: Any, split: str, size: Size | None) -> BoxDataset:
    if isinstance(data, BoxDataset):
        return data
    if size is None:
        raise DataError("these data are images with boxes, for detectors", node=data)
    return open_boxes(data, size, split)


def _of_torch(data: Any, most: int | None, seed: int) -> Samples:
    """Samples of a tensor, Dataset or DataLoader; a stream is read from its start."""
    from torch import Tensor
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset

    name = f"a {type(data).__name__}"
    if isinstance(data, Tensor):
        return _some(Samples.of(_array(data, name), "a tensor"), most, seed)
    if isinstance(data, DataLoader):
        return _joined([_batch(item, name) for item in _first(data, most, name)], most, name)
    if not isinstance(data, TorchDataset):
        raise DataError("these are no samples", found=type(data).__name__, allowed=FORMS)
    items: Iterable[Any]
    if hasattr(data, "__len__"):
        total = len(data)
        rows = choose_samples(total, total if most is None else most, seed)
        items = (data[int(row)] for row in rows)
    else:
        items = _first(cast("Iterable[Any]", data), most, name)
    return _joined([_item(item, name) for item in items], most, name)


def _first(items: Iterable[Any], most: int | None, name: str) -> Iterable[Any]:
    """Items until they contain `most` samples."""
    count = 0
    for item in items:
        yield item
        first = _parts(item, name)[0]
        count += len(first) if hasattr(first, "__len__") else 1
        if most is not None and count >= most:
            return


def _parts(item: Any, name: str) -> tuple[Any, Any]:
    """Sample and label (None if missing) of one item of a torch Dataset or DataLoader."""
    if isinstance(item, tuple | list) and len(item) in (1, _PAIR):
        return (item[0], item[1] if len(item) == _PAIR else None)
    if isinstance(item, tuple | list | dict | str):
        raise DataError(
            "gives something else than samples, or pairs of sample and label",
            node=name,
            found=f"{type(item).__name__} of {len(item)}",
            remedy="wrap it in a Dataset that gives (sample, label)",
        )
    return (item, None)


_Batch = tuple[np.ndarray, np.ndarray | None]


def _batch(item: Any, name: str) -> _Batch:
    samples, labels = _parts(item, name)
    return _array(samples, name), None if labels is None else _labels(labels, name)


def _item(item: Any, name: str) -> _Batch:
    sample, label = _parts(item, name)
    return _array(sample, name)[None], None if label is None else _labels(label, name).reshape(1)


def _array(values: Any, name: str) -> np.ndarray:
    import torch

    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, torch.Tensor):
        raise DataError(
            "a sample must be a tensor or an array",
            node=name,
            found=type(values).__name__,
            remedy="give images a transform, such as torchvision.transforms.ToTensor()",
        )
    values = values.detach().cpu()
    # NumPy has no bfloat16; float32 represents each of its values
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def _labels(values: Any, name: str) -> np.ndarray:
    labels = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
    if labels.dtype.kind not in "iu":
        raise DataError("labels must be numbers of classes", node=name, found=labels.dtype)
    return labels.astype(np.int64)


def _joined(batches: list[_Batch], most: int | None, name: str) -> Samples:
    """All batches as one; labelled if every batch is."""
    if not batches:
        raise DataError("no samples", node=name)
    shapes = {samples.shape[1:] for samples, _ in batches}
    if len(shapes) > 1:
        raise DataError("samples differ in shape", node=name, found=sorted(shapes))
    samples = Samples.of(np.concatenate([samples for samples, _ in batches])[:most], name)
    labels = [labels for _, labels in batches if labels is not None]
    if len(labels) < len(batches):
        return samples
    return with_labels(samples, np.concatenate(labels)[:most])


def with_labels(samples: Samples, labels: Any) -> Dataset:
    """Add classes, int (N,), to `samples`.

    Raises
    ------
    DataError
        If they are not class numbers, or there is not exactly one per sample.
    """
    found = _labels(labels, samples.name)
    if found.ndim != 1 or not found.size:
        raise DataError(
            "one label per sample is needed", node=samples.name, found=f"shape {found.shape}"
        )
    names = tuple(str(i) for i in range(int(found.max()) + 1))
    return Dataset(samples.name, samples.samples, samples.pixel_max, found, names)
