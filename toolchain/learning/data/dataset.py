"""Samples in memory, with or without labels, and the split held out for every choice."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Self

AXES_OF_SEQUENCE = 4
"""Axes of a sample that has a tensor (C, H, W) for each step."""


@dataclass(frozen=True)
class Samples:
    """Samples as they are stored.

    Attributes
    ----------
    name:
        The source they came from, with split and slice.
    samples:
        (N, C, H, W) or (N, F), or sequences (N, T, C, H, W) with a tensor for each step; uint8
        pixels or counts, or float32 or float64 real values.
    pixel_max:
        Pixels are real values times this (255, or 16 for `digits`); None for counts and floats,
        which are real values themselves.
    """

    name: str
    samples: np.ndarray
    pixel_max: int | None

    def __post_init__(self) -> None:
        if len(self.samples) == 0:
            raise DataError("no samples", node=self.name)

    @classmethod
    def of(cls, array: np.ndarray, name: str) -> Samples:
        """From an array (N, C, H, W), (N, H, W), (N, F) or (N, T, C, H, W).

        Its values are uint8 pixels, or floats as they are.

        Raises
        ------
        DataError
            If it has other axes, or another type.
        """
        if array.ndim == 3:
            array = array[:, None]
        if array.ndim not in (2, 4, 5):
            raise DataError(
                "samples need 2 to 5 axes", node=name, found=array.shape, allowed="(N, ...)"
            )
        if array.dtype == np.uint8:
            return Samples(name, array, 255)
        if array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise DataError(
                "samples must be uint8 pixels or floats of up to 64 bits",
                node=name,
                found=array.dtype,
            )
        wide = np.promote_types(array.dtype.newbyteorder("="), np.float32)
        return Samples(name, array.astype(wide, copy=False), None)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (F,), of sequences (T, C, H, W)."""
        return tuple(int(s) for s in self.samples.shape[1:])

    @property
    def are_counts(self) -> bool:
        """Whether samples are numbers of events, uint8."""
        return self.pixel_max is None and self.samples.dtype == np.uint8

    @property
    def steps(self) -> int | None:
        """Length T of a sequence; None of still samples."""
        return self.sample_shape[0] if len(self.sample_shape) == AXES_OF_SEQUENCE else None

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest real value: of all pixels or counts there can be, or of floats."""
        if self.pixel_max is not None:
            return (0.0, 1.0)
        if self.are_counts:
            return (0.0, 255.0)
        return (float(self.samples.min()), float(self.samples.max()))

    @cached_property
    def sha256(self) -> str:
        """Hash of all samples, and labels if there are any, with their types and shapes."""
        digest = hashlib.sha256()
        for array in self._hashed():
            digest.update(f"{array.dtype.str}{array.shape}:".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _hashed(self) -> tuple[np.ndarray, ...]:
        return (self.samples,)

    def real(self) -> np.ndarray:
        """Real values, shape of `samples`: floats as they are, others in float32."""
        if self.pixel_max is None:
            return self.samples.astype(np.float32) if self.are_counts else self.samples
        return self.samples.astype(np.float32) / np.float32(self.pixel_max)

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Self:
        """The samples at `index`, in that order."""
        return replace(self, name=name or self.name, samples=self.samples[index])


@dataclass(frozen=True)
class Dataset(Samples):
    """Labelled samples.

    Attributes
    ----------
    labels:
        int64, (N,).
    class_names:
        One name per class.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels.shape != (len(self.samples),):
            raise DataError(
                "one label per sample is needed",
                node=self.name,
                found=f"{self.labels.shape} labels for {len(self.samples)} samples",
            )
        if self.labels.dtype.kind not in "iu" or self.labels.min() < 0:
            raise DataError("labels must be integers >= 0", node=self.name)
        if int(self.labels.max()) >= len(self.class_names):
            raise DataError(
                "a label has no class",
                node=self.name,
                found=int(self.labels.max()),
                allowed=f"0 .. {len(self.class_names) - 1}",
            )

    def _hashed(self) -> tuple[np.ndarray, ...]:
        return (self.samples, self.labels)

    def take(self, index: np.ndarray | slice, name: str | None = None) -> Self:
        """The samples at `index` with their labels, in that order."""
        return replace(
            self, name=name or self.name, samples=self.samples[index], labels=self.labels[index]
        )


def hold_out(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split into (rest, held out), stratified by class; equal seeds split alike.

    The held-out part serves every choice made during training (noise, epoch); the test set
    serves none. 10 % is the papers' value.
    """
    rng = np.random.default_rng(seed)
    chosen: list[np.ndarray] = []
    for label in np.unique(dataset.labels):
        members = np.flatnonzero(dataset.labels == label)
        count = max(1, round(fraction * len(members)))
        if count >= len(members):
            raise DataError(
                "too few samples to hold some out",
                node=dataset.name,
                found=f"{len(members)} of class {label}",
            )
        chosen.append(rng.permutation(members)[:count])
    held = np.sort(np.concatenate(chosen))
    rest = np.setdiff1d(np.arange(len(dataset)), held)
    return (
        dataset.take(rest, f"{dataset.name} less held out"),
        dataset.take(held, f"{dataset.name} held out"),
    )


def choose_samples(total: int, wanted: int, seed: int) -> np.ndarray:
    """Indices of `wanted` samples out of `total` (all, if there are fewer), sorted."""
    if total <= wanted:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, wanted, replace=False))
