"""Where and in which precision a run trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolchain.errors import DataError
from toolchain.torch_private import processor_has

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bf16")


@dataclass(frozen=True)
class Device:
    """A device with the precision its forward and backward passes run in.

    Parameters, statistics and the loss stay float32; bf16 is autocast. What is measured (sigma,
    accuracies) always runs in float32.
    """

    device: torch.device
    bf16: bool

    @property
    def name(self) -> str:
        """For the log: "cpu bf16, 2 threads"; the order of sums depends on their number."""
        precision = "bf16" if self.bf16 else "float32"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.device.type} {precision}{threads}"

    def autocast(self) -> AbstractContextManager[object]:
        """Context of the training passes."""
        if not self.bf16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def place(self, model: nn.Module) -> nn.Module:
        """Move a network here, its convolutions in channels-last order where that works."""
        model.to(self.device)
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        breaks = self.device.type == "cpu" and any(map(_breaks_memory, convolutions))
        if convolutions and not breaks:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model


def laid_out(x: Tensor, model: nn.Module) -> Tensor:
    """A batch (n, ...) in the order of the network's convolutions, if it has any."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    order = torch.channels_last
    last = x.ndim == 4 and weights and all(w.is_contiguous(memory_format=order) for w in weights)
    return x.contiguous(memory_format=order) if last else x


def _breaks_memory(layer: nn.Conv2d) -> bool:
    """Whether torch 2.13's oneDNN writes behind its gradient in channels-last order.

    Found by trial: with 2 to 7 input channels, a 1x1 kernel and stride 2 the heap is damaged.
    """
    return 1 < layer.in_channels < 8 and layer.kernel_size == (1, 1) and layer.stride != (1, 1)


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """The device and precision asked for; "auto" takes a GPU, and bf16 where it is native.

    On a GPU, float32 matrix products may use TF32.

    Raises
    ------
    DataError
        If there is no such choice, or no GPU.
    """
    if device not in DEVICES:
        raise DataError("no such device", node=device, allowed=", ".join(DEVICES))
    if precision not in PRECISIONS:
        raise DataError("no such precision", node=precision, allowed=", ".join(PRECISIONS))
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise DataError(
            "no CUDA device is available", node=device, remedy='use device="cpu", or device="auto"'
        )
    chosen = torch.device("cuda" if has_gpu and device != "cpu" else "cpu")
    if chosen.type == "cuda":
        torch.set_float32_matmul_precision("high")
    native = _has_native_bf16(chosen)
    return Device(chosen, native if precision == "auto" else precision == "bf16")


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return processor_has("avx512_bf16") or processor_has("amx_tile")
