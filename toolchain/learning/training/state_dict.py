"""State dicts of whoever trained the network, read without running anything and fitted to a module.

Files hold the tensors themselves, or among other things (epochs, an optimizer, arguments); names
carry the prefixes of wrappers. All of that is recognised by what it is, and what does not fit is
listed.
"""

from __future__ import annotations

import argparse
import logging
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toolchain.documents import as_error
from toolchain.errors import CheckpointError
from toolchain.learning.models.foreign_weights import under_our_names

MOST_NAMED = 20
"""Tensors that one error lists."""
COUNTER = "num_batches_tracked"
"""A buffer of BatchNorm that nothing is computed with in evaluation; older files lack it."""
FIRST = ("state_dict", "model_state_dict", "model", "net")
"""Names under which training loops save the network, where a file holds several sets of tensors."""
_REASON = "WeightsUnpickler error: "
"""Stands before the reason in what torch says, behind advice on how to unpickle freely."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put in front of every name."""
_scalar: Any = np.float64(0).__reduce__()[0]
BESIDE_TENSORS: list[Any] = [
    argparse.Namespace,
    _scalar,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f4", "f8")},
]
"""Plain values that training loops save beside the tensors; torch refuses every other class."""
_log = logging.getLogger(__name__)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in `.safetensors`, or in a file of torch.save, also among other things there.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, holds classes that are not plain values, or no state
        dict, or several of which none has a usual name.
    """
    if not path.is_file():
        raise CheckpointError("no such file", node=str(path))
    with as_error(
        CheckpointError,
        "the weights cannot be read safely",
        str(path),
        "save model.state_dict() instead of the whole model, or a .safetensors file",
    ):
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            _check_stored(path)
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(BESIDE_TENSORS):
                warnings.simplefilter("ignore")  # what is wrong is said by the error that follows
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            told = str(error).rpartition(_REASON)[2].strip().partition("\n")[0]
            raise ValueError(told) from error
    return _tensors_in(loaded, path)


def _tensors_in(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict that a file is, or the one in it."""
    if _is_state_dict(loaded):
        return dict(loaded)  # type: ignore[call-overload]
    inside = {
        str(name): dict(value)
        for name, value in (loaded.items() if isinstance(loaded, dict) else ())
        if _is_state_dict(value) and value
    }
    usual = [name for name in FIRST if name in inside] or (list(inside) if len(inside) == 1 else [])
    if not usual:
        raise CheckpointError(
            "not a state dict" if not inside else "several state dicts, none of a usual name",
            node=str(path),
            found=", ".join(inside) or type(loaded).__name__,
            allowed=f"name: tensor, alone or as one of {', '.join(FIRST)}",
            remedy="torch.save(model.state_dict(), PATH)",
        )
    _log.info("%s: the weights are those under %r", path, usual[0])
    return inside[usual[0]]


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()
    )


def _check_stored(path: Path) -> None:
    """torch.save packs nothing; what does not lie in the file as it is may grow to any size."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"{size:,} bytes packed into {path.stat().st_size:,}")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into `model`, naming every tensor that does not match.

    Names of torchvision and timm are known for the networks that are here too.

    Raises
    ------
    CheckpointError
        If names are missing or unexpected, or shapes differ.
    """
    model.load_state_dict(check_fit(model, read_tensors(path), path))


def check_fit(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` by the names and in the shapes of `model`; CheckpointError as `load_weights`.

    What all names begin with is left out where it is a wrapper's, or the model's names begin
    without; a tensor of one value takes the shape of the model's; counters of BatchNorm may be
    missing.
    """
    expected = model.state_dict()
    tensors, original = fitted_names(model, tensors)
    problems = [f"missing {k}" for k in expected if k not in tensors]
    problems += [f"unexpected {original[k]}" for k in tensors if k not in expected]
    problems += [
        f"{k} has shape {tuple(tensors[k].shape)}, not {tuple(v.shape)}"
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if problems:
        told = "; ".join(str(p)[:120] for p in problems[:MOST_NAMED])
        more = len(problems) - MOST_NAMED
        raise CheckpointError(
            "the weights do not fit the network",
            node=str(path),
            found=f"{told}; and {more} more" if more > 0 else told,
        )
    return tensors


def fitted_names(
    model: nn.Module, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`tensors` under the names of `model` as far as they are known, and their own names by those.

    See `check_fit`.
    """
    expected = model.state_dict()
    original = {name: name for name in tensors}
    while set(tensors) - set(expected) and (prefix := _common_prefix(tensors)):
        shorter = {name.removeprefix(prefix): value for name, value in tensors.items()}
        fits_better = len(expected.keys() & shorter) > len(expected.keys() & tensors)
        if prefix not in WRAPPERS and not fits_better:
            break
        tensors = shorter
        original = {name.removeprefix(prefix): first for name, first in original.items()}
    if set(tensors) - set(expected):
        renamed = under_our_names(tensors)
        if len(expected.keys() & renamed.tensors) >= len(expected.keys() & tensors):
            tensors = renamed.tensors
            original = {new: original[old] for new, old in renamed.original.items()}
    for name, value in expected.items():
        if name not in tensors and name.rpartition(".")[2] == COUNTER:
            tensors[name] = value
        elif name in tensors and value.numel() == 1 == tensors[name].numel():
            tensors[name] = tensors[name].reshape(value.shape)
    return tensors, original


def _common_prefix(tensors: Mapping[str, Tensor]) -> str:
    """The first part of all names, with its dot; empty where they differ, or have one part."""
    first = {name.partition(".")[0] if "." in name else "" for name in tensors}
    return f"{first.pop()}." if len(first) == 1 and "" not in first else ""
