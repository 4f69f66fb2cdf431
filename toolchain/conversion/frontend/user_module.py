"""The user's network: whether it can be converted, and its outputs.

The module is called in evaluation mode and in float64 on the CPU, whatever type and device
its parameters have, and always inside the guard of `user_code`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from toolchain.conversion.frontend.forwards import InDouble, without_noise
from toolchain.errors import ConversionError, SpikeportError, UnsupportedModuleError
from toolchain.learning.activations import ActivationMode, activation_mode
from toolchain.user_code import home_of, share_home, user_code

FEW = 2
"""Number of samples on which two forward passes are compared."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside torch.compile and DataParallel wrappers, which compute the same."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def derived(model: nn.Module, forward: Callable[..., Any]) -> nn.Module:
    """The network with another forward; it shares its modules and parameters."""
    kind = type(model)
    made = copy(model)
    made.__class__ = type(
        kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__}
    )
    share_home(model, made)
    return made


def check_readable(model: nn.Module) -> None:
    """Raise an error for networks without Python code, and for parameters without values.

    Raises
    ------
    UnsupportedModuleError
        If the network cannot be read. The error names the module or tensor.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                "a TorchScript module holds no Python that can be traced",
                node=name or type(model).__name__,
                remedy="give the nn.Module that was scripted, with its state_dict as weights=",
            )
    for name, tensor in _tensors(model):
        if is_lazy(tensor):
            raise UnsupportedModuleError(
                "a lazy module has no values before its first sample",
                node=name,
                remedy="run the network once on a sample in its factory",
            )
        if tensor.is_meta:
            raise UnsupportedModuleError(
                "a tensor on the meta device has no values",
                node=name,
                remedy="make the network on the CPU, and load its weights there (weights=)",
            )
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            raise UnsupportedModuleError(
                "only plain tensors of real numbers can be converted",
                node=name,
                found=f"{tensor.dtype}, {tensor.layout}",
                allowed="float16, bfloat16, float32, float64",
            )


def narrow_types(model: nn.Module) -> list[str]:
    """Floating types of the parameters that are narrower than float32."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return sorted(str(k).removeprefix("torch.") for k in kinds if torch.finfo(k).bits < 32)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the `with` block; afterwards each module has its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        if model.training is not modes[0][1]:
            model.train(modes[0][1])
        for module, training in modes:
            module.training = training


def outputs(
    model: nn.Module,
    samples: Tensor,
    mode: ActivationMode = ActivationMode.CLIPPED,
    *,
    equal: Mapping[str, np.ndarray] = MappingProxyType({}),
    at_once: int | None = None,
) -> list[Tensor]:
    """Outputs of the network for samples (N, ...): (N, ...) each, float64.

    Parameters
    ----------
    mode:
        Mode of the project's own activations.
    equal:
        Read-only float64 arrays by name of a parameter. Where the values are equal, the array takes
        the place of a copy; it has the same values again afterwards, whatever the network wrote.
    at_once:
        Number of samples of one forward; by default all.

    Raises
    ------
    UnsupportedModuleError
        If the network's code fails. The error names the line.
    """
    own = dict(_tensors(model))
    lent = {n: a for n, a in equal.items() if n in own and _holds(a, own[n])}
    tensors = _in_double(model, lent)

    def forward(batch: Tensor) -> list[Tensor]:
        found = _forward(model, tensors, batch, mode)
        if len(batch) == 1 and any(isinstance(o, Tensor) and o.shape[:1] != (1,) for o in found):
            # A network that squeezes drops the axis of a single sample: here with a copy of it.
            found = [o[:1] for o in _forward(model, tensors, torch.cat([batch, batch]), mode)]
        return found

    try:
        parts = [forward(batch) for batch in torch.split(samples, at_once or len(samples))]
    finally:
        for name, array in lent.items():
            if not _holds(array, own[name]):
                tensors[name].copy_(own[name])
    return parts[0] if len(parts) == 1 else [torch.cat(each) for each in zip(*parts, strict=True)]


def _holds(array: np.ndarray, tensor: Tensor) -> bool:
    """Whether an array and a tensor on the CPU in float32 or float64 have the same values."""
    plain = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    if not plain or array.shape != tensor.shape:
        return False
    rows = zip(array, tensor.detach().numpy(), strict=True)
    return all(np.array_equal(a, b) for a, b in rows)  # of all at once: a large array of bools


def sharing(array: np.ndarray) -> Tensor:
    """A tensor in the memory of an array, which may be read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _in_double(
    model: nn.Module, lent: Mapping[str, np.ndarray] = MappingProxyType({})
) -> dict[str, Tensor]:
    """The arrays of `lent`, and copies of other parameters and buffers on the CPU.

    Floating types are float64.
    """
    return {
        name: sharing(lent[name])
        if name in lent
        else t.detach().to("cpu", torch.float64 if t.is_floating_point() else t.dtype, copy=True)
        for name, t in _tensors(model)
    }


@torch.no_grad()
def _forward(
    model: nn.Module,
    tensors: dict[str, Tensor],
    samples: Tensor,
    mode: ActivationMode = ActivationMode.CLIPPED,
) -> list[Tensor]:
    """Compute `outputs` with `tensors` in place of the network's own, which hooks may overwrite."""
    with (
        user_code("the network's forward fails", type(model).__name__, home_of(model)),
        _as_in_evaluation(model),
        activation_mode(model, mode),
    ):
        # A copy: the network may write into its input.
        return output_list(functional_call(model, tensors, (samples.double().clone(),)))


def in_one_type(model: nn.Module) -> tuple[nn.Module, torch.dtype]:
    """The network on the CPU with parameters of one type, and that type.

    A network in float32 is returned as it is. Any other is copied as float64, so that nothing is
    rounded to a narrower type.
    """
    kinds = {p.dtype for p in model.parameters()}
    kind = torch.float32 if kinds <= {torch.float32} else torch.float64
    if kinds <= {kind} and all(p.device.type == "cpu" for p in model.parameters()):
        return model, kind
    copied = deepcopy(model).to("cpu", kind)
    share_home(model, copied)
    return copied, kind


@contextmanager
def in_double(model: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, with all tensors as float64 on the CPU, inside the block."""
    held = [(t, t.data) for _, t in _tensors(model)]
    try:
        for tensor, data in held:
            kind = torch.float64 if data.is_floating_point() else data.dtype
            tensor.data = data.detach().to("cpu", kind)
        with _as_in_evaluation(model):
            yield
    finally:
        for tensor, data in held:
            tensor.data = data


@contextmanager
def _as_in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without noise, with other tensors of the network as float64, in the block."""
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of tensors that the forward makes
    try:
        with _constants_in_double(model), in_evaluation(model), without_noise(model), InDouble():
            yield
    finally:
        torch.set_default_dtype(kind)


@contextmanager
def _constants_in_double(model: nn.Module) -> Iterator[None]:
    """Unregistered tensors of modules, as float64 inside the `with` block."""
    held = [
        (vars(module), name, value, value.detach().to("cpu", torch.float64))
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
    for attributes, name, _, double in held:
        attributes[name] = double
    try:
        yield
    finally:
        for attributes, name, value, double in held:
            if attributes.get(name) is double:  # otherwise a hook has replaced it
                attributes[name] = value


def numbers(tensor: Any) -> Any:
    """The numbers of a tensor, which brevitas keeps together with their scale."""
    return getattr(tensor, "value", tensor)


def output_list(outputs: Any) -> list[Any]:
    """The network's result as a list: one tensor, or several in a tuple, list or dictionary."""
    if isinstance(outputs, Mapping):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


@torch.no_grad()
def run_hooks(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Run the hooks before the forward pass, so that layers have their current weights.

    weight_norm, spectral_norm and prune set an attribute; a user's hook may write into
    a parameter, which then has the value that the network uses, as after any forward pass.
    """
    if not any(module._forward_pre_hooks for module in model.modules()):
        return
    tensors = _in_double(model)
    _forward(model, tensors, torch.zeros(1, *input_shape))
    for name, tensor in _tensors(model):
        made = tensors[name]
        if made.shape == tensor.shape and not torch.equal(made.to(tensor), tensor):
            tensor.data.copy_(made)


def hooked(model: nn.Module) -> list[str]:
    """Names of modules with hooks on their forward; a trace does not see those of leaves."""
    return [
        name or type(model).__name__
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks
    ]


@contextmanager
def explained(model: nn.Module, samples: Tensor) -> Iterator[None]:
    """If the `with` block fails, check whether the network's randomness is the cause.

    Raises
    ------
    UnsupportedModuleError
        If its forward gives different outputs for the same samples.
    """
    try:
        yield
    except (UnsupportedModuleError, ConversionError) as error:
        try:
            first, second = (outputs(model, samples[:FEW]) for _ in range(2))
        except SpikeportError:
            raise error from None
        tensors = [p for p in zip(first, second, strict=True) if isinstance(p[0], Tensor)]
        if all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in tensors):
            raise
        raise UnsupportedModuleError(
            "the network is random in evaluation",
            node=type(model).__name__,
            found="two forwards of the same samples differ"
            + (f"; {error.node}: {error.message}" if error.node else ""),
            remedy="leave out what draws at random, or depends on the call before, in evaluation: "
            "`if self.training:`",
        ) from error
