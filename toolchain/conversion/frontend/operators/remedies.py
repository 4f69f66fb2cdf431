"""Remedies for operations without a counterpart."""

from __future__ import annotations

from torch import fx
from torch.nn.utils.parametrize import is_parametrized

from toolchain.conversion.frontend.operators.values import Values, called_module

_REMEDIES = {
    ("stack",): "use torch.cat along the channels, dim=1",
    ("max_pool2d_with_indices", "adaptive_max_pool2d_with_indices"): "leave return_indices=False",
    ("max",): "use nn.AdaptiveMaxPool2d(1) for the maximum over an image",
    ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"): "recurrent layers have no "
    "counterpart: convert a network of convolutions and dense layers",
    ("half", "bfloat16", "int", "long"): "leave casts that round out of the forward, and give the "
    "network itself the type: model.half()",
}


def remedy(what: str, node: fx.Node, values: Values) -> str:
    """A remedy for `node`, which calls the unsupported operation `what`."""
    last = what.rpartition(".")[2]
    if node.op == "call_module" and is_parametrized(called_module(node)):
        return "torch.nn.utils.parametrize.remove_parametrizations makes its weights plain"
    own = _own_module(node, values)
    if own:
        path, kind = own
        return (
            f"if {path} ({kind.__module__}.{kind.__qualname__}) is a quantized activation, give it "
            f"an adapter: adapters=FILE.py with @activation_adapter('{kind.__name__}'); "
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
    return "replace it by a supported one, or register an activation with adapters=FILE.py"


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
