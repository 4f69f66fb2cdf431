"""A hash that a JSON document carries of itself, so that no change of it goes unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, uint8

from toolchain.canonical import canonical_json
from toolchain.errors import CheckpointError

SEAL = "sha256"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` with the SHA-256 of its canonical JSON as `sha256`."""
    return {**document, SEAL: _hash(document)}


def check_seal(document: Mapping[str, Any], node: str, remedy: str | None = None) -> None:
    """Raise CheckpointError if `document` is not what was sealed."""
    held = _hash({k: v for k, v in document.items() if k != SEAL})
    if document[SEAL] != held:
        raise CheckpointError(
            "changed since it was written",
            node=node,
            found=f"SHA-256 {held}",
            allowed=document[SEAL],
            remedy=remedy,
        )


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"\0{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()
