"""Samples in torch's forms: a tensor, a Dataset or a DataLoader, read into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.dataset import Dataset, Samples, choose_samples

FORMS = "a data source, an array, a tensor, a torch Dataset or DataLoader"
_PAIR = 2


def some_of(samples: Samples, most: int | None, seed: int) -> Samples:
    """The samples (N, ...), or `most` of them that the seed chooses."""
    if most is None or len(samples) <= most:
        return samples
    return samples.take(choose_samples(len(samples), most, seed))


def of_torch(data: Any, most: int | None, seed: int) -> Samples:
    """Samples of a tensor, Dataset or DataLoader; a stream is read from its start.

    All samples of a DataLoader that shuffles come in the order of its dataset, so that they are
    the same each time. Classes have the names in `classes` of a dataset, as torchvision's have.
    """
    from torch import Tensor
    from torch.utils.data import DataLoader, RandomSampler
    from torch.utils.data import Dataset as TorchDataset

    name = f"a {type(data).__name__}"
    if isinstance(data, Tensor):
        return some_of(Samples.of(_array(data, name), "a tensor"), most, seed)
    if isinstance(data, DataLoader):
        classes = getattr(data.dataset, "classes", None)
        if most is None and isinstance(data.sampler, RandomSampler):
            data = DataLoader(data.dataset, data.batch_size or 1, collate_fn=data.collate_fn)
        batches = [_batch(item, name) for item in _first(data, most, name)]
        return _joined(batches, most, name, classes)
    if not isinstance(data, TorchDataset):
        raise DataError("these are no samples", found=type(data).__name__, allowed=FORMS)
    items: Iterable[Any]
    if hasattr(data, "__len__"):
        total = len(data)
        rows = choose_samples(total, total if most is None else most, seed)
        items = (data[int(row)] for row in rows)
    else:
        items = _first(cast("Iterable[Any]", data), most, name)
    parts = [_item(item, name) for item in items]
    return _joined(parts, most, name, getattr(data, "classes", None))


def labelled(data: Any, name: str) -> Dataset:
    """All samples of a torch Dataset or DataLoader with their labels, under this name.

    Raises
    ------
    DataError
        If it is neither, or gives no labels.
    """
    found = of_torch(data, None, 0)
    if not isinstance(found, Dataset):
        raise DataError(
            "the samples have no labels",
            node=name,
            found=found.name,
            allowed="a torch Dataset or DataLoader of (sample, label)",
        )
    return replace(found, name=name)


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


def _joined(
    batches: list[_Batch], most: int | None, name: str, classes: Sequence[str] | None
) -> Samples:
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
    found = with_labels(samples, np.concatenate(labels)[:most])
    if classes is None or len(classes) < len(found.class_names):
        return found
    return replace(found, class_names=tuple(str(name) for name in classes))


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
