"""What a user would take instead: the float network itself, and other simulators.

Each function returns a call that runs one batch of images. The float network is the same for all;
simulators have their own IF neurons (reset by subtraction, threshold 2) in place of its
activations, and compute in float32 as their documentation shows. None of them is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.seeded_networks import source_network
from toolchain.learning.activations import QCFS

Way = Callable[[], Any]
SHAPE = (3, 32, 32)
THRESHOLD = 2.0
CALIBRATED = 8
"""Batches on which onnxruntime chooses its scales: `ann_int8`."""
STATELESS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten)
PACKAGES = ("spikingjelly", "sinabs", "snntorch", "onnxruntime")


def versions() -> dict[str, str]:
    """Those of the installed packages."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def network(model: str, make: Callable[[], nn.Module]) -> Any:
    """The float network with `make()` for each of its activations."""
    net = source_network(model, SHAPE)
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, QCFS):
                setattr(module, name, make())
    return net


def _forward(net: nn.Module, x: Tensor) -> Way:
    @torch.no_grad()
    def run() -> Tensor:
        result: Tensor = net(x)
        return result

    return run


def ann(model: str, batch: int, *, compiled: bool = False) -> Way:
    """A forward of the float32 network with ReLUs, channels last; or under torch.compile."""
    net = network(model, nn.ReLU).to(memory_format=torch.channels_last)
    x = torch.rand(batch, *SHAPE).to(memory_format=torch.channels_last)
    return _forward(torch.compile(net) if compiled else net, x)


def ann_int8(model: str, batch: int) -> Way:
    """The network with ReLUs in onnxruntime's int8, scales from its static calibration on noise."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = CALIBRATED

        def get_next(self) -> dict[str, Any] | None:
            self._left -= 1
            return {"x": torch.rand(batch, *SHAPE).numpy()} if self._left >= 0 else None

    x = torch.rand(batch, *SHAPE)
    with TemporaryDirectory() as folder:
        path, prepared, quantized = (Path(folder) / f"{n}.onnx" for n in ("float", "pre", "int8"))
        net = network(model, nn.ReLU)
        torch.onnx.export(net, (x,), str(path), input_names=["x"], dynamo=False)
        quant_pre_process(path, prepared)
        quantize_static(
            prepared, quantized, Noise(), per_channel=True, activation_type=QuantType.QUInt8
        )
        options = onnxruntime.SessionOptions()
        # Its idle threads would take a processor from what is measured next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            quantized, options, providers=["CPUExecutionProvider"]
        )
    return partial(session.run, None, {"x": x.numpy()})


def spikingjelly(
    model: str, batch: int, steps: int, *, multi: bool = True, compiled: bool = False
) -> Way:
    """SpikingJelly step by step, or all steps at once with layers folded over time."""
    from spikingjelly.activation_based import functional, layer, neuron

    mode = "m" if multi else "s"
    net = network(model, lambda: neuron.IFNode(THRESHOLD, v_reset=None, step_mode=mode))
    x = torch.rand(batch, *SHAPE)
    if multi:
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, STATELESS):
                    setattr(module, name, layer.SeqToANNContainer(child))
        x = x.expand(steps, *x.shape).contiguous()
    forward = torch.compile(net) if compiled else net

    @torch.no_grad()
    def run() -> Tensor:
        functional.reset_net(net)
        result: Tensor = forward(x).mean(0) if multi else sum(forward(x) for _ in range(steps))
        return result

    return run


def sinabs(model: str, batch: int, steps: int) -> Way:
    """Sinabs, all steps at once, with one spike per step at most."""
    from sinabs import reset_states
    from sinabs.activation import SingleSpike
    from sinabs.layers import IAFSqueeze

    threshold = torch.tensor(THRESHOLD)
    net = network(
        model,
        lambda: IAFSqueeze(batch_size=batch, spike_threshold=threshold, spike_fn=SingleSpike),
    )
    x = torch.rand(batch, *SHAPE).repeat_interleave(steps, 0)

    @torch.no_grad()
    def run() -> Tensor:
        reset_states(net)
        result: Tensor = net(x)
        return result

    return run


def snntorch(model: str, batch: int, steps: int) -> Way:
    """snnTorch, step by step."""
    from snntorch import Leaky
    from snntorch.utils import reset

    net = network(
        model,
        lambda: Leaky(1.0, THRESHOLD, init_hidden=True, reset_mechanism="subtract"),
    )
    x = torch.rand(batch, *SHAPE)

    @torch.no_grad()
    def run() -> Tensor:
        reset(net)
        result: Tensor = sum(net(x) for _ in range(steps))
        return result

    return run


_COMPILED = partial(spikingjelly, compiled=True)
NAMES: Mapping[str, tuple[str, Callable[[str, int, int], Way]]] = {
    "SpikingJelly, single-step": ("spikingjelly", partial(spikingjelly, multi=False)),
    "SpikingJelly, multi-step": ("spikingjelly", spikingjelly),
    "SpikingJelly, multi-step, torch.compile": ("spikingjelly", _COMPILED),
    "sinabs": ("sinabs", sinabs),
    "snnTorch": ("snntorch", snntorch),
}
"""Simulators by the names of their rows: package, and function of model, batch and steps."""


def simulators() -> dict[str, Callable[[str, int, int], Way]]:
    """Those that are installed."""
    there = versions()
    return {name: make for name, (package, make) in NAMES.items() if package in there}
