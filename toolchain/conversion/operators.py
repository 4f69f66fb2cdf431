"""One handler for each traced operation, by module type, function or tensor method.

A handler gets the fx node and the values known so far and returns the float node it makes, or
None where the operation changes nothing in evaluation (Dropout, Identity) or yields a constant.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from toolchain.activations import cqrelu, qcfs
from toolchain.conversion.adapters import SIGNED_QCFS, ActivationSpec, find_adapter, registered
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import (
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    FloatNode,
    Linear,
    node_shape,
)
from toolchain.program.synapse import Pair

Shape = tuple[int, ...]
Handler = Callable[[fx.Node, "Values"], FloatNode | None]


class _BatchSize:
    """Stands for the size of the batch axis, which a program does not have."""


BATCH_SIZE = _BatchSize()


class Values:
    """What each traced value is: a float node's output with its shape, or a constant."""

    def __init__(self, model: nn.Module, input_shape: Shape) -> None:
        self.model = model
        self.input_shape = input_shape
        self.names: dict[fx.Node, str] = {}
        self.shapes: dict[fx.Node, Shape] = {}
        self.rectified: set[fx.Node] = set()
        self._constants: dict[fx.Node, Any] = {}
        self._taken: set[str] = set()

    def path(self, node: fx.Node) -> str:
        """Qualified path of the module a node calls, or of the module that calls a function."""
        if node.op in ("call_module", "get_attr"):
            return str(node.target)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        where = str(stack[-1][0]) if stack and isinstance(stack[-1], tuple) else ""
        return f"{where}.{node.name}" if where else node.name

    def new_name(self, node: fx.Node) -> str:
        """A name not used yet: the path, with the number of the call where it is called again."""
        path, count = self.path(node), 2
        name = path
        while name in self._taken:
            name, count = f"{path}#{count}", count + 1
        self._taken.add(name)
        return name

    def bind(self, node: fx.Node, name: str, shape: Shape) -> None:
        """Record that `node` is the output of float node `name`."""
        self.names[node] = name
        self.shapes[node] = shape

    def made(self, node: fx.Node, source: fx.Node, result: FloatNode) -> FloatNode:
        """Record and return the float node made for `node`."""
        self.bind(node, result.name, node_shape(result, self.shapes[source]))
        return result

    def same(self, node: fx.Node, source: fx.Node) -> None:
        """Record that `node` passes `source` on unchanged."""
        self.bind(node, self.names[source], self.shapes[source])

    def constant(self, node: fx.Node) -> None:
        """Record a get_attr node as the tensor it names."""
        value: Any = self.model
        for part in str(node.target).split("."):
            value = getattr(value, part)
        self._constants[node] = value

    def set_constant(self, node: fx.Node, value: Any) -> None:
        """Record a computed constant."""
        self._constants[node] = value

    def source(self, node: fx.Node, value: Any) -> fx.Node:
        """`value` as a traced tensor, or an error naming `node`."""
        if isinstance(value, fx.Node) and value in self.names:
            return value
        raise UnsupportedModuleError(
            "an operation on something other than the traced tensor",
            node=self.path(node),
            found=value,
        )

    def resolve(self, value: Any) -> Any:
        """`value` with traced constants replaced by what they are."""
        if isinstance(value, fx.Node):
            if value not in self._constants:
                raise UnsupportedModuleError(
                    "a parameter is computed from data", node=self.path(value), found=value
                )
            return self._constants[value]
        if isinstance(value, tuple | list):
            return type(value)(self.resolve(v) for v in value)
        return value


def _array(tensor: Tensor | None, length: int = 0) -> np.ndarray:
    if tensor is None:
        return np.zeros(length)
    return tensor.detach().cpu().double().numpy()


def _pair(value: Any) -> Pair:
    if isinstance(value, tuple | list):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _module(node: fx.Node, values: Values) -> Any:
    return values.model.get_submodule(str(node.target))


def _bind_arguments(
    node: fx.Node, values: Values, names: tuple[str, ...], defaults: dict[str, Any]
) -> dict[str, Any]:
    """Positional and keyword arguments of a functional call by name, constants resolved."""
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    unknown = sorted(set(given) - set(names))
    if unknown or len(node.args) > len(names):
        raise UnsupportedModuleError(
            "unknown arguments", node=values.path(node), found=unknown, allowed=names
        )
    missing = [n for n in names if n not in given and n not in defaults]
    if missing:
        raise UnsupportedModuleError("arguments are missing", node=values.path(node), found=missing)
    arguments = {n: given.get(n, defaults.get(n)) for n in names}
    first = names[0]
    return {n: v if n == first else values.resolve(v) for n, v in arguments.items()}


def _conv_node(
    node: fx.Node, values: Values, source: fx.Node, weight: Tensor, bias: Tensor | None, **how: Any
) -> FloatNode:
    padding, stride, dilation = how["padding"], _pair(how["stride"]), _pair(how["dilation"])
    if padding == "valid":
        padding = 0
    if padding == "same":
        reach = [dilation[i] * (int(weight.shape[2 + i]) - 1) for i in range(2)]
        if stride != (1, 1) or any(r % 2 for r in reach):
            raise UnsupportedModuleError(
                "padding='same' is uneven here",
                node=values.path(node),
                allowed="odd kernels and stride 1",
                remedy="give the padding as numbers",
            )
        padding = (reach[0] // 2, reach[1] // 2)
    result = Conv2d(
        values.new_name(node),
        values.names[source],
        _array(weight),
        _array(bias, int(weight.shape[0])),
        stride,
        _pair(padding),
        dilation,
        int(how["groups"]),
    )
    return values.made(node, source, result)


def _conv_module(node: fx.Node, values: Values) -> FloatNode:
    m = _module(node, values)
    if m.padding_mode != "zeros" and m.padding not in (0, (0, 0), "valid"):
        raise UnsupportedModuleError(
            "padding mode is not supported",
            node=values.path(node),
            found=m.padding_mode,
            allowed="zeros",
        )
    source = values.source(node, node.args[0])
    return _conv_node(
        node,
        values,
        source,
        m.weight,
        m.bias,
        stride=m.stride,
        padding=m.padding,
        dilation=m.dilation,
        groups=m.groups,
    )


def _conv_function(node: fx.Node, values: Values) -> FloatNode:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    a = _bind_arguments(node, values, names, defaults)
    source = values.source(node, a.pop("input"))
    return _conv_node(node, values, source, a.pop("weight"), a.pop("bias"), **a)


def _linear(
    node: fx.Node, values: Values, value: Any, weight: Tensor, bias: Tensor | None
) -> FloatNode:
    source = values.source(node, value)
    result = Linear(
        values.new_name(node),
        values.names[source],
        _array(weight),
        _array(bias, int(weight.shape[0])),
    )
    return values.made(node, source, result)


def _linear_module(node: fx.Node, values: Values) -> FloatNode:
    m = _module(node, values)
    return _linear(node, values, node.args[0], m.weight, m.bias)


def _linear_function(node: fx.Node, values: Values) -> FloatNode:
    a = _bind_arguments(node, values, ("input", "weight", "bias"), {"bias": None})
    return _linear(node, values, a["input"], a["weight"], a["bias"])


def _batch_norm(
    node: fx.Node,
    values: Values,
    value: Any,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> FloatNode:
    if mean is None or var is None:
        raise UnsupportedModuleError(
            "BatchNorm without running statistics changes with the batch",
            node=values.path(node),
            allowed="track_running_stats=True",
        )
    source = values.source(node, value)
    channels = int(mean.shape[0])
    scale = np.ones(channels) if weight is None else _array(weight)
    with np.errstate(all="ignore"):
        gain = scale / np.sqrt(_array(var) + eps)
        offset = _array(bias, channels) - _array(mean) * gain
    result = BatchNorm(values.new_name(node), values.names[source], gain, offset)
    return values.made(node, source, result)


def _batch_norm_module(node: fx.Node, values: Values) -> FloatNode:
    m = _module(node, values)
    return _batch_norm(
        node, values, node.args[0], m.running_mean, m.running_var, m.weight, m.bias, m.eps
    )


def _batch_norm_function(node: fx.Node, values: Values) -> FloatNode:
    names = (
        "input",
        "running_mean",
        "running_var",
        "weight",
        "bias",
        "training",
        "momentum",
        "eps",
    )
    defaults = {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5}
    a = _bind_arguments(node, values, names, defaults)
    if a["training"]:
        raise UnsupportedModuleError(
            "F.batch_norm with training=True changes with the batch",
            node=values.path(node),
            remedy="pass training=self.training and convert in evaluation mode",
        )
    return _batch_norm(
        node,
        values,
        a["input"],
        a["running_mean"],
        a["running_var"],
        a["weight"],
        a["bias"],
        a["eps"],
    )


def _avg_pool(node: fx.Node, values: Values, value: Any, **how: Any) -> FloatNode:
    if how["ceil_mode"] or how["divisor_override"]:
        raise UnsupportedModuleError(
            "average pool with ceil_mode or divisor_override", node=values.path(node)
        )
    source = values.source(node, value)
    kernel = _pair(how["kernel_size"])
    stride = kernel if how["stride"] in (None, ()) else _pair(how["stride"])
    padding = _pair(how["padding"])
    result = AvgPool2d(
        values.new_name(node),
        values.names[source],
        kernel,
        stride,
        padding,
        bool(how["count_include_pad"]),
    )
    return values.made(node, source, result)


_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def _avg_pool_module(node: fx.Node, values: Values) -> FloatNode:
    m = _module(node, values)
    return _avg_pool(node, values, node.args[0], **{k: getattr(m, k) for k in _POOL})


def _avg_pool_function(node: fx.Node, values: Values) -> FloatNode:
    defaults: dict[str, Any] = {
        "stride": None,
        "padding": 0,
        "ceil_mode": False,
        "count_include_pad": True,
        "divisor_override": None,
    }
    a = _bind_arguments(node, values, ("input", *_POOL), defaults)
    return _avg_pool(node, values, a.pop("input"), **a)


def _adaptive(node: fx.Node, values: Values, value: Any, output_size: Any) -> FloatNode:
    source = values.source(node, value)
    shape = values.shapes[source]
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    target = [shape[1 + i] if wanted[i] is None else int(wanted[i]) for i in range(len(shape[1:]))]
    if len(shape) != 3 or any(shape[1 + i] % target[i] for i in range(2)):
        raise UnsupportedModuleError(
            "adaptive average pool with uneven windows",
            node=values.path(node),
            found=f"{shape} to {wanted}",
            allowed="output sizes that divide the input's",
        )
    kernel = (shape[1] // target[0], shape[2] // target[1])
    result = AvgPool2d(values.new_name(node), values.names[source], kernel, kernel, (0, 0))
    return values.made(node, source, result)


def _adaptive_module(node: fx.Node, values: Values) -> FloatNode:
    return _adaptive(node, values, node.args[0], _module(node, values).output_size)


def _adaptive_function(node: fx.Node, values: Values) -> FloatNode:
    a = _bind_arguments(node, values, ("input", "output_size"), {})
    return _adaptive(node, values, a["input"], a["output_size"])


def _flatten(node: fx.Node, values: Values, value: Any, start: int, end: int) -> FloatNode | None:
    source = values.source(node, value)
    axes = len(values.shapes[source]) + 1
    if start % axes != 1 or end % axes != axes - 1:
        raise UnsupportedModuleError(
            "flatten of some axes only",
            node=values.path(node),
            found=f"start_dim={start}, end_dim={end}",
            allowed="start_dim=1, end_dim=-1",
        )
    if axes == 2:
        values.same(node, source)
        return None
    return values.made(node, source, Flatten(values.new_name(node), values.names[source]))


def _flatten_module(node: fx.Node, values: Values) -> FloatNode | None:
    m = _module(node, values)
    return _flatten(node, values, node.args[0], m.start_dim, m.end_dim)


def _flatten_function(node: fx.Node, values: Values) -> FloatNode | None:
    a = _bind_arguments(
        node, values, ("input", "start_dim", "end_dim"), {"start_dim": 0, "end_dim": -1}
    )
    return _flatten(node, values, a["input"], a["start_dim"], a["end_dim"])


def _view(node: fx.Node, values: Values) -> FloatNode | None:
    source = values.source(node, node.args[0])
    raw = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
    sizes = list(values.resolve(list(raw)))
    features = prod(values.shapes[source])
    rows_kept = len(sizes) == 2 and (sizes[0] is BATCH_SIZE or sizes[0] == -1)
    if rows_kept and (sizes[1] == features or (sizes[1] == -1 and sizes[0] is BATCH_SIZE)):
        return _flatten(node, values, source, 1, -1)
    raise UnsupportedModuleError(
        "only flattening reshapes are supported",
        node=values.path(node),
        found=f"{values.shapes[source]} to {sizes}",
        allowed="x.flatten(1), or x.view(x.size(0), -1)",
    )


def _size(node: fx.Node, values: Values) -> None:
    source = values.source(node, node.args[0])
    sizes = (BATCH_SIZE, *values.shapes[source])
    index = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    values.set_constant(node, sizes if index is None else sizes[int(str(index))])


def _getattr(node: fx.Node, values: Values) -> None:
    source = values.source(node, node.args[0])
    if node.args[1] != "shape":
        raise UnsupportedModuleError(
            "an attribute of a tensor", node=values.path(node), found=node.args[1], allowed="shape"
        )
    values.set_constant(node, (BATCH_SIZE, *values.shapes[source]))


def _getitem(node: fx.Node, values: Values) -> None:
    if isinstance(node.args[0], fx.Node) and node.args[0] in values.names:
        raise UnsupportedModuleError("indexing of the traced tensor", node=values.path(node))
    values.set_constant(node, values.resolve(node.args[0])[values.resolve(node.args[1])])


def _pass_on(node: fx.Node, values: Values) -> None:
    """Dropout, Identity: nothing in evaluation."""
    values.same(node, values.source(node, node.args[0] if node.args else node.kwargs["input"]))


def _dropout_function(node: fx.Node, values: Values) -> None:
    names = ("input", "p", "training", "inplace")
    a = _bind_arguments(node, values, names, {"p": 0.5, "training": True, "inplace": False})
    if a["training"]:
        raise UnsupportedModuleError(
            "F.dropout with training=True is random",
            node=values.path(node),
            remedy="pass training=self.training, or use nn.Dropout",
        )
    values.same(node, values.source(node, a["input"]))


def _activation(node: fx.Node, values: Values, value: Any, spec: ActivationSpec) -> FloatNode:
    source = values.source(node, value)
    result = Activation(
        values.new_name(node),
        values.names[source],
        spec.threshold_array(),
        spec.levels,
        spec.shift,
        spec.kind,
    )
    return values.made(node, source, result)


def adapted_activation(node: fx.Node, values: Values) -> FloatNode:
    """An activation module read through its adapter."""
    module = _module(node, values)
    adapter = find_adapter(module)
    if adapter is None:
        raise TypeError(type(module))
    spec = adapter(module)
    source = values.source(node, node.args[0])
    if spec.kind == SIGNED_QCFS and source not in values.rectified:
        raise UnsupportedModuleError(
            f"{type(module).__name__} also encodes negative values, which IF neurons cannot send",
            node=values.path(node),
            allowed="directly behind a ReLU",
        )
    return _activation(node, values, source, spec)


def _relu(node: fx.Node, values: Values) -> None:
    """A ReLU is accepted only in front of a quantized activation, which starts at 0 anyway."""
    source = values.source(node, node.args[0] if node.args else node.kwargs["input"])
    followers = list(node.users)
    for follower in followers:
        module = (
            values.model.get_submodule(str(follower.target))
            if follower.op == "call_module"
            else None
        )
        if module is None or find_adapter(module) is None:
            raise UnsupportedModuleError(
                "a plain ReLU has no threshold, so no spiking counterpart",
                node=values.path(node),
                allowed=f"quantized activations: {', '.join(registered())}",
                remedy="train with toolchain.activations.QCFS, NQ or CQReLU in its place, "
                "or give your own activation an adapter (--adapter FILE.py)",
            )
    values.same(node, source)
    values.rectified.add(node)


def _qcfs_function(node: fx.Node, values: Values) -> FloatNode:
    a = _bind_arguments(node, values, ("z", "threshold", "levels"), {})
    return _activation(
        node, values, a["z"], ActivationSpec(a["threshold"], a["levels"], 0.5, "qcfs")
    )


def _cqrelu_function(node: fx.Node, values: Values) -> FloatNode:
    a = _bind_arguments(node, values, ("x", "levels"), {})
    return _activation(node, values, a["x"], ActivationSpec(1.0, a["levels"], 0.0, "cqrelu"))


MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: _conv_module,
    nn.Linear: _linear_module,
    nn.BatchNorm1d: _batch_norm_module,
    nn.BatchNorm2d: _batch_norm_module,
    nn.AvgPool2d: _avg_pool_module,
    nn.AdaptiveAvgPool2d: _adaptive_module,
    nn.Flatten: _flatten_module,
    nn.Dropout: _pass_on,
    nn.Dropout1d: _pass_on,
    nn.Dropout2d: _pass_on,
    nn.Identity: _pass_on,
    nn.ReLU: _relu,
}
FUNCTIONS: dict[Any, Handler] = {
    F.conv2d: _conv_function,
    torch.conv2d: _conv_function,
    F.linear: _linear_function,
    F.batch_norm: _batch_norm_function,
    F.avg_pool2d: _avg_pool_function,
    torch._C._nn.avg_pool2d: _avg_pool_function,
    F.adaptive_avg_pool2d: _adaptive_function,
    torch.flatten: _flatten_function,
    F.dropout: _dropout_function,
    F.relu: _relu,
    torch.relu: _relu,
    getattr: _getattr,
    operator.getitem: _getitem,
    qcfs: _qcfs_function,
    cqrelu: _cqrelu_function,
}
METHODS: dict[str, Handler] = {
    "flatten": _flatten_function,
    "view": _view,
    "reshape": _view,
    "size": _size,
    "relu": _relu,
    "contiguous": _pass_on,
}


def supported() -> str:
    """What the tracer knows, for error messages."""
    layers = sorted(m.__name__ for m in MODULES if m is not nn.ReLU)
    return f"{', '.join(layers)}, their functional forms, and {', '.join(registered())}"


def remedy(what: str) -> str:
    """What to do about an unsupported operation."""
    if "MaxPool" in what or "max_pool" in what:
        return "replace max pools by average pools and train again, as the NQ paper does"
    if "SiLU" in what or "GELU" in what or "Sigmoid" in what or "Tanh" in what:
        return "replace the activation by toolchain.activations.QCFS, NQ or CQReLU and train again"
    return "replace it by a supported one, or register an activation with --adapter FILE.py"
