"""Remedies for operations without a counterpart."""

from __future__ import annotations

from torch import fx
from torch.nn.utils.parametrize import is_parametrized

from toolchain.conversion.frontend.operators.values import Values, called_module

_SHIFTS = ("sub", "isub", "sub_", "rsub", "subtract", "add", "iadd", "add_")
_SCALES = ("mul", "imul", "mul_", "multiply", "truediv", "itruediv", "div", "div_", "divide", "neg")
_REMEDIES = {
    ("sub", "isub", "sub_", "rsub", "subtract"): "add the branch and let the weights of its last "
    "layer carry the minus",
    _SCALES: "put a constant factor into the weights of a layer beside it; products of two "
    "branches (gates, attention) have no counterpart",
    ("stack",): "use torch.cat along the channels, dim=1",
    ("max_pool2d_with_indices", "adaptive_max_pool2d_with_indices"): "leave return_indices=False",
    ("max", "amax"): "use nn.AdaptiveMaxPool2d(1) for the maximum over an image",
    ("sum",): "use nn.AdaptiveAvgPool2d(1) for the mean over an image",
    ("softmax", "log_softmax", "Softmax", "LogSoftmax", "Softmax2d"): "leave it out where the "
    "network ends: outputs are the values before it, and the largest is the same class; inside a "
    "network (attention) it has no counterpart",
    ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"): "recurrent layers have no "
    "counterpart: convert a network of convolutions and dense layers",
    ("cuda", "to", "cpu", "half", "float", "double", "bfloat16", "type"): "leave casts and moves "
    "to a device out of the forward: move the whole network and its samples instead",
    ("_weight_norm", "_weight_norm_interface", "norm_except_dim"): "make the weights plain before "
    "converting: torch.nn.utils.remove_weight_norm, or parametrize.remove_parametrizations",
}
IN_INPUT = (
    "leave arithmetic on the input out of the forward and give it with the data: --mean and --std "
    "for (x - mean) / std, --input-range for the values that samples take"
)


def remedy(what: str, node: fx.Node, values: Values) -> str:
    """A remedy for `node`, which calls the unsupported operation `what`."""
    last = what.rpartition(".")[2]
    if last in (*_SHIFTS, *_SCALES) and is_on_input(node):
        return IN_INPUT
    if node.op == "call_module" and is_parametrized(called_module(node)):
        return "torch.nn.utils.parametrize.remove_parametrizations makes its weights plain"
    own = _own_module(node, values)
    if own:
        path, kind = own
        return (
            f"if {path} ({kind.__module__}.{kind.__qualname__}) is a quantized activation, give it "
            f"an adapter: --adapter FILE.py with @activation_adapter('{kind.__name__}'); "
            f"otherwise: {_general(what, last)}"
        )
    return _general(what, last)


def _general(what: str, last: str) -> str:
    for names, advice in _REMEDIES.items():
        if last in names:
            return advice
    if "MaxPool" in what or "max_pool" in what:
        return "use nn.MaxPool2d or nn.AdaptiveMaxPool2d"
    if "SiLU" in what or "GELU" in what or "Sigmoid" in what or "Tanh" in what:
        return "replace the activation by spikeport.QCFS, NQ or CQReLU and train again"
    return "replace it by a supported one, or register an activation with --adapter FILE.py"


def is_on_input(node: fx.Node) -> bool:
    """Whether `node` is arithmetic on the network's input and constants."""
    sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
    return bool(sources) and all(
        source.op == "placeholder" or (_is_arithmetic(source) and is_on_input(source))
        for source in sources
    )


def _is_arithmetic(node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method"):
        return False
    return getattr(node.target, "__name__", node.target) in (*_SHIFTS, *_SCALES)


def _own_module(node: fx.Node, values: Values) -> tuple[str, type] | None:
    """Path and class of the module that contains `node`, if it may be an activation.

    Such a module has no submodules and no weights of more than one axis.
    """
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack or node.op == "call_module":
        return None
    path = str(stack[-1][0])
    module = values.model.get_submodule(path)
    is_layer = any(p.ndim > 1 for p in module.parameters())
    return None if is_layer or any(True for _ in module.children()) else (path, type(module))
