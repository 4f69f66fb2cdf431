"""Everything that decides a training run, saved next to its checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from toolchain.errors import CheckpointError, DataError


@dataclass(frozen=True)
class TrainConfig:
    """Defaults follow the official NQ code (METHODS: SGD 0.05, momentum 0.9, cosine, L = 4).

    Attributes
    ----------
    data, model, activation, width:
        Names as on the command line; `width` scales the channels of the model.
    levels:
        Quantization levels L (Q for CQReLU).
    initial_threshold:
        Start value of the trained threshold; the papers use 8.
    held_out:
        Fraction of the training split held out for every choice (10 %, as the papers).
    calibration_steps:
        Steps of the spiking network that sigma is estimated from (`val_sim_len`).
    train_limit:
        Use only so many training samples, drawn by the seed.
    mean, std:
        Normalisation a channel, before input quantization.
    """

    data: str
    model: str = "lenet"
    activation: str = "nq"
    width: float = 1.0
    levels: int = 4
    initial_threshold: float = 8.0
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    held_out: float = 0.1
    calibration_steps: int = 4
    train_limit: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        positive = {
            "levels": self.levels,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "initial_threshold": self.initial_threshold,
            "width": self.width,
            "calibration_steps": self.calibration_steps,
        }
        for name, value in positive.items():
            if not value > 0:
                raise DataError(f"{name} must be positive", node="training", found=value)
        if not 0 < self.held_out < 1:
            raise DataError(
                "held_out must lie between 0 and 1", node="training", found=self.held_out
            )

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of `as_dict`; an unknown field is a CheckpointError."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise CheckpointError(
                "unknown training settings", found=", ".join(unknown), allowed=", ".join(known)
            )
        fixed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fixed)
