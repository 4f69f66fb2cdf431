"""Recording of a network's forward as a torch.fx graph, in which every shape is known.

Each operation is run on two samples while it is recorded. So sizes are plain numbers: a forward
may read `x.shape`, count in loops over it, assert on it and compute with it. Operations that do not
touch the samples, such as the quantization of a weight, are run and leave a constant. What
depends on the samples' values (`if x.max() > 1`) stays an error.

torch.fx records values, not memory. Operations that write into a tensor are recognised by the
tensor's version counter: whoever reads that tensor later gets the result.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import getitem, iadd
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from toolchain.conversion.frontend.several_inputs import input_names
from toolchain.conversion.frontend.user_module import numbers
from toolchain.errors import UnsupportedModuleError
from toolchain.torch_private import write_count

SAMPLES = 2
"""Number of samples on which operations are run: more than one, so that axes of size 1 differ
from the batch axis."""
_SEED = 0
_PICKED = ("call_function", getitem)
_SIZES = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "get_device"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "is_tensor"),
}
"""Functions and methods whose result depends on a tensor's form only, not on its values."""


class _Proxy(fx.Proxy):
    """A recorded value; `value` is what it holds for the samples that the network is run on."""

    value: Tensor = torch.empty(0)
    changed_by: str | None = None
    """Operation that wrote into this tensor's memory through another view of it."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Let `isinstance(x, torch.Tensor)` hold, as where the network runs."""
        return Tensor

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.value, name)
        if name in _SIZES:
            return found
        if callable(found):
            return fx.proxy.Attribute(self, name)
        if isinstance(found, Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {}, name=name)
        return found

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter([getitem(self, index) for index in range(len(self.value))])

    def __iadd__(self, other: Any) -> Any:
        """Distinguish `a += b`, which writes into a tensor, from `a + b`; both are named "add"."""
        return self.tracer.create_proxy("call_function", iadd, (self, other), {}, name="add")


class Tracer(fx.Tracer):
    """Traces into a user's modules, but not into torch's own or those that `is_known` says.

    Parameters
    ----------
    is_known:
        Whether a module is recorded as one operation.
    functions:
        Functions that are recorded as one operation.
    """

    def __init__(
        self, is_known: Callable[[nn.Module], bool], functions: tuple[Callable[..., Any], ...]
    ) -> None:
        super().__init__(autowrap_functions=functions)
        self._is_known = is_known
        self.is_running = False
        self._live: WeakValueDictionary[int, _Proxy] = WeakValueDictionary()
        self._names: dict[int, str] = {}
        self._called: nn.Module = nn.Identity()
        self.graph = fx.Graph()

    def record(self, model: nn.Module, input_shape: tuple[int, ...]) -> None:
        """Fill `graph` with the operations of `model`, all of whose parameters are float64.

        What raises, raises; the operations before it stand in `graph`, and that itself last.

        Every node's `meta["shape"]` is the shape of its value for `SAMPLES` samples, a list of such
        for several tensors, and that of a `get_attr` node is in `meta["constant"]`.
        """
        tensors = (*model.named_parameters(), *model.named_buffers())
        self._names = {id(tensor): name for name, tensor in tensors}
        generator = torch.Generator().manual_seed(_SEED)
        self._samples = torch.rand(SAMPLES, *input_shape, generator=generator, dtype=torch.float64)
        with torch.no_grad(), _functions_of(self):
            self.trace(model)
        for node in reversed(self.graph.nodes):  # values that nothing reads
            if not node.users and node.op not in ("output", "placeholder"):
                self.graph.erase_node(node)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """One placeholder; further arguments of the forward have their defaults."""
        _, *parameters = inspect.signature(root_fn).parameters.values()
        _, *several = input_names(root_fn)
        if several[1:]:
            raise UnsupportedModuleError(
                "the network takes several inputs",
                node=several[1],
                found=", ".join(several),
                allowed="one tensor, or images of one size whose channels input_shape= counts "
                "together, if the layers leave one way to divide them",
                remedy="take one tensor in the forward, and divide it there: "
                "a, b = x.split([3, 1], 1)",
            )
        name = parameters[0].name if parameters else "input"
        return root_fn, [self.root, self.create_proxy("placeholder", name, (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is recorded as one operation."""
        return self._is_known(m) or bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Record the call; run it where it is part of an operation or sees constants only."""
        if self.is_running or not _proxies((args, kwargs)):
            return forward(*args, **kwargs)
        self._called = m
        return super().call_module(m, forward, args, kwargs)

    def path_of_module(self, mod: nn.Module) -> str:
        """The module's path; the name of its class for one that is made in a forward."""
        try:
            return str(super().path_of_module(mod))
        except NameError:
            return type(mod).__name__.lower()

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A parameter itself: what is computed from parameters only is a constant."""
        return attr_val

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy of our own."""
        return _Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        """A node for a proxy or a tensor; raises for a proxy whose memory has changed."""
        if type(a) is _Proxy:
            if a.changed_by is not None:
                raise UnsupportedModuleError(
                    "an operation writes into the memory of a tensor that is used again",
                    node=a.changed_by,
                    found=f"{a.node.name}, read behind it",
                    remedy="use the form that is not in-place (inplace=False)",
                )
            return a.node
        if isinstance(a, Tensor):
            name = self._names.get(id(a), "constant")
            node = self.create_node("get_attr", name, (), {})
            node.meta["constant"] = a
            return node
        return super().create_arg(a)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: dict[str, Any], *more: Any, **named: Any
    ) -> Any:
        """The operation's proxy, with its value; a plain result that only tells sizes as it is."""
        if self.is_running:
            raise TypeError(f"{target} is recorded while it is run")
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if kind == "call_module":
            proxy.node.meta["module"] = self._called
        value, changed = self._run(kind, target, args, kwargs)
        if not _tensors(value):
            return self._plain(proxy.node, target, value)
        recorded = self._holding(proxy, value)
        for tensor in changed if isinstance(value, Tensor) else ():
            self._redirect(tensor, proxy)
        return recorded

    def _run(
        self, kind: str, target: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, list[Tensor]]:
        """The operation's value, and the tensors that it wrote into."""
        if kind == "placeholder":
            return self._samples, []
        inputs: Any = map_aggregate(args, _value)
        named: Any = map_aggregate(kwargs, _value)
        before = [(tensor, write_count(tensor)) for tensor in _tensors((inputs, named))]
        self.is_running = True
        try:
            if kind == "call_module":
                value = numbers(self._called(*inputs, **named))
            elif kind == "call_method":
                value = getattr(inputs[0], target)(*inputs[1:], **named)
            else:
                value = target(*inputs, **named)
        finally:
            self.is_running = False
        changed = [tensor for tensor, version in before if write_count(tensor) != version]
        recorded = {id(proxy.value) for proxy in _proxies((args, kwargs))}
        for tensor in changed:
            if id(tensor) not in recorded:
                raise UnsupportedModuleError(
                    "an operation writes into a constant",
                    node=str(getattr(target, "__name__", target)),
                    remedy="make a new tensor of the parts with torch.cat",
                )
        return value, changed

    def _holding(self, proxy: Any, value: Any) -> Any:
        """The proxy of a tensor; of several, one per tensor in the operation's kind of tuple."""
        proxy.node.meta["shape"] = _shapes(value)
        if isinstance(value, Tensor):
            proxy.value = value
            self._live[id(proxy)] = proxy
            return proxy
        pick = super().create_proxy
        picked = (pick(*_PICKED, (proxy, index), {}) for index in range(len(value)))
        return type(value)([self._holding(*pair) for pair in zip(picked, value, strict=True)])

    def _plain(self, node: fx.Node, target: Any, value: Any) -> Any:
        """A result without tensors, which is no part of the graph."""
        name = getattr(target, "__name__", target)
        self.graph.erase_node(node)
        if name not in _SIZES and value is not None:
            raise fx.proxy.TraceError(f"{name} gives a value that depends on the samples")
        return value

    def _redirect(self, tensor: Tensor, result: _Proxy) -> None:
        """Let proxies of the memory that was written into stand for the result from now on."""
        for proxy in list(self._live.values()):
            if proxy is result or not _same_memory(tensor, proxy.value):
                continue
            if _same_memory(tensor, result.value) and _same_view(tensor, proxy.value):
                proxy.node = result.node
            else:
                proxy.changed_by = str(result.node)


def _value(argument: Any) -> Any:
    return argument.value if type(argument) is _Proxy else argument


def _proxies(given: Any) -> list[_Proxy]:
    return [leaf for leaf in _leaves(given) if type(leaf) is _Proxy]


def _tensors(given: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(given) if isinstance(leaf, Tensor)]


def _leaves(given: Any) -> Iterator[Any]:
    """What stands in nested tuples, lists, dictionaries and slices."""
    if type(given) is _Proxy or not isinstance(given, tuple | list | dict | slice):
        yield given
        return
    if isinstance(given, slice):
        given = (given.start, given.stop, given.step)
    for part in given.values() if isinstance(given, dict) else given:
        yield from _leaves(part)


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    return [_shapes(part) for part in value] if isinstance(value, tuple | list) else None


def _same_memory(tensor: Tensor, value: Any) -> bool:
    """Whether `tensor` and `value` lie in the same storage."""
    if not isinstance(value, Tensor):
        return False
    return tensor.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()


def _same_view(tensor: Tensor, value: Tensor) -> bool:
    """Whether two tensors in the same storage are the same part of it, in the same shape."""
    forms = [(t.shape, t.stride(), t.storage_offset()) for t in (tensor, value)]
    return forms[0] == forms[1]


@contextmanager
def _functions_of(tracer: Tracer) -> Iterator[None]:
    """Record calls of torch.autograd.Function, which take tensors only, as one operation each."""
    function: Any = torch.autograd.Function
    apply = function.__dict__["apply"]

    def recorded(cls: Any, *args: Any, **kwargs: Any) -> Any:
        run = apply.__get__(None, cls)
        if tracer.is_running or not _proxies((args, kwargs)):
            return run(*args, **kwargs)
        return tracer.create_proxy("call_function", run, args, kwargs, name=cls.__name__.lower())

    function.apply = classmethod(recorded)
    try:
        yield
    finally:
        function.apply = apply
