"""Calls of ReLUs in a network: found while it runs, and replaced in the forwards that make them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from math import inf
from typing import Any

from torch import fx, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from toolchain.conversion.frontend.adapters import is_activation
from toolchain.errors import UnsupportedModuleError
from toolchain.user_code import home_of, user_code

NOT_REWRITTEN = (
    "its forward calls ReLUs as functions, or one several times, and cannot be rewritten"
)
OWN = "give each ReLU call of this forward an nn.ReLU module of its own"
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


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the module at `path`."""
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, module)


def part_shared(model: nn.Module) -> None:
    """Give each path of a ReLU module, which has no state, a module of its own."""
    seen: set[nn.Module] = set()
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) in _MODULES and module in seen:
            put(model, path, deepcopy(module))
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


class ReluCalls(TorchFunctionMode):
    """Inside the `with` block, calls of ReLUs in a network are noted.

    What quantized activations compute, the project's own and adapted ones, are none.

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
        is_relu = not any(is_activation(module) for _, module in self._inside)
        if bound is not None and self._inside and is_relu:
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


def rewritten_calls(
    owner: nn.Module,
    node: str,
    bounds: Mapping[nn.Module, float],
    new: Callable[[float], nn.Module],
) -> fx.GraphModule:
    """`owner` with an activation of its own for each call of a ReLU in its forward."""
    if is_parametrized(owner) or owner._forward_hooks or owner._forward_pre_hooks:
        raise UnsupportedModuleError(
            NOT_REWRITTEN, node=node, found="hooks or parametrizations of its own", remedy=OWN
        )
    try:
        with user_code("", node, home_of(owner)):
            graph = _graph_of(owner, node)
    except UnsupportedModuleError as error:
        raise UnsupportedModuleError(
            NOT_REWRITTEN,
            node=node,
            found=error.found,
            remedy=OWN,
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
        put(owner, path, new(bound))
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
