"""Reader of lava-dl's own netx files: conv and dense layers with CUBA neurons.

Files that lava-dl's loader changes silently raise an error here with the reason; files that are
read run with the same bits there. The form of the files is that of `export_hdf5` of the slayer
blocks and of `netx/hdf5.py` in lava-dl 0.6.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from exports.netx.group import Group
from exports.netx.layout import CONV, DENSE, FLATTEN, INPUT, LAYERS, OWN
from exports.netx.opened import opened
from exports.netx.stock_loader import (
    CUBA,
    MESSAGE_BITS,
    has_complex_weights,
    refused_complex,
    refused_layer,
    refused_neuron,
)
from exports.netx.stock_weights import loaded_by_stock
from hw_models.cuba_layer import MAX_DELAY, CubaLayer, CubaNeuron
from hw_models.stock.limits import NEURON_BIAS
from toolchain.errors import FormatError, ProgramError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Pair

DEFAULT_NEURON = CubaNeuron(threshold=1 << 17, current_decay=0, voltage_decay=4096)
"""Neuron of a dense layer without one (netx `hdf5.py`, `create_dense`)."""
DEFAULT_TRANSFORM = (64, 0)
"""Weight and bias of an input layer without them (netx `hdf5.py`, `create_input`)."""
DECAY = IntRange(0, 4096)
THRESHOLD = IntRange(0, (1 << 24) - 1)
"""Range of a threshold: LIF models shift it left by 6 in int32."""
BEYOND = 2.0**31
"""First magnitude beyond 32 bits, in which Lava's models store all numbers."""

_DESCRIPTIONS = ("inChannels", "outChannels", "kernelSize", "inFeatures", "outFeatures")
_CONV_GEOMETRY = ("stride", "padding", "dilation", "groups")
KNOWN = {
    INPUT: ("type", "shape", "neuron", "weight", "bias"),
    FLATTEN: ("type", "shape"),
    DENSE: ("type", "shape", "neuron", "weight", "bias", "delay", *_DESCRIPTIONS),
    CONV: ("type", "shape", "neuron", "weight", "bias", *_CONV_GEOMETRY, *_DESCRIPTIONS),
}
TRAINING_ONLY = ("scaleRho", "tauRho", "theta")
"""Names of constants of the surrogate gradient, which inference ignores."""
KNOWN_NEURON = ("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "wgtExp")


def is_stock_net(path: Path) -> bool:
    """Whether the file is a netx file without this project's additions.

    Raises
    ------
    FormatError
        If the file is missing or not HDF5.
    """
    with opened(path) as root:
        return LAYERS in root.names() and OWN not in root.names()


def read_cuba_net(
    path: Path,
    num_layers: int | None = None,
    message_bits: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> list[CubaLayer | None]:
    """The layers of the file at `path`, by their index in it.

    Parameters
    ----------
    num_layers:
        Number of layers to read, from the first, flattens and the input included.
    message_bits:
        Message bits of the incoming spikes, if no input layer replaces them.
    input_shape:
        (C, H, W) or (F,) of the input, for files that do not state it.

    Returns
    -------
    One layer per index, None for layers without neurons.

    Raises
    ------
    FormatError
        If the file is damaged, or contains data that lava-dl's loader does not read, or would read
        as other data.
    """
    with opened(path) as root:
        return list(layers_in(root, num_layers, message_bits, input_shape))


class NoInputShape(FormatError):
    """A file that does not state the shape of its input, which was not given either."""


def layers_in(
    root: Group,
    num_layers: int | None = None,
    message_bits: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> Iterator[CubaLayer | None]:
    """The layers of an open file, one by one; parameters and errors as in `read_cuba_net`."""
    layers = root.group(LAYERS)
    names = layers.numbered("layers")
    reader = _Reader(message_bits, input_shape)
    for name in names[:num_layers]:
        try:
            yield reader.layer(layers.group(name))
        except ProgramError as error:
            raise FormatError(
                "does not describe a layer", node=layers.where(name), found=str(error)
            ) from error


class _Reader:
    """Reads the layers in order and tracks the shape that reaches the next one."""

    def __init__(self, message_bits: int, input_shape: tuple[int, ...] | None) -> None:
        self._bits, self._shape = message_bits, input_shape
        self._flatten = False
        self._inside = False

    def layer(self, group: Group) -> CubaLayer | None:
        """The layer in `group`, None if it computes nothing; FormatError if it is unknown."""
        kind = group.text("type")
        if kind not in KNOWN:
            raise refused_layer(kind, group.where("type"))
        _refuse_unknown(group, KNOWN[kind])
        if kind == FLATTEN:
            self._flatten = True
            return None
        layer = {INPUT: self._input, CONV: self._conv, DENSE: self._dense}[kind](group)
        if layer is not None:
            self._shape, self._bits, self._inside = layer.shape, 0, True
        return layer

    def _input(self, group: Group) -> CubaLayer | None:
        if self._inside:
            raise FormatError("an input must come first", node=group.where())
        shape = _shape(group)
        if self._shape is not None and self._shape != shape:
            raise FormatError(
                "the input shape differs from the one given",
                node=group.where("shape"),
                found=shape,
                allowed=self._shape,
            )
        self._shape = shape
        if "neuron" not in group.names():
            return None
        weight, bias = (
            int(_whole(group, name, ()).item()) if name in group.names() else default
            for name, default in zip(("weight", "bias"), DEFAULT_TRANSFORM, strict=True)
        )
        return CubaLayer(shape, shape, None, _neuron(group), transform=(weight, bias))

    def _conv(self, group: Group) -> CubaLayer:
        if self._shape is None:
            raise NoInputShape(
                "the file does not say how large its input is",
                node=group.where(),
                remedy="give input_shape, (W, H, C)",
            )
        if len(self._shape) != 3 or self._flatten:
            raise FormatError("a convolution needs images", node=group.where(), found=self._shape)
        weight = _whole(group, "weight")
        if weight.ndim == 5 and weight.shape[-1] == 1:
            weight = weight[..., 0]
        synapse = ConvSynapse(
            "before",
            weight,
            stride=_pair(group, "stride"),
            padding=_pair(group, "padding"),
            dilation=_pair(group, "dilation"),
            groups=int(_whole(group, "groups", ()).item()),
        )
        shape = synapse.output_shape(self._shape)
        if shape != _shape(group):
            raise FormatError(
                "the shape differs from what the convolution gives",
                node=group.where("shape"),
                found=_shape(group),
                allowed=shape,
            )
        return CubaLayer(
            shape,
            self._shape,
            synapse,
            _neuron(group),
            _bias(group, shape[0]),
            message_bits=self._bits,
        )

    def _dense(self, group: Group) -> CubaLayer:
        size = prod(_shape(group))
        if has_complex_weights(group):
            raise refused_complex(group)
        weight = _whole(group, "weight")
        if weight.ndim == 1 and weight.size % size == 0:
            weight = weight.reshape(size, -1)
        if weight.ndim != 2 or len(weight) != size:
            raise FormatError(
                "dense weights do not fit the shape",
                node=group.where("weight"),
                found=weight.shape,
                allowed=f"({size}, inputs)",
            )
        _refuse_changed(group, weight)
        source = self._source_of_dense(group, weight.shape[1])
        neuron = _neuron(group) if "neuron" in group.names() else DEFAULT_NEURON
        return CubaLayer(
            (size,),
            source,
            DenseSynapse("before", weight),
            neuron,
            _bias(group, size),
            _delays(group, weight.shape),
            self._bits,
        )

    def _source_of_dense(self, group: Group, inputs: int) -> tuple[int, ...]:
        """(F,), or (C, H, W) after a flatten, whose order the weights have."""
        source = self._shape if self._inside and self._shape else (inputs,)
        if len(source) > 1 and not self._flatten:
            raise FormatError("a flatten is missing in front of it", node=group.where())
        if prod(source) != inputs:
            raise FormatError(
                "dense weights do not fit the layer before",
                node=group.where("weight"),
                found=inputs,
                allowed=prod(source),
            )
        self._flatten = False
        return source


def _refuse_unknown(group: Group, known: tuple[str, ...]) -> None:
    strange = sorted(set(group.names()) - set(known))
    if strange:
        raise FormatError(
            "lava-dl's loader has no use for this and silently drops it",
            node=group.where(strange[0]),
            found=", ".join(strange),
            allowed=", ".join(known),
        )


def _refuse_changed(group: Group, weight: np.ndarray) -> None:
    loaded = loaded_by_stock(weight)
    if loaded is None or not np.array_equal(loaded, weight):
        changed = weight.size if loaded is None else int((loaded != weight).sum())
        raise FormatError(
            "lava-dl's loader would run other weights than the file holds",
            node=group.where("weight"),
            found=f"{weight.min()} .. {weight.max()}, {changed} of {weight.size} changed",
            allowed="weights of both signs within -256 .. 254",
            remedy="scale weights and threshold down, or split the layer by sign",
        )


def _shape(group: Group) -> tuple[int, ...]:
    shape = tuple(int(size) for size in group.integers("shape", 1))
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise FormatError("is not a shape", node=group.where("shape"), found=shape)
    return shape


def _neuron(group: Group) -> CubaNeuron:
    neuron = group.group("neuron")
    kind = neuron.text("type")
    if kind not in CUBA:
        raise refused_neuron(kind, neuron.where("type"))
    if MESSAGE_BITS in neuron.names():
        raise FormatError(
            "lava-dl's loader takes this number for a group, and building hangs",
            node=neuron.where(MESSAGE_BITS),
            remedy="remove it and give input_message_bits",
        )
    _refuse_unknown(neuron, (*KNOWN_NEURON, *TRAINING_ONLY))
    for name, default in (("refDelay", 1), ("gradedSpike", 0), ("wgtExp", 0)):
        if name in neuron.names() and neuron.number(name) != default:
            raise FormatError(
                "lava-dl's loader silently drops this",
                node=neuron.where(name),
                found=neuron.number(name),
                allowed=default,
            )
    values = {name: _whole(neuron, name, ()).item() for name in ("vThMant", "iDecay", "vDecay")}
    THRESHOLD.check(neuron.where("vThMant"), np.array(values["vThMant"]))
    for name in ("iDecay", "vDecay"):
        DECAY.check(neuron.where(name), np.array(values[name]))
    return CubaNeuron(values["vThMant"], values["iDecay"], values["vDecay"])


def _bias(group: Group, channels: int) -> np.ndarray | None:
    if "bias" not in group.names():
        return None
    bias = _whole(group, "bias").reshape(-1)
    if bias.size not in (1, channels):
        raise FormatError(
            "one bias per channel, or one for all",
            node=group.where("bias"),
            found=bias.size,
            allowed=channels,
        )
    NEURON_BIAS.check(group.where("bias"), bias)
    return np.broadcast_to(bias, (channels,)).astype(np.int32)


def _delays(group: Group, shape: tuple[int, ...]) -> np.ndarray | None:
    """Delays of every synapse, int32 (F_out, F_in): given per synapse, per output or per input."""
    if "delay" not in group.names():
        return None
    delays = _whole(group, "delay")
    IntRange(0, MAX_DELAY).check(group.where("delay"), delays)
    if delays.ndim == 1:
        delays = delays[:, None] if delays.size == shape[0] else delays[None, :]
    try:
        return np.broadcast_to(delays, shape).astype(np.int32)
    except ValueError as error:
        raise FormatError(
            "delays do not fit the weights",
            node=group.where("delay"),
            found=delays.shape,
            allowed=shape,
        ) from error


def _pair(group: Group, name: str) -> Pair:
    """(vertical, horizontal), from two integers or one for both."""
    values = _whole(group, name).reshape(-1)
    if values.size not in (1, 2):
        raise FormatError("must be one integer or two", node=group.where(name), found=values.size)
    return (int(values[0]), int(values[-1]))


def _whole(group: Group, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Integers of any stored type, as int64; in the given shape, if there is one."""
    values: Any = group.numbers(name)
    if values.size == 0 or not np.isfinite(values).all() or (values != np.trunc(values)).any():
        raise FormatError(
            "lava-dl's loader cuts what is not a whole number",
            node=group.where(name),
            found="no values" if values.size == 0 else f"{values.reshape(-1)[:4]} ...",
            remedy="quantize before export",
        )
    if (np.abs(values.astype(np.float64)) >= BEYOND).any():
        raise FormatError("values beyond 32 bits", node=group.where(name))
    if shape is not None and values.size != prod(shape):
        raise FormatError(f"must hold {prod(shape)} values", node=group.where(name))
    whole = np.asarray(values).astype(np.int64)
    return whole if shape is None else whole.reshape(shape)
