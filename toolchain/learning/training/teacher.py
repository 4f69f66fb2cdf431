"""Knowledge distillation: a trained network whose outputs are learned beside the labels.

    loss = (1 - SHARE) * cross-entropy + SHARE * T^2 * KL(teacher at T || network at T)

with the softmax of both at temperature T. Source: Hinton, Vinyals and Dean, "Distilling the
Knowledge in a Neural Network" (2015), section 2.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, softmax

from toolchain.errors import DataError
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.device import Device, laid_out
from toolchain.learning.training.own_network import is_own
from toolchain.user_code import user_code

SHARE = 0.5
"""Of the loss; labels have the rest."""
TEMPERATURE = 4.0
"""Within 2.5 to 4, which the paper found best for networks with few units."""


class Teacher:
    """The network of a finished run, in evaluation, on the device of the run that it teaches.

    Raises
    ------
    CheckpointError
        If `folder` has no trained classifier.
    DataError
        If its samples, normalisation or classes are not those of the run.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        sample_shape: tuple[int, ...],
        class_names: tuple[str, ...],
        device: Device,
    ) -> None:
        kept = load_checkpoint(folder)
        expected = {
            "samples": (sample_shape, kept.sample_shape),
            "mean": (config.mean, kept.config.mean),
            "std": (config.std, kept.config.std),
            "classes": (class_names, kept.class_names),
        }
        for what, (own, found) in expected.items():
            if tuple(own) != tuple(found):
                raise DataError(
                    f"the teacher has other {what}", node=str(folder), found=found, allowed=own
                )
        model = kept.model.eval()
        # Forwards of others may call `view`, which fails in channels-last order.
        plain = is_own(kept.config.model)
        self.model: nn.Module = model.to(device.device) if plain else device.place(model)
        self.device, self.name = device, str(folder)

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """Logits float32 (n, K) for normalised samples (n, ...)."""
        x = laid_out(x.to(self.device.device), self.model)
        with user_code("the teacher's forward fails", self.name), self.device.autocast():
            outputs: Tensor = self.model(x)
        return outputs.float()


def taught(loss: Tensor, outputs: Tensor, teacher: Tensor) -> Tensor:
    """The loss by labels, a scalar, and the divergence of logits (n, K) from the teacher's."""
    wanted = softmax(teacher / TEMPERATURE, dim=1)
    found = log_softmax(outputs / TEMPERATURE, dim=1)
    divergence = kl_div(found, wanted, reduction="batchmean") * TEMPERATURE**2
    return (1 - SHARE) * loss + SHARE * divergence
