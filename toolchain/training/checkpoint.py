"""Checkpoints: `model.safetensors` beside `checkpoint.json`; nothing is ever unpickled freely.

`checkpoint.json` holds the format version, the training configuration, the input description,
the class names, the history and the SHA-256 of the tensors file. Weights of other projects may
come as `.safetensors` or, read with `weights_only`, as `.pt`/`.pth`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from toolchain.activations import ACTIVATIONS, CQReLU
from toolchain.errors import CheckpointError
from toolchain.files import atomic_write, file_sha256
from toolchain.models import ActivationFactory, build_model
from toolchain.models.foreign_weights import under_our_names
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.training.config import TrainConfig

CHECKPOINT_VERSION = 1
CLASSIFICATION = "classification"
"""What a checkpoint is for that does not say."""
MODEL_FILE = "model.safetensors"
INFO_FILE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network with all that is needed to rebuild and feed it."""

    config: TrainConfig
    model: nn.Module
    sample_shape: tuple[int, ...]
    pixel_max: int | None
    value_range: tuple[float, float]
    class_names: tuple[str, ...]
    history: list[dict[str, float]]
    epoch: int
    tensors_sha256: str
    data_sha256: str | None = None
    """Of the samples and labels it was trained on; None from before it was kept."""


PLAIN_RELU = "relu"
"""Trains a plain ReLU network; its thresholds are chosen when it is converted."""


def make_quantizer(
    config: TrainConfig,
    sample_shape: tuple[int, ...],
    value_range: tuple[float, float],
    pixel_max: int | None,
    bits: int = 8,
) -> InputQuantizer:
    """The input quantizer that a network's training data and normalisation call for."""
    return InputQuantizer.for_interval(
        sample_shape,
        *value_range,
        bits=bits,
        mean=config.mean,
        std=config.std,
        levels=pixel_max,
    )


def make_model(config: TrainConfig, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The untrained network a configuration describes, initialised from its seed.

    Raises
    ------
    CheckpointError
        If there is no such activation.
    DataError
        If there is no such network, or it does not take these samples.
    """
    activation = activation_factory(config.activation, config.levels, config.initial_threshold)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(
            config.model, sample_shape, num_classes, activation, config.width, config.pooling
        )


def activation_factory(name: str, levels: int, initial_threshold: float) -> ActivationFactory:
    """What makes one activation of the kind called `name`.

    Raises
    ------
    CheckpointError
        If there is no such activation.
    """
    if name not in (*ACTIVATIONS, PLAIN_RELU):
        raise CheckpointError(
            "no such activation", node=name, allowed=", ".join((*ACTIVATIONS, PLAIN_RELU))
        )

    def activation() -> nn.Module:
        if name == PLAIN_RELU:
            return nn.ReLU()
        kind = ACTIVATIONS[name]
        if kind is CQReLU:
            return CQReLU(levels)
        return kind(levels, initial_threshold)  # type: ignore[call-arg]

    return activation


def save_checkpoint(folder: Path, info: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, each atomically; `info` gets the format version and the tensors' hash."""
    data = save({k: v.contiguous() for k, v in tensors.items()})
    info = {
        "format_version": CHECKPOINT_VERSION,
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        **info,
    }
    atomic_write(folder / MODEL_FILE, data)
    atomic_write(folder / INFO_FILE, (json.dumps(info, indent=1) + "\n").encode())


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder and rebuild its network, in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the version is unknown, or the tensors do not fit.
    """
    info, model_file = read_checkpoint(folder)
    if info.get("task", CLASSIFICATION) != CLASSIFICATION:
        raise CheckpointError(
            "this is not a classifier's checkpoint",
            node=str(folder),
            found=info["task"],
            remedy="`spikeport detector evaluate` measures detectors; `convert` takes both",
        )
    config = TrainConfig.from_dict(info["config"])
    shape = tuple(int(s) for s in info["sample_shape"])
    model = make_model(config, shape, len(info["class_names"]))
    load_weights(model, model_file)
    model.eval()
    return Checkpoint(
        config=config,
        model=model,
        sample_shape=shape,
        pixel_max=info["pixel_max"],
        value_range=(info["value_range"][0], info["value_range"][1]),
        class_names=tuple(info["class_names"]),
        history=info["history"],
        epoch=info["epoch"],
        tensors_sha256=info["tensors_sha256"],
        data_sha256=info.get("data_sha256"),
    )


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], Path]:
    """What `checkpoint.json` says, and the tensors' file, whose hash has been checked.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or the version is unknown.
    """
    info_file = folder / INFO_FILE
    if not info_file.is_file():
        raise CheckpointError(
            "not a checkpoint folder",
            node=str(folder),
            found=f"no {INFO_FILE}",
            remedy="`spikeport train ... --out RUN` makes one; a network of your own is given to "
            "`spikeport convert` as FILE.py:FACTORY, and measured with `spikeport run NET.net "
            "--data SOURCE`",
        )
    try:
        info = json.loads(info_file.read_text())
    except ValueError as error:
        raise CheckpointError("damaged", node=str(info_file), found=error) from error
    if info.get("format_version") != CHECKPOINT_VERSION:
        raise CheckpointError(
            "unknown checkpoint version",
            node=str(info_file),
            found=info.get("format_version"),
            allowed=CHECKPOINT_VERSION,
        )
    model_file = folder / MODEL_FILE
    if not model_file.is_file():
        raise CheckpointError("the tensors are missing", node=str(model_file))
    found = file_sha256(model_file)
    if found != info["tensors_sha256"]:
        raise CheckpointError(
            "the tensors are not those the checkpoint was saved with",
            node=str(model_file),
            found=found,
            allowed=info["tensors_sha256"],
        )
    return info, model_file


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict from `.safetensors`, or from a pickled file read with `weights_only`.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError("no such file", node=str(path))
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            "the weights cannot be read safely",
            node=str(path),
            found=str(error).splitlines()[0],
            allowed="a .safetensors file, or a state dict saved with torch.save",
            remedy="save model.state_dict() instead of the whole model",
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(
            "not a state dict", node=str(path), found=type(loaded).__name__, allowed="name: tensor"
        )
    return loaded


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into `model`, naming every tensor that does not match.

    Names of torchvision and timm are known for the networks that are here too.

    Raises
    ------
    CheckpointError
        If names are missing or unexpected, or shapes differ.
    """
    tensors, expected = read_tensors(path), model.state_dict()
    original = {name: name for name in tensors}
    if set(tensors) - set(expected):
        renamed = under_our_names(tensors)
        tensors, original = renamed.tensors, renamed.original
    problems = [f"missing {k}" for k in expected if k not in tensors]
    problems += [f"unexpected {original[k]}" for k in tensors if k not in expected]
    problems += [
        f"{k} has shape {tuple(tensors[k].shape)}, not {tuple(v.shape)}"
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if problems:
        raise CheckpointError(
            "the weights do not fit the network", node=str(path), found="; ".join(problems)
        )
    model.load_state_dict(tensors)
