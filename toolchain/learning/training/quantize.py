"""ReLUs of a network replaced by quantized activations, each call by one of its own.

A ReLU module that is called once is exchanged where it stands. A module whose forward calls a
ReLU several times, or calls one as a function, becomes a `torch.fx.GraphModule`; all other modules
stay as they are, with their names and parameters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from math import floor, inf
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from toolchain.conversion.frontend.user_module import (
    check_readable,
    in_evaluation,
    output_list,
    unwrapped,
)
from toolchain.errors import DataError, UnsupportedModuleError
from toolchain.learning.activations import (
    ACTIVATIONS,
    ActivationMode,
    CQReLU,
    QuantizedActivation,
    activation_mode,
)
from toolchain.learning.training.inference import batches, side_by_side
from toolchain.user_code import home_of, share_home, user_code

START = 99.9
"""Percentile of a ReLU's outputs at which its threshold starts."""
FEW = 2
"""Samples on which calls are found and outputs are compared."""
SAME = 1e-4
"""Largest difference of outputs, relative to the largest output."""
FORMS = "nn.ReLU, nn.ReLU6, nn.Hardtanh(0, a), their functions, clamp from 0 on"
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "relu": (),
    "relu6": (),
    "hardtanh": ("min_val", "max_val"),
    "clamp": ("min", "max"),
    "clip": ("min", "max"),
    "clamp_min": ("min",),
}
"""Functions and methods that may be a ReLU, and their arguments behind the first."""
_MODULES = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_DEFAULTS = {"hardtanh": {"min_val": -1.0, "max_val": 1.0}}


def with_quantized_activations(
    model: nn.Module, activation: str, levels: int, samples: Tensor, percentile: float | None
) -> nn.Module:
    """A copy of `model` with quantized activations in place of its ReLUs (`FORMS`).

    A ReLU whose output the network returns stays, since conversion leaves it out.

    Parameters
    ----------
    activation:
        Name of one of `ACTIVATIONS`.
    samples:
        What the network takes, (N, ...), on its device.
    percentile:
        Where thresholds start: at this percentile of a ReLU's inputs (100 is the maximum), but not
        above the bound of a ReLU that clips. None leaves them at their usual start. The threshold
        of CQReLU is 1 whatever the data are.

    Raises
    ------
    UnsupportedModuleError
        If there is no ReLU, the network fails on the samples, or a forward cannot be rewritten.
    DataError
        If a setting cannot be meant, or a ReLU's inputs are never positive.
    """
    if activation not in ACTIVATIONS:
        raise DataError("no such activation", node=activation, allowed=", ".join(ACTIVATIONS))
    if percentile is not None and not 0 < percentile <= 100:
        raise DataError("a percentile lies in (0, 100]", node="percentile", found=percentile)
    model = unwrapped(model)
    check_readable(model)
    with user_code("the network cannot be copied", type(model).__name__, home_of(model)):
        copied = deepcopy(model)
    _part_shared(copied)
    before = outputs_of(copied, samples[:FEW])
    calls = _Calls(copied)
    with calls:
        outputs_of(copied, samples[:FEW])
    bounds: dict[nn.Module, float] = {}

    def new(bound: float) -> QuantizedActivation:
        made = ACTIVATIONS[activation](levels).to(samples.device)
        bounds[made] = bound
        return made

    for path, bound in calls.modules.items():
        _put(copied, path, new(bound))
    for path in sorted(calls.owners, key=len, reverse=True):
        rewritten = _rewritten(
            copied.get_submodule(path), path or type(model).__name__, bounds, new
        )
        if path:
            _put(copied, path, rewritten)
        else:
            copied = rewritten
    placed = {
        name: module
        for name, module in copied.named_modules()
        if isinstance(module, QuantizedActivation) and module in bounds
    }
    for path in _final(copied, placed, samples[:FEW]):
        if bounds[placed[path]] == inf:
            del placed[path]
            _put(copied, path, nn.ReLU())
    if not placed:
        raise UnsupportedModuleError(
            "the network has no ReLU to be replaced", node=type(model).__name__, allowed=FORMS
        )
    with _as_relu(copied, placed, bounds):
        _check_same(before, outputs_of(copied, samples[:FEW]), type(model).__name__)
    if percentile is not None:
        start_thresholds(copied, placed, samples, percentile, bounds)
    share_home(model, copied)
    return copied


def start_thresholds(
    model: nn.Module,
    activations: Mapping[str, QuantizedActivation],
    samples: Tensor,
    percentile: float,
    bounds: Mapping[nn.Module, float] | None = None,
) -> None:
    """Set thresholds to percentiles of what these activations of `model` give as ReLUs.

    Parameters
    ----------
    activations:
        By path. The threshold of CQReLU stays 1.
    samples, percentile:
        As in `with_quantized_activations`.
    bounds:
        Of ReLUs that clip.

    Raises
    ------
    DataError
        If an activation's inputs are never positive.
    """
    with _as_relu(model, activations, bounds or {}):
        top = _percentiles(model, activations, samples, percentile)
    for path, module in activations.items():
        if module.kind == CQReLU.kind:
            continue
        if top[path] <= 0:
            raise DataError(
                "the inputs of a ReLU are never positive on the calibration samples",
                node=path,
                remedy="calibrate with more samples, and with those that the network is for",
            )
        module.threshold.data.fill_(top[path])


@torch.no_grad()
def outputs_of(model: nn.Module, samples: Tensor) -> Tensor:
    """Outputs for samples (N, ...) in evaluation mode, side by side (N, P).

    Raises
    ------
    UnsupportedModuleError
        If the forward fails.
    """
    guard = user_code("the network's forward fails", type(model).__name__, home_of(model))
    with guard, in_evaluation(model):
        # A copy: the network may write into its input.
        return side_by_side(model(samples.clone()))


@torch.no_grad()
def _final(
    model: nn.Module, placed: Mapping[str, QuantizedActivation], samples: Tensor
) -> list[str]:
    """Paths of activations whose output the network returns: conversion leaves ReLUs there out."""
    last: dict[str, Tensor] = {}
    with _hooked(placed, last.__setitem__), in_evaluation(model):
        returned = output_list(model(samples.clone()))
    return [path for path, output in last.items() if any(output is other for other in returned)]


@contextmanager
def _hooked(
    placed: Mapping[str, QuantizedActivation], keep: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call `keep` with the path and output of each activation that runs inside the block."""

    def hook(path: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: keep(path, output)

    handles = [module.register_forward_hook(hook(path)) for path, module in placed.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, module)


def _part_shared(model: nn.Module) -> None:
    """Give each path of a ReLU module, which has no state, a module of its own."""
    seen: set[nn.Module] = set()
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) in _MODULES and module in seen:
            _put(model, path, deepcopy(module))
        seen.add(module)


def _bound(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """Where a call of this function or method clips, inf for nowhere; None if it is no ReLU."""
    name = name.removesuffix("_")
    if name not in _ARGUMENTS:
        return None
    if name == "relu":
        return inf
    if name == "relu6":
        return 6.0
    given = _DEFAULTS.get(name, {}) | dict(zip(_ARGUMENTS[name], args[1:], strict=False))
    given |= {k: v for k, v in kwargs.items() if k in _ARGUMENTS[name]}
    low, high = given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))
    high = inf if high is None else high
    is_relu = isinstance(low, int | float) and low == 0 and isinstance(high, int | float)
    return float(high) if is_relu and high > 0 else None


class _Calls(TorchFunctionMode):
    """Inside the `with` block, calls of ReLUs in a network are noted.

    Attributes
    ----------
    modules:
        Bounds of ReLU modules, by path.
    owners:
        Paths of modules whose forward has to be rewritten.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.modules: dict[str, float] = {}
        self.owners: set[str] = set()
        self._model, self._called = model, Counter[str]()
        self._inside: list[tuple[str, nn.Module]] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> Any:
        for name, module in self._model.named_modules():
            enter = self._entering(name)
            self._hooks.append(module.register_forward_pre_hook(enter, prepend=True))
            self._hooks.append(module.register_forward_hook(self._left, always_call=True))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _entering(self, name: str) -> Callable[..., None]:
        return lambda module, _: self._inside.append((name, module))

    def _left(self, *_: object) -> None:
        self._inside.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        bound = _bound(getattr(func, "__name__", ""), args, kwargs or {})
        if bound is not None and self._inside:
            path, module = self._inside[-1]
            if type(module) in _MODULES:
                self.modules[path] = bound
                self._called[path] += 1
                owner, caller = self._inside[-2] if len(self._inside) > 1 else ("", module)
                if self._called[path] > 1 and not isinstance(caller, nn.Sequential):
                    self.owners.add(owner)
            else:
                self.owners.add(path)
        return func(*args, **(kwargs or {}))


class _Tracer(fx.Tracer):
    """Records one module's forward; modules that it calls are one operation each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _rewritten(
    owner: nn.Module,
    node: str,
    bounds: Mapping[nn.Module, float],
    new: Callable[[float], QuantizedActivation],
) -> fx.GraphModule:
    """`owner` with an activation of its own for each call of a ReLU in its forward."""
    remedy = "give each ReLU call of this forward an nn.ReLU module of its own"
    try:
        with user_code("", node, home_of(owner)):
            graph = _graph_of(owner, node)
    except UnsupportedModuleError as error:
        raise UnsupportedModuleError(
            "its forward calls ReLUs as functions, or one several times, and cannot be rewritten",
            node=node,
            found=error.found,
            remedy=remedy,
        ) from error
    seen: set[str] = set()
    for call in list(graph.nodes):
        bound, name = None, "relu"
        if call.op in ("call_function", "call_method"):
            target = call.target if call.op == "call_method" else call.target.__name__
            bound = _bound(target, call.args, call.kwargs)
        elif call.op == "call_module" and owner.get_submodule(call.target) in bounds:
            if call.target not in seen:
                seen.add(call.target)
                continue
            bound, name = bounds[owner.get_submodule(call.target)], call.target
        if bound is None:
            continue
        value = call.args[0] if call.args else call.kwargs["input"]
        path = next(p for p in _names(name) if not _has(owner, p))
        _put(owner, path, new(bound))
        with graph.inserting_before(call):
            call.replace_all_uses_with(graph.call_module(path, (value,)))
        graph.erase_node(call)
    rewritten = fx.GraphModule(owner, graph, type(owner).__name__)
    for name, value in vars(owner).items():
        if not name.startswith("_") and name not in vars(rewritten):
            setattr(rewritten, name, value)
    return rewritten.train(owner.training)


def _names(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}_{number}"


def _has(owner: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return hasattr(owner.get_submodule(parent), name)


def _graph_of(owner: nn.Module, node: str) -> fx.Graph:
    """The graph of a forward; what differs between training and evaluation reads `training`."""
    mode, graphs = owner.training, []
    try:
        for owner.training in (True, False):
            graphs.append(_Tracer().trace(owner))
    finally:
        owner.training = mode
    graph, other = graphs
    pairs = list(zip(list(graph.nodes), other.nodes, strict=False))
    if len(graph.nodes) != len(other.nodes) or any(
        (a.op, a.target, len(a.args), [*a.kwargs]) != (b.op, b.target, len(b.args), [*b.kwargs])
        for a, b in pairs
    ):
        raise UnsupportedModuleError(
            "", node=node, found="other operations in training than in evaluation"
        )
    with graph.inserting_before(pairs[0][0]):
        training = graph.get_attr("training")
    for a, b in pairs:
        a.args = tuple(_joined(x, y, training, node) for x, y in zip(a.args, b.args, strict=True))
        a.kwargs = {k: _joined(v, b.kwargs[k], training, node) for k, v in a.kwargs.items()}
    if not training.users:
        graph.erase_node(training)
    return graph


def _joined(in_training: Any, in_evaluation_: Any, training: fx.Node, node: str) -> Any:
    """An argument in both modes; `training` where it is that."""
    if str(in_training) == str(in_evaluation_):
        return in_training
    if (in_training, in_evaluation_) == (True, False):
        return training
    raise UnsupportedModuleError(
        "", node=node, found=f"{in_training} in training, {in_evaluation_} in evaluation"
    )


@contextmanager
def _as_relu(
    model: nn.Module,
    activations: Mapping[str, QuantizedActivation],
    bounds: Mapping[nn.Module, float],
) -> Iterator[None]:
    """These activations clip at their bounds only, inside the block."""
    held = [(module, module.threshold.data.clone()) for module in activations.values()]
    try:
        for module, _ in held:
            module.threshold.data.fill_(bounds.get(module, inf))
        with activation_mode(model, ActivationMode.CLIPPED):
            yield
    finally:
        for module, threshold in held:
            module.threshold.data.copy_(threshold)


def _check_same(before: Tensor, after: Tensor, node: str) -> None:
    """Raise UnsupportedModuleError if the network computes something else with its ReLUs out."""
    largest = float((before - after).abs().max())
    if not largest <= SAME * max(1.0, float(before.abs().max())):
        raise UnsupportedModuleError(
            "a ReLU writes into a tensor that is read again, or the network is random",
            node=node,
            found=f"outputs differ by {largest:.3g} when its ReLUs are taken out",
            remedy="use the form that is not in-place (inplace=False)",
        )


def _percentiles(
    model: nn.Module,
    placed: Mapping[str, QuantizedActivation],
    samples: Tensor,
    percentile: float,
) -> dict[str, float]:
    """A percentile of each activation's outputs, by path: the value of a rank, rounded up.

    It is the maximum where the percentile is 0. Only the largest values are held at any time.
    """
    top: dict[str, Tensor] = {}

    def keep(path: str, output: Tensor) -> None:
        total = len(samples) * output[0].numel()
        count = floor((1 - percentile / 100) * (total - 1)) + 1
        values = torch.cat((top.get(path, output.new_empty(0)), output.flatten()))
        top[path] = values.topk(min(count, len(values))).values

    with _hooked(placed, keep):
        for batch in batches(samples):
            outputs_of(model, batch)
    return {
        path: float(values[-1]) if values[-1] > 0 else float(values[0])
        for path, values in top.items()
    }
