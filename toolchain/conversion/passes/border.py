"""Constants in front of convolutions that read zeros beyond the border.

With an offset o per channel on its source, a convolution with bias b gives

    W (x + o) + b = W x + (b + K) - (what K adds where taps lie in the padding)

where K, a kernel of one input channel, holds the sum of W o over the channels for each tap. The
zeros of the padding do not carry the offset. So `b + K` goes into the bias, exact inside the image,
and -K becomes the kernel of a second convolution, which reads a plane of ones around the image and
zeros inside, as large as the padded image.

Two constant activations make that plane: one fires everywhere in the image in every step, and the
second, which pads and has a bias of one, everywhere it does not hear the first. A convolution that
spreads its source has zeros between the values too: K reads the first of these planes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.program.float_program import (
    CONSTANT,
    Activation,
    Add,
    Conv2d,
    FloatProgram,
    Shape,
)
from toolchain.simulator.planes import correlated

SAME = 1e-12
"""Largest relative difference of what an offset adds to two outputs that counts as none."""


def offset_kernel(conv: Conv2d, offset: np.ndarray) -> np.ndarray:
    """What an offset, (C,), of the source adds per tap: (C_out, 1, K_h, K_w)."""
    grouped = conv.weight.reshape(conv.groups, -1, *conv.weight.shape[1:])
    per_group = offset.reshape(conv.groups, 1, -1, 1, 1)
    return (grouped * per_group).sum(2).reshape(-1, 1, *conv.weight.shape[2:])


def put_with_offset(
    conv: Conv2d, reader: Conv2d, offset: np.ndarray, image: Shape, draft: GraphEditor
) -> None:
    """Put `conv` with what `reader` adds for an offset per channel inside an image, (C, H, W).

    `conv` computes `reader` but for the offset, perhaps with a layer before it.
    """
    kernel = offset_kernel(reader, offset)
    ones = torch.ones((1, 1, *image[1:]), dtype=torch.float64)
    one_channel = replace(reader, weight=kernel, bias=np.zeros(len(kernel)), groups=1)
    added = correlated(one_channel, ones, torch.from_numpy(kernel.copy()))[0].flatten(1).numpy()
    if (np.ptp(added, axis=1) <= SAME * np.abs(added).max()).all():
        draft.put(replace(conv, bias=conv.bias + added[:, 0]))
        return
    inner = replace(conv, name=draft.new_name(f"{conv.name}[0]"))
    name = draft.new_name(f"{conv.name}[1]")
    if reader.upsample == (1, 1):
        inner = replace(inner, bias=conv.bias + kernel.sum((1, 2, 3)))
        source, weight = _border(reader, image, draft), -kernel
        outer = replace(one_channel, weight=weight, padding=(0, 0), overhang=(0, 0))
    else:
        source, outer = _ones(image, draft), one_channel
    outer = replace(outer, name=name, sources=(source,))
    draft.put(Add(conv.name, (draft.put(inner), draft.put(outer))))


def border_notes(program: FloatProgram) -> tuple[str, ...]:
    """A note on each plane: which layers it is for."""
    planes = [n.name for n in program.nodes if isinstance(n, Activation) and n.is_constant]
    notes = []
    for plane in planes:
        readers = [n.name for n in program.consumers(plane) if f"{n.name}.spikes" not in planes]
        layers = [name.rpartition("[")[0] for name in readers]
        if layers:
            notes.append(
                f"{plane}: a population that fires in every step, since the zeros of the padding "
                f"do not carry the constant that the network adds in front of {', '.join(layers)}"
            )
    return tuple(notes)


def _border(reader: Conv2d, image: Shape, draft: GraphEditor) -> str:
    """Name of the plane that is one around an image, where `reader` pads, and zero inside."""
    (_, height, width), (above, left), (down, right) = image, reader.padding, reader.overhang
    sides = f"{above}x{left}" + (f"+{down}x{right}" if down or right else "")
    name = f"border[{height}x{width}+{sides}]"
    if not draft.holds(f"{name}.spikes"):
        minus, inside = np.full((1, 1, 1, 1), -1.0), _ones(image, draft)
        around = replace(
            reader, name=name, sources=(inside,), weight=minus, bias=np.ones(1), groups=1
        )
        draft.put(replace(around, stride=(1, 1), dilation=(1, 1)))
        draft.put(_constant(name))
    return f"{name}.spikes"


def _ones(image: Shape, draft: GraphEditor) -> str:
    """Name of the plane of the size of an image, (C, H, W), that is one everywhere."""
    _, height, width = image
    name = f"ones[{height}x{width}]"
    if not draft.holds(f"{name}.spikes"):
        draft.put(_without_weights(name, (height, width), draft))
        draft.put(_constant(name))
    return f"{name}.spikes"


def _without_weights(name: str, size: tuple[int, int], draft: GraphEditor) -> Conv2d:
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
