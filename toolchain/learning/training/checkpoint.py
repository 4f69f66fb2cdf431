"""Checkpoints: `model.safetensors` beside `checkpoint.json`; nothing is ever unpickled freely.

`checkpoint.json` holds the format version, the training configuration, the input description,
the class names, the history, the SHA-256 of the tensors file and that of all it says itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import torch
from msgspec import Meta
from safetensors.torch import save
from torch import Tensor, nn

from toolchain.canonical import SEAL, check_seal, sealed
from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import CheckpointError
from toolchain.files import atomic_write, file_sha256
from toolchain.learning.activations import ACTIVATIONS, CQReLU
from toolchain.learning.models import ActivationFactory, build_model
from toolchain.learning.models.parts import as_torch_starts
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.own_network import is_own, own_network
from toolchain.learning.training.settings import PLAIN_RELU, Settings
from toolchain.learning.training.state_dict import check_fit, read_tensors
from toolchain.learning.training.state_file import STATE_FILE
from toolchain.program.input_quantizer import InputQuantizer

if TYPE_CHECKING:
    from typing_extensions import Self

_Config = TypeVar("_Config", bound=Settings)
CHECKPOINT_VERSION = 2
"""Version of the format, raised whenever an older reader would misread a new file."""
STILL_VERSION = 1
"""Version without `frames`. A checkpoint is written in the lowest version it needs."""
CLASSIFICATION, DETECTION = "classification", "detection"
"""What a checkpoint is for; one that does not say is for the first."""
_KINDS = {
    CLASSIFICATION: (
        "classifier",
        "`spikeport detector evaluate` measures detectors; `convert` takes both",
    ),
    DETECTION: ("detector", "`spikeport detector train` makes one"),
}
MODEL_FILE = "model.safetensors"
INFO_FILE = "checkpoint.json"
MOST_VALUES = 1 << 28
"""Of a sample."""


@dataclass(frozen=True)
class TrainedModel(Generic[_Config]):
    """A trained network with all that is needed to rebuild and feed it; fields as in `Info`.

    Attributes
    ----------
    data_sha256:
        Of what it was trained on; None from before it was kept.
    frames:
        Steps of the sequences whose means it was trained on; None of still samples.
    """

    config: _Config
    model: nn.Module
    sample_shape: tuple[int, ...]
    pixel_max: int | None
    value_range: tuple[float, float]
    class_names: tuple[str, ...]
    history: list[dict[str, int | float]]
    epoch: int
    tensors_sha256: str
    data_sha256: str | None
    frames: int | None

    @classmethod
    def of(
        cls,
        info: Info,
        config: _Config,
        make: Callable[[], nn.Module],
        file: Path,
        *,
        outlined: bool = True,
    ) -> Self:
        """What `make` gives with the tensors in `file`; raises as `rebuilt`."""
        names = (f.name for f in fields(cls) if f.name not in ("config", "model"))
        return cls(
            config, rebuilt(make, file, outlined=outlined), *(getattr(info, name) for name in names)
        )

    def quantizer(self, bits: int = 8) -> InputQuantizer:
        """The input quantizer that its data and normalisation call for."""
        quantizer = make_quantizer(
            self.config, self.sample_shape, self.value_range, self.pixel_max, bits
        )
        return replace(quantizer, per_step=self.frames is not None)

    def provenance(self) -> dict[str, Any]:
        """What a converted program keeps of it."""
        return {
            "checkpoint_sha256": self.tensors_sha256,
            "training": self.config.as_dict(),
            "training_data_sha256": self.data_sha256,
            "epoch": self.epoch,
        }


class Checkpoint(TrainedModel[TrainConfig]):
    """A trained classifier: module, configuration, classes, and the input it was trained on."""


def make_quantizer(
    config: Settings,
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


def make_model(
    config: TrainConfig,
    sample_shape: tuple[int, ...],
    num_classes: int,
    samples: Tensor | None = None,
) -> nn.Module:
    """The network a configuration describes, initialised from its seed.

    A network of the user's starts from its weights and thresholds where `samples` are given (see
    `own_network`).

    Raises
    ------
    SpikeportError
        If there is no such network, or it does not take these samples.
    """
    activation = activation_factory(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if is_own(config.model):
            return own_network(config, sample_shape, samples)
        model = build_model(
            config.model, sample_shape, num_classes, activation, config.width, config.pooling
        )
        return as_torch_starts(model) if config.initial_weights == "torch" else model


def activation_factory(config: Settings) -> ActivationFactory:
    """What makes one activation of a network."""
    if config.activation == PLAIN_RELU:
        return nn.ReLU
    kind: Callable[..., nn.Module] = ACTIVATIONS[config.activation]
    if kind is CQReLU:
        return partial(kind, config.levels)
    return partial(kind, config.levels, config.initial_threshold)


@dataclass(frozen=True)
class Info:
    """What `checkpoint.json` says, of a classifier or a detector; field by field as written.

    Attributes
    ----------
    sha256:
        Of the rest (`canonical.sealed`); None in files from before it was kept.
    """

    format_version: int
    tensors_sha256: str
    config: dict[str, Any]
    class_names: tuple[str, ...]
    epoch: Annotated[int, Meta(ge=1)]
    history: list[dict[str, int | float]]
    task: str = CLASSIFICATION
    sample_shape: tuple[Annotated[int, Meta(ge=1, le=MOST_VALUES)], ...] = ()
    pixel_max: Annotated[int, Meta(ge=1, le=65535)] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    data_sha256: str | None = None
    frames: Annotated[int, Meta(ge=1)] | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.epoch > len(self.history):
            raise ValueError(f"epoch {self.epoch} of a history of {len(self.history)}")
        if not self.class_names or prod(self.sample_shape) > MOST_VALUES:
            raise ValueError(f"{len(self.class_names)} classes, samples of {self.sample_shape}")
        if not -inf < self.value_range[0] <= self.value_range[1] < inf:
            raise ValueError(f"values of {self.value_range}")


def save_checkpoint(folder: Path, info: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files, each atomically; `info` gets version, hash of the tensors, and its own."""
    data = save({k: v.contiguous() for k, v in tensors.items()})
    info = {
        "format_version": CHECKPOINT_VERSION if "frames" in info else STILL_VERSION,
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        **info,
    }
    atomic_write(folder / MODEL_FILE, data)
    atomic_write(folder / INFO_FILE, (json.dumps(sealed(info), indent=1) + "\n").encode())


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder and rebuild its network, in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the version is unknown, or the tensors do not fit.
    """
    info, file = read_checkpoint(folder, CLASSIFICATION)
    config = TrainConfig.from_dict(info.config)

    def make() -> nn.Module:
        return make_model(config, info.sample_shape, len(info.class_names))

    return Checkpoint.of(info, config, make, file, outlined=not is_own(config.model))


def rebuilt(make: Callable[[], nn.Module], model_file: Path, *, outlined: bool = True) -> nn.Module:
    """What `make` gives with the tensors in `model_file`, in evaluation mode.

    If `outlined`, the tensors are compared with an outline of the network first: one that they do
    not belong to may need any amount of memory.

    Raises
    ------
    CheckpointError
        If the file is damaged, or its tensors do not fit.
    """
    tensors = read_tensors(model_file)
    with as_error(CheckpointError, "the settings make no network", str(model_file.parent)):
        if outlined:
            with torch.device("meta"):
                outline = make()
            check_fit(outline, tensors, model_file)
        model = make()
    model.load_state_dict(check_fit(model, tensors, model_file))
    return model.eval()


def read_checkpoint(folder: Path, task: str | None = None) -> tuple[Info, Path]:
    """What `checkpoint.json` says, and the tensors' file, whose hash has been checked.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the version is unknown, or it is not for `task`.
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
    with as_error(CheckpointError, "damaged", str(info_file)):
        values = parse_json(read_text(info_file))
        if values.get("format_version") not in (STILL_VERSION, CHECKPOINT_VERSION):
            raise CheckpointError(
                "unknown checkpoint version",
                node=str(info_file),
                found=str(values.get("format_version"))[:80],
                allowed=f"{STILL_VERSION}, {CHECKPOINT_VERSION}",
            )
        info = typed(Info, values)
        if SEAL in values:
            check_seal(values, CheckpointError, str(info_file))
    model_file = folder / MODEL_FILE
    if not model_file.is_file():
        raise CheckpointError("the tensors are missing", node=str(model_file))
    found = file_sha256(model_file)
    if found != info.tensors_sha256:
        command = "train" if info.task == CLASSIFICATION else "detector train"
        again = f"`{command} --config {folder}/config.toml --out {folder}` once more mends it"
        killed = (folder / STATE_FILE).is_file()
        raise CheckpointError(
            "the tensors are not those the checkpoint was saved with",
            node=str(model_file),
            found=found,
            allowed=info.tensors_sha256,
            remedy=f"if the run was killed between writing the two, {again}" if killed else None,
        )
    if task not in (None, info.task):
        name, remedy = _KINDS[task]
        raise CheckpointError(
            f"this is not a {name}'s checkpoint", node=str(folder), found=info.task, remedy=remedy
        )
    return info, model_file
