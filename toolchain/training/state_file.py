"""The file a training run is kept in between two epochs, `last.safetensors`.

It is replaced atomically after each epoch: a killed run loses at most the epoch it was in. All
random numbers of epoch e come from (seed, e), so no generator state needs to be kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from toolchain.errors import CheckpointError
from toolchain.files import atomic_write

STATE_FILE = "last.safetensors"


def write_state(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors by name, and the rest as JSON, into `folder`."""
    metadata = {"state": json.dumps(dict(state))}
    packed = save({k: v.contiguous() for k, v in tensors.items()}, metadata)
    atomic_write(folder / STATE_FILE, packed)


def read_state(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """What `write_state` wrote; None if there is nothing.

    Raises
    ------
    CheckpointError
        If the file is damaged, or its "config" is not `settings`.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError("damaged training state", node=str(path), found=error) from error
    different = [k for k in settings if state["config"].get(k) != settings[k]]
    if different:
        raise CheckpointError(
            "the folder holds a run with other settings",
            node=str(folder),
            found="; ".join(f"{k}={state['config'].get(k)}" for k in different),
            allowed="; ".join(f"{k}={settings[k]}" for k in different),
            remedy="choose another --out, or repeat the run's own settings to continue it",
        )
    return state, tensors


def part_of(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those called `name/...`, without it."""
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
