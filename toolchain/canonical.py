"""Read-only arrays, canonical JSON, and hashes of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from toolchain.errors import SpikeportError

SEAL = "sha256"
"""Key under which a JSON document stores its own hash, so that every change is detected."""
HASHED_AT_ONCE = 1 << 20
"""Values that are hashed at once, so that a large array is not copied as a whole."""


def frozen_array(values: Any, dtype: type[np.generic] | np.dtype[Any]) -> np.ndarray:
    """`values` as a C-contiguous read-only array of `dtype`, every value unchanged.

    The result is a copy, unless `values` is such an array and nobody can write to its memory.

    Raises
    ------
    ValueError
        If the conversion would change a value (2.9 to 2, 300 to int8, NaN to an integer).
    """
    source = np.asarray(values)
    if _is_frozen(source) and source.dtype == dtype:
        return source
    with np.errstate(invalid="ignore"):
        array = np.array(source, dtype=dtype, order="C", copy=True)
    safe = np.can_cast(source.dtype, array.dtype, "safe")
    if not safe and not np.array_equal(array, source, equal_nan=bool(array.dtype.kind == "f")):
        raise ValueError(f"values of dtype {source.dtype} do not survive conversion to {dtype}")
    array.setflags(write=False)
    return array


def handed_over(array: np.ndarray) -> np.ndarray:
    """Make a fresh array read-only, so that `frozen_array` keeps it without a copy.

    No other reference to the array may exist.
    """
    array.setflags(write=False)
    return array


def _is_frozen(array: np.ndarray) -> bool:
    """Whether the array is C-contiguous, read-only and owns all of its memory."""
    return bool(array.flags.c_contiguous and array.flags.owndata and not array.flags.writeable)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and without spaces, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the SHA-256 of its canonical JSON as `sha256`, replacing an earlier one."""
    return {**document, SEAL: _sealing(document)}


def check_seal(
    document: Mapping[str, Any], kind: type[SpikeportError], node: str, remedy: str | None = None
) -> None:
    """Raise `kind` if `document` was changed after it was sealed."""
    held = _sealing(document)
    if document[SEAL] != held:
        raise kind(
            "changed since it was written",
            node=node,
            found=f"SHA-256 {held}",
            allowed=document[SEAL],
            remedy=remedy,
        )


def _sealing(document: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in document.items() if key != SEAL}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def content_hash(structure: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over canonical JSON and named integer arrays (as little-endian int64, C order).

    The hash covers shapes and values, not the storage dtypes.
    """
    digest = hashlib.sha256(canonical_json(structure).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}:{array.shape}:".encode())
        flat = np.ascontiguousarray(array).reshape(-1)
        for start in range(0, flat.size, HASHED_AT_ONCE):
            digest.update(flat[start : start + HASHED_AT_ONCE].astype("<i8").data)
    return digest.hexdigest()
