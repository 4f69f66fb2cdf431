"""HDF5 groups with checked look-ups; every error names the path in the file."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from toolchain.documents import as_error, parse_json
from toolchain.errors import FormatError
from toolchain.program.synapse import Pair


class Group:
    """An HDF5 group whose look-ups check kind, type and shape."""

    def __init__(self, group: h5py.Group, file: str) -> None:
        self._group = group
        self._file = file

    def where(self, name: str = "") -> str:
        """Path of the file, and of `name` inside it, for messages."""
        return f"{self._file}:{self._group.name.rstrip('/')}/{name}".rstrip("/").rstrip(":")

    def _get(self, name: str, kind: type) -> Any:
        link = self._group.get(name, getlink=True)
        if link is None:
            raise FormatError(
                "is missing",
                node=self.where(name),
                found=", ".join(self._group) or "nothing",
                remedy="export it again",
            )
        if not isinstance(link, h5py.HardLink):
            raise FormatError("is a link to elsewhere", node=self.where(name))
        item = self._group[name]
        if not isinstance(item, kind):
            raise FormatError("is of the wrong kind", node=self.where(name), found=item)
        return item

    def group(self, name: str) -> Group:
        """The group `name`; FormatError if it is missing or no group."""
        return Group(self._get(name, h5py.Group), self._file)

    def is_group(self, name: str) -> bool:
        """Whether the existing item `name` is a group."""
        return self._group.get(name, getclass=True) is h5py.Group

    def names(self) -> list[str]:
        """Names of the groups and datasets here."""
        return list(self._group)

    def numbered(self, what: str, first: int = 0) -> list[str]:
        """Names of the items, which must count up from `first`; `what` names them in messages."""
        expected = [str(first + i) for i in range(len(self.names()))]
        if sorted(self.names(), key=lambda n: (len(n), n)) != expected:
            raise FormatError(f"{what} must be numbered from {first}", node=self.where())
        return expected

    def text(self, name: str) -> str:
        """A string, stored as a scalar or as in stock netx."""
        value = self._get(name, h5py.Dataset)
        if value.shape not in ((), (1,)):
            raise FormatError("is not one string", node=self.where(name), found=value.shape)
        data = value[0] if value.shape == (1,) else value[()]
        if not isinstance(data, bytes):
            raise FormatError("is not a string", node=self.where(name), found=value.dtype)
        return data.decode()

    def texts(self) -> dict[str, str]:
        """All strings in the group, by name."""
        kept = {n: item for n, item in self._group.items() if isinstance(item, h5py.Dataset)}
        return {n: self.text(n) for n, d in kept.items() if h5py.check_string_dtype(d.dtype)}

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object, stored as text."""
        with as_error(FormatError, "is not a JSON object", self.where(name)):
            return parse_json(self.text(name))

    def integers(self, name: str, axes: int) -> np.ndarray:
        """Integers in their stored type, with this number of axes."""
        dataset = self._get(name, h5py.Dataset)
        if dataset.dtype.kind not in "iu" or len(dataset.shape) != axes:
            raise FormatError(
                f"must hold integers with {axes} axes",
                node=self.where(name),
                found=f"{dataset.dtype} {dataset.shape}",
            )
        return np.asarray(dataset[()])

    def integer(self, name: str) -> int:
        """The scalar integer `name`; FormatError for anything else."""
        return int(self.integers(name, 0))

    def numbers(self, name: str) -> np.ndarray:
        """Integers, floats or booleans of any shape, in their stored type."""
        dataset = self._get(name, h5py.Dataset)
        if dataset.dtype.kind not in "iufb":
            raise FormatError("must hold numbers", node=self.where(name), found=dataset.dtype)
        return np.asarray(dataset[()])

    def number(self, name: str) -> float:
        """The one number of any type and shape in `name`, as float; FormatError for several."""
        values = self.numbers(name)
        if values.size != 1:
            raise FormatError("must be one number", node=self.where(name), found=values.shape)
        return float(values.item())

    def real(self, name: str) -> float:
        """The scalar float `name`; FormatError for anything else."""
        dataset = self._get(name, h5py.Dataset)
        if dataset.dtype.kind != "f" or dataset.shape != ():
            raise FormatError("must be one float", node=self.where(name), found=dataset.dtype)
        return float(dataset[()])

    def pair(self, name: str) -> Pair:
        """The two integers of the vector `name`; FormatError for another number of them."""
        values = self.integers(name, 1)
        if len(values) != 2:
            raise FormatError("must hold two integers", node=self.where(name), found=len(values))
        return (int(values[0]), int(values[1]))
