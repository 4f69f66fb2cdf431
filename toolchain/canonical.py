"""Read-only arrays, canonical JSON and content hashes: the ground the programs stand on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def frozen_array(values: Any, dtype: type[np.generic] | np.dtype[Any]) -> np.ndarray:
    """Copy `values` into a C-contiguous read-only array of `dtype` (no value may change).

    Raises
    ------
    ValueError
        If the conversion would change a value (2.9 to 2, 300 to int8, NaN to an integer).
    """
    source = np.asarray(values)
    with np.errstate(invalid="ignore"):
        array = np.array(source, dtype=dtype, order="C", copy=True)
    if not np.array_equal(array, source, equal_nan=bool(array.dtype.kind == "f")):
        raise ValueError(f"values of dtype {source.dtype} do not survive conversion to {dtype}")
    array.setflags(write=False)
    return array


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(structure: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over canonical JSON and named integer arrays (as little-endian int64, C order).

    The storage dtype of an array does not enter the hash; its shape and values do.
    """
    digest = hashlib.sha256(canonical_json(structure).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}:{array.shape}:".encode())
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()
