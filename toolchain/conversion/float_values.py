"""Evaluation of a FloatProgram in torch, in float64, to check tracing and folding."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import singledispatch
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolchain.conversion.frontend.user_module import hooked, outputs, sharing
from toolchain.errors import ConversionError, ProgramError
from toolchain.learning.activations import QuantizedActivation
from toolchain.program.float_program import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    FloatProgram,
    Linear,
    MaxPool2d,
)
from toolchain.simulator.planes import correlated, seen

BATCH = 32
BATCH_BYTES = 256 << 20
"""Most samples at once, and the most that their values in all nodes may take."""


@torch.no_grad()
def evaluate(program: FloatProgram, samples: Tensor, *, clipped: Collection[str] = ()) -> Tensor:
    """The only output, (N, ...), for normalised samples (N, ...), both float64.

    The activations named in `clipped` only clip to [0, threshold]; the others quantize.
    """
    (output,) = program.outputs
    parts = torch.split(samples, samples_at_once(program))
    values = [node_values(program, p, clipped=clipped, wanted=program.outputs) for p in parts]
    return torch.cat([v[output] for v in values])


@torch.no_grad()
def node_values(
    program: FloatProgram,
    samples: Tensor,
    *,
    clipped: Collection[str] = (),
    wanted: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """The output (N, ...) of every node by name; other arguments as in `evaluate`.

    With `wanted`, values of other nodes are freed once they have been read.
    """
    values = {program.input.name: samples.double()}
    last = {source: node.name for node in program.nodes for source in node.sources}
    for node in program.nodes[1:]:
        inputs = [values[s] for s in node.sources]
        values[node.name] = apply_node(node, node.name not in clipped, *inputs)
        for source in set(node.sources):
            if wanted is not None and source not in wanted and last[source] == node.name:
                del values[source]
    return values


def samples_at_once(program: FloatProgram) -> int:
    """Number of samples whose values in all nodes are kept at once, at least one."""
    sample = 8 * sum(prod(shape) for shape in program.shapes().values())
    return max(1, min(BATCH, BATCH_BYTES // sample))


def _tensor(array: np.ndarray, like: Tensor | None = None) -> Tensor:
    tensor = sharing(array)  # nothing here writes to it
    if like is None or tensor.shape[0] == 1:
        return tensor
    return tensor.reshape(1, -1, *([1] * (like.ndim - 2)))


@singledispatch
def apply_node(node: object, quantized: bool, *inputs: Tensor) -> Tensor:
    """The output of one node for its inputs (N, ...), float64 or float32.

    An activation quantizes or only clips. Raises ProgramError for an unknown node.
    """
    raise ProgramError("no evaluation for this node", found=type(node).__name__)


@apply_node.register
def _(node: Conv2d, quantized: bool, x: Tensor) -> Tensor:
    w, b = _tensor(node.weight).to(x.dtype), _tensor(node.bias).to(x.dtype)
    return correlated(node, x, w, b)


@apply_node.register
def _(node: Linear, quantized: bool, x: Tensor) -> Tensor:
    return F.linear(x, _tensor(node.weight).to(x.dtype), _tensor(node.bias).to(x.dtype))


@apply_node.register
def _(node: BatchNorm, quantized: bool, x: Tensor) -> Tensor:
    return x * _tensor(node.gain, x) + _tensor(node.offset, x)


@apply_node.register
def _(node: AvgPool2d, quantized: bool, x: Tensor) -> Tensor:
    if node.adaptive:
        return F.adaptive_avg_pool2d(x, node.adaptive)
    return F.avg_pool2d(
        x, node.kernel, node.stride, node.padding, node.ceil_mode, node.count_padding
    )


@apply_node.register
def _(node: MaxPool2d, quantized: bool, x: Tensor) -> Tensor:
    return max_pool(node, x)


def max_pool(node: MaxPool2d, x: Tensor) -> Tensor:
    """Largest values of the windows of `x`, (N, C, H, W)."""
    if node.is_even:
        return F.max_pool2d(x, node.kernel, node.stride, node.padding, node.dilation)
    return F.max_pool2d(seen(node, x, -torch.inf), node.kernel, node.stride, 0, node.dilation)


@apply_node.register
def _(node: Add, quantized: bool, *inputs: Tensor) -> Tensor:
    return torch.stack(inputs).sum(0)


@apply_node.register
def _(node: Concat, quantized: bool, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, 1)


@apply_node.register
def _(node: Flatten, quantized: bool, x: Tensor) -> Tensor:
    return x.flatten(1)


@apply_node.register
def _(node: Activation, quantized: bool, x: Tensor) -> Tensor:
    lam = _tensor(node.threshold, x).to(x.dtype)
    if not quantized:
        return torch.minimum(x.clamp(min=0.0), lam)
    shift = _tensor(np.atleast_1d(node.shift), x).to(x.dtype)
    levels = (x / lam * node.levels + shift).floor().clamp(0, node.levels)
    return lam * levels / node.levels


TIES = 0.25
"""Largest share of samples in which a value may lie on a tie between two levels."""
WITHOUT_TIES = 4
"""Number of samples if no value can lie on a tie; then every sample must agree."""
AT_ONCE = 1
"""Samples of one forward: a few large images at once would need gigabytes."""
TRACE_TOLERANCE = 1e-6
"""Relative tolerance; float64 rounding over a deep network is several orders below it."""


@torch.no_grad()
def check_against_module(
    model: nn.Module,
    program: FloatProgram,
    samples: Tensor,
    left_out: Sequence[Callable[[Tensor], Tensor] | None] = (),
) -> None:
    """Compare a float program with its module in float64, on samples (N, ...), over all outputs.

    `left_out` holds, per output, the function that the network applies last and the program does
    not, or None; empty if there is none.

    This checks tracing and every pass. A quantized value on a tie can change its level by rounding,
    so the project's own activation modules are compared in clipped mode. Adapted and functional
    activations quantize; there the share of samples that differ distinguishes a few ties from a
    wrong program. Plain ReLUs are compared as ReLUs: no threshold is measured yet.

    Raises
    ------
    ConversionError
        If the two differ: a bug of this project, or of an adapter.
    UnsupportedModuleError
        If the module fails.
    """
    activations = [n for n in program.nodes if isinstance(n, Activation)]
    clipped = {
        n.name
        for n in activations
        if n.is_constant or n.bound is not None or _is_own_module(model, n.name)
    }
    allowed = TIES
    if len(clipped) == len(activations):
        allowed, samples = 0.0, samples[:WITHOUT_TIES]
    weights = {f"{n.name}.weight": n.weight for n in program.nodes if isinstance(n, Linear)}
    expected = outputs(model, samples, equal=weights, at_once=AT_ONCE)
    if len(expected) != len(program.outputs):
        raise _differ(model, ", ".join(program.outputs), f"{len(expected)} outputs of the network")
    parts = [
        node_values(program, few, clipped=clipped, wanted=program.outputs)
        for few in torch.split(samples, AT_ONCE)
    ]
    values = {name: torch.cat([part[name] for part in parts]) for name in program.outputs}
    for name, wanted, last in zip(
        program.outputs, expected, left_out or [None] * len(expected), strict=True
    ):
        found = values[name] if last is None else last(values[name])
        same_shape = wanted.shape == found.shape
        each = (wanted - found if same_shape else wanted * np.nan).abs()
        difference = each.reshape(len(each), -1).amax(1)
        # Not "greater than": a NaN difference is an error too.
        wrong = ~(difference <= TRACE_TOLERANCE * (1.0 + wanted.abs().max()))
        if float(wrong.double().mean()) > allowed:
            raise _differ(
                model,
                name,
                f"{int(wrong.sum())} of {len(wrong)} samples differ, "
                f"by up to {float(difference.max()):.3g}",
            )


def _differ(model: nn.Module, name: str, found: str) -> ConversionError:
    hooks = hooked(model)
    remedy = "check the adapter of its activations; if it has none, please report this"
    if hooks:
        remedy = (
            f"hooks on the forward are not traced ({', '.join(hooks[:3])}): put what they do into "
            "modules; otherwise " + remedy
        )
    return ConversionError(
        "the traced program does not compute what the network computes",
        node=f"{type(model).__name__}, output {name}",
        found=found,
        remedy=remedy,
    )


def _is_own_module(model: nn.Module, name: str) -> bool:
    """Whether a node comes from one of the project's own modules.

    "#2" marks a second call, "[0]" the part of a concatenation's first operand.
    """
    path = re.split(r"[#\[]", name, maxsplit=1)[0]
    try:
        return isinstance(model.get_submodule(path), QuantizedActivation)
    except AttributeError:
        return False
