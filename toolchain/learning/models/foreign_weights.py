"""Tensors of torchvision's and timm's ResNets and VGGs under the names they have here.

Names change, the shape of timm's dense layers of VGG, which it keeps as convolutions over the whole
image, and the biases in front of a BatchNorm, which go into its mean: VGGs here have none, and
`(x + b) - mean = x - (mean - b)`. Sources: torchvision `models/resnet.py`, `models/vgg.py`
(`*_bn`); timm `models/resnet.py`, `models/vgg.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_RESNET_BLOCK = re.compile(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(.+)")
_RESNET_SHORTCUT = re.compile(r"layer(\d)\.(\d+)\.downsample\.([01])\.(.+)")
_RESNET_ENDS = {"conv1": "stem.0", "bn1": "stem.1", "fc": "classifier"}
_VGG_ENDS = {
    "classifier.3": "classifier.2",
    "classifier.6": "classifier.4",
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.2",
    "head.fc": "classifier.4",
}
"""Without the dropouts between them (torchvision), or under names of their own (timm)."""


@dataclass(frozen=True)
class Renamed:
    """Tensors under the names they have here.

    Attributes
    ----------
    original:
        The name each of `tensors` came with.
    """

    tensors: dict[str, Tensor]
    original: dict[str, str]


def under_our_names(tensors: Mapping[str, Tensor]) -> Renamed:
    """The same tensors, renamed where they are of a network of torchvision or timm.

    What is not known keeps its name, so that whoever loads them can tell what did not fit.
    """
    if "layer1.0.conv1.weight" in tensors:
        return _resnet(tensors)
    if {"classifier.6.weight", "pre_logits.fc1.weight"} & set(tensors):
        return _vgg(_with_means(tensors))
    return Renamed(dict(tensors), {name: name for name in tensors})


def _resnet(tensors: Mapping[str, Tensor]) -> Renamed:
    blocks = sorted({(int(m[1]), int(m[2])) for n in tensors if (m := _RESNET_BLOCK.match(n))})
    renamed: dict[str, str] = {}
    for name in tensors:
        layer, _, what = name.rpartition(".")
        block, shortcut = _RESNET_BLOCK.match(name), _RESNET_SHORTCUT.match(name)
        if block:
            place = blocks.index((int(block[1]), int(block[2])))
            # Convolution, BatchNorm and activation take turns.
            index = 3 * (int(block[4]) - 1) + (block[3] == "bn")
            new = f"blocks.{place}.branch.{index}.{block[5]}"
        elif shortcut:
            place = blocks.index((int(shortcut[1]), int(shortcut[2])))
            new = f"blocks.{place}.shortcut.{shortcut[3]}.{shortcut[4]}"
        else:
            new = f"{_RESNET_ENDS.get(layer, layer)}.{what}"
        renamed[new] = name
    return Renamed({new: tensors[old] for new, old in renamed.items()}, renamed)


def _with_means(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases of convolutions in the means of the BatchNorms behind them."""
    result = dict(tensors)
    for name in tensors:
        found = re.fullmatch(r"features\.(\d+)\.bias", name)
        mean = f"features.{int(found[1]) + 1}.running_mean" if found else ""
        if mean in tensors:
            result[mean] = tensors[mean] - result.pop(name)
    return result


def _vgg(tensors: Mapping[str, Tensor]) -> Renamed:
    renamed, original = {}, {}
    for name, tensor in tensors.items():
        layer, _, what = name.rpartition(".")
        dense = layer in _VGG_ENDS and tensor.ndim == 4
        new = f"{_VGG_ENDS.get(layer, layer)}.{what}"
        renamed[new], original[new] = (tensor.flatten(1) if dense else tensor), name
    return Renamed(renamed, original)
