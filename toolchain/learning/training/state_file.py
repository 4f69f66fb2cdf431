"""The file a training run is kept in between two epochs, `last.safetensors`.

It is replaced atomically after each epoch: a killed run loses at most the epoch it was in. All
random numbers of epoch e come from (seed, e), so no generator state needs to be kept. What it
holds is hashed: a run never continues from a damaged state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, uint8

from toolchain.canonical import SEAL, check_seal, sealed
from toolchain.documents import as_error, parse_json
from toolchain.errors import CheckpointError, SpikeportError
from toolchain.files import atomic_write
from toolchain.learning.training.settings import Settings

STATE_FILE = "last.safetensors"
_TENSORS = "tensors_sha256"


def write_state(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors by name, and the rest as JSON, into `folder`."""
    document = sealed({**state, _TENSORS: tensors_sha256(tensors)})
    packed = save({k: v.contiguous() for k, v in tensors.items()}, {"state": json.dumps(document)})
    atomic_write(folder / STATE_FILE, packed)


def read_state(
    folder: Path, settings: Settings, data_sha256: str
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """What `write_state` wrote; None if there is nothing.

    Raises
    ------
    CheckpointError
        If the file is damaged or of an earlier version, or its "config" is not `settings`, or
        the run began on other data than those of `data_sha256`.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    remedy = f"the run cannot be continued: remove {STATE_FILE} to begin it anew"
    with (
        as_error(CheckpointError, "damaged training state", str(path), remedy),
        safe_open(path, framework="pt") as file,
    ):
        state = parse_json((file.metadata() or {})["state"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    if SEAL not in state or _TENSORS not in state:
        raise CheckpointError(
            "the state of a run that an earlier version began", node=str(path), remedy=remedy
        )
    check_seal(state, CheckpointError, str(path), remedy)
    if tensors_sha256(tensors) != state[_TENSORS]:
        raise CheckpointError("damaged training state", node=str(path), remedy=remedy)
    check_settings(folder, state["config"], settings)
    if state.get("data_sha256", data_sha256) != data_sha256:
        raise CheckpointError(
            "the folder holds a run on other data",
            node=str(folder),
            found=f"SHA-256 {state['data_sha256']}",
            allowed=f"{data_sha256}, of the data as they are now",
            remedy="choose another folder=",
        )
    return state, tensors


def check_settings(folder: Path, found: dict[str, Any], settings: Settings) -> None:
    """Raise CheckpointError if the run in `folder`, whose "config" is `found`, has other ones."""
    try:
        theirs = type(settings).from_dict(found).as_dict()
    except SpikeportError as error:
        raise CheckpointError(
            "the folder holds a run of another kind",
            node=str(folder),
            found=error.found,
            remedy="choose another folder=",
        ) from error
    wanted = settings.as_dict()
    different = [k for k in wanted if theirs[k] != wanted[k]]
    if different:
        remedy = "choose another folder=, or repeat the run's own settings to continue it"
        if different == ["epochs"] and "init" in wanted:
            remedy = f'choose another folder=, with init="{folder}" to train on from this run'
        raise CheckpointError(
            "the folder holds a run with other settings",
            node=str(folder),
            found="; ".join(f"{k}={theirs[k]}" for k in different),
            allowed="; ".join(f"{k}={wanted[k]}" for k in different),
            remedy=remedy,
        )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"\0{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those called `name/...`, without it."""
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
