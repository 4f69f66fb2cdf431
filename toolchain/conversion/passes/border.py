"""Constants in front of convolutions that pad: populations that fire around the image.

With an offset o per channel on its source, a convolution with bias b gives

    W (x + o) + b = W x + (b + K) - (what K adds where taps lie in the padding)

where K, a kernel of one input channel, holds the sum of W o over the channels for each tap. The
zeros of the padding do not carry the offset. So `b + K` goes into the bias, exact inside the image,
and -K becomes the kernel of a second convolution, which reads a plane of ones around the image and
zeros inside, as large as the padded image.

Two constant activations make that plane: one fires everywhere in the image in every step, and the
second, which pads and has a bias of one, everywhere it does not hear the first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.program.float_program import CONSTANT, Activation, Add, Conv2d, FloatProgram
from toolchain.program.synapse import Pair


def offset_kernel(conv: Conv2d, offset: np.ndarray) -> np.ndarray:
    """What an offset, (C,), of the source adds per tap: (C_out, 1, K_h, K_w)."""
    grouped = conv.weight.reshape(conv.groups, -1, *conv.weight.shape[1:])
    per_group = offset.reshape(conv.groups, 1, -1, 1, 1)
    return (grouped * per_group).sum(2).reshape(-1, 1, *conv.weight.shape[2:])


def put_inside(conv: Conv2d, kernel: np.ndarray, draft: GraphEditor) -> None:
    """Put `conv` without what `kernel`, which its bias holds, adds where taps lie in the padding.

    `kernel` is that of `offset_kernel`, with the spacing of the taps of `conv`.
    """
    if not (any(conv.padding) and kernel.any()):
        draft.put(conv)
        return
    inner = draft.put(replace(conv, name=draft.new_name(f"{conv.name}[0]")))
    image = draft.shape(conv.source)
    border = _border((image[1], image[2]), conv.padding, draft)
    outer = Conv2d(
        draft.new_name(f"{conv.name}[1]"),
        (border,),
        -kernel,
        np.zeros_like(conv.bias),
        conv.stride,
        (0, 0),
        conv.dilation,
        1,
    )
    draft.put(Add(conv.name, (inner, draft.put(outer))))


def border_notes(program: FloatProgram) -> tuple[str, ...]:
    """A note on each plane: which layers it is for."""
    planes = [n for n in program.nodes if isinstance(n, Activation) and n.is_constant]
    users = {n.source: [u.name for u in program.consumers(n.name)] for n in planes}
    return tuple(
        f"{name}: a population that fires in every step around the image, since the zeros of the "
        "padding do not carry the constant that the network adds in front of "
        + ", ".join(layer.rpartition("[")[0] for layer in layers)
        for name, layers in users.items()
        if name.startswith("border")
    )


def _border(size: Pair, padding: Pair, draft: GraphEditor) -> str:
    """Name of the plane that is one around an image of this size, and zero inside."""
    name = f"border[{size[0]}x{size[1]}+{padding[0]}x{padding[1]}]"
    if not draft.holds(f"{name}.spikes"):
        minus = np.full((1, 1, 1, 1), -1.0)
        inside = _ones(size, draft)
        draft.put(Conv2d(name, (inside,), minus, np.ones(1), (1, 1), padding, (1, 1), 1))
        draft.put(_constant(name))
    return f"{name}.spikes"


def _ones(size: Pair, draft: GraphEditor) -> str:
    """Name of the plane of this size that is one everywhere."""
    name = f"ones[{size[0]}x{size[1]}]"
    if not draft.holds(f"{name}.spikes"):
        draft.put(_without_weights(name, size, draft))
        draft.put(_constant(name))
    return f"{name}.spikes"


def _without_weights(name: str, size: Pair, draft: GraphEditor) -> Conv2d:
    """A convolution of the network's first image, without weights but with a bias of one."""
    names = (node.name for node in draft.nodes() if draft.is_spiking(node.name))
    source = next(name for name in names if len(draft.shape(name)) == 3)
    channels, *image = draft.shape(source)
    stride, padding, kernel = [], [], []
    for own, wanted in zip(image, size, strict=True):
        stride.append(max(own // wanted, 1))
        padding.append(max(-((own - wanted) // 2), 0))
        kernel.append(own + 2 * padding[-1] - stride[-1] * (wanted - 1))
    return Conv2d(
        name,
        (source,),
        np.zeros((1, channels, *kernel)),
        np.ones(1),
        (stride[0], stride[1]),
        (padding[0], padding[1]),
        (1, 1),
        1,
    )


def _constant(name: str) -> Activation:
    return Activation(f"{name}.spikes", (name,), np.ones(1), 1, 0.0, CONSTANT)
