"""Graphs of torch.export, quantized by PT2E or not: as modules and functions that tracing knows.

PT2E (prepare_pt2e, convert_pt2e) writes a quantized value as `dequantize(quantize(x))`. Here such a
pair becomes one module, and dequantized weights become plain ones. A pair behind a max pool or
a change of shape moves in front of it, which computes the same, since both keep order and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from toolchain.errors import UnsupportedModuleError
from toolchain.torch_private import aten

FUNCTIONS: dict[Any, Any] = {
    aten.conv2d.default: F.conv2d,
    aten.conv2d.padding: F.conv2d,
    aten.conv_transpose2d.input: F.conv_transpose2d,
    aten.upsample_nearest2d.vec: F.interpolate,
    aten.linear.default: F.linear,
    aten.relu.default: F.relu,
    aten.relu_.default: F.relu,
    aten.max_pool2d.default: F.max_pool2d,
    aten.pad.default: F.pad,
    aten.avg_pool2d.default: F.avg_pool2d,
    aten.adaptive_avg_pool2d.default: F.adaptive_avg_pool2d,
    aten.mean.dim: torch.mean,
    aten.flatten.using_ints: torch.flatten,
    aten.add.Tensor: torch.add,
    aten.add_.Tensor: torch.add,
    aten.cat.default: torch.cat,
    aten.dropout.default: F.dropout,
    aten.batch_norm.default: F.batch_norm,
}
"""Functions of operators whose arguments are the same, batch normalisation aside."""
_ORDER_KEPT: set[Any] = {torch.flatten, F.max_pool2d}
"""Functions that commute with a quantizer of all values alike."""
_NOTES = "spikeport notes"
_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = (
    "quantized_decomposed.dequantize_per_tensor.default",
    "quantized_decomposed.dequantize_per_channel.default",
)


class Rounded(nn.Module):
    """`scale * (clip(round(x / scale + zero_point), quant_min, quant_max) - zero_point)`.

    The attributes are those of torch.ao's FakeQuantize, by which its adapter knows it.
    """

    is_per_channel = False
    fake_quant_enabled, observer_enabled = (1,), (0,)

    def __init__(self, scale: float, zero_point: int, quant_min: int, quant_max: int) -> None:
        super().__init__()
        self.scale, self.zero_point = float(scale), int(zero_point)
        self.quant_min, self.quant_max = int(quant_min), int(quant_max)

    def forward(self, x: Tensor) -> Tensor:
        """The nearest values, same shape as `x`; ties go to the even one."""
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, self.quant_min, self.quant_max
        )


def from_export(model: nn.Module) -> nn.Module:
    """An exported graph in terms that tracing knows; any other network unchanged.

    The quantizers of the network's input and outputs are left out: the input has the program's
    own quantizer, and outputs are sums that need no rounding. `left_out` gives notes of this.

    Raises
    ------
    UnsupportedModuleError
        If the graph still calls modules, such as the observers of `prepare_pt2e`.
    """
    if not isinstance(model, fx.GraphModule) or not any(
        isinstance(node.target, type(aten.relu.default)) for node in model.graph.nodes
    ):
        return model
    graph = fx.Graph()
    graph.output(graph.graph_copy(model.graph, {}))
    root = nn.Module()
    for node in list(graph.nodes):
        if node.op == "call_module" and not node.users:  # guards on the shape of the input
            graph.erase_node(node)
            continue
        if node.op == "call_module":
            raise UnsupportedModuleError(
                "an exported graph that still calls modules",
                node=str(node.target),
                found=type(model.get_submodule(str(node.target))).__name__,
                remedy="convert_pt2e puts quantizers in the place of observers",
            )
        with graph.inserting_before(node):
            plain = _plain(node, model, root)
        if plain is not None:
            node.replace_all_uses_with(plain)
            graph.erase_node(node)
    notes = tuple(note for node in list(graph.nodes) for note in _placed(node, root))
    plain_model = fx.GraphModule(root, graph)
    plain_model.meta[_NOTES] = notes
    plain_model.graph.eliminate_dead_code()
    plain_model.recompile()
    return plain_model.eval()


def left_out(model: nn.Module) -> tuple[str, ...]:
    """Notes on what `from_export` left out of a network."""
    return model.meta.get(_NOTES, ()) if isinstance(model, fx.GraphModule) else ()


def _plain(node: fx.Node, model: fx.GraphModule, root: nn.Module) -> fx.Node | None:
    """What takes the place of a node, None for the node itself; constants go into `root`."""
    graph, name = node.graph, str(node.target)
    target: Any = node.target
    arguments: tuple[Any, ...] = node.args
    if node.op == "get_attr":
        value: Any = model
        for part in name.split("."):
            value = getattr(value, part)
        return _constant(graph, root, name.replace(".", "_"), value.detach())
    if name == _QUANTIZE:
        scale, zero_point, low, high = arguments[1:5]
        root.add_module(node.name, Rounded(scale, zero_point, low, high))
        return graph.call_module(node.name, node.args[:1])
    if name in _DEQUANTIZE:
        source = arguments[0]
        if _rounded(source, root):
            return source
        values = [getattr(root, str(v.target)) if isinstance(v, fx.Node) else v for v in arguments]
        return _constant(graph, root, node.name, target(*values, **node.kwargs))
    function = FUNCTIONS.get(target)
    if function is F.batch_norm:  # torch has the statistics in front of weight and bias
        value, weight, bias, mean, var, *rest = arguments
        arguments = (value, mean, var, weight, bias, *rest[:3])
    return None if function is None else graph.call_function(function, arguments, node.kwargs)


def _constant(graph: fx.Graph, root: nn.Module, name: str, value: Tensor) -> fx.Node:
    root.register_buffer(name, value)
    return graph.get_attr(name)


def _rounded(node: Any, root: nn.Module) -> Rounded | None:
    """The quantizer that a node calls; None if it calls none."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = root.get_submodule(str(node.target))
    return module if isinstance(module, Rounded) else None


def _placed(node: fx.Node, root: nn.Module) -> Iterator[str]:
    """Move a quantizer in front of what keeps order and values, or leave it out; yield a note."""
    rounded = _rounded(node, root)
    if rounded is None:
        return
    while (source := node.all_input_nodes[0]).target in _ORDER_KEPT and len(source.users) == 1:
        node.replace_all_uses_with(source)
        node.args, inner = source.args[:1], source
        inner.args = (node, *source.args[1:])
        inner.prepend(node)
    before = _rounded(source, root)
    if source.op == "placeholder":
        yield f"the network's own quantizer of its input is left out (scale {rounded.scale:.6g})"
    elif all(user.op == "output" for user in node.users):
        yield f"the network's own quantizer of its output is left out (scale {rounded.scale:.6g})"
    elif before is None or vars(before) != vars(rounded):
        return
    node.replace_all_uses_with(source)
