"""One walk over the layers of lava-dl's own netx files: their values, and every fault in them.

The reader raises the first fault for which it refuses a file, lint lists them all. A new layer type
is one method of `_Walk` and one entry of `_LAYER_TYPES`. The form of the files is that of
`export_hdf5` of the slayer blocks and of `netx/hdf5.py` in lava-dl 0.6.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from exports.netx.group import Group
from exports.netx.layout import CONV, DENSE, FLATTEN, INPUT, LAYERS
from exports.netx.lint.rules import RULES, Level
from exports.netx.stock_loader import (
    COMPLEX,
    CUBA,
    MESSAGE_BITS,
    RESONATOR,
    has_complex_weights,
    loader_runs_layer,
    loader_runs_neuron,
    refused_complex,
    refused_layer,
    refused_neuron,
)
from exports.netx.stock_weights import MIXED_LIMITS, loaded_by_stock
from hw_models.cuba_layer import MAX_DELAY, CubaLayer, CubaNeuron
from hw_models.stock.limits import CONV_SUM_BITS, MAX_GEOMETRY, MAX_GROUPS, NEURON_BIAS
from toolchain.errors import FormatError, SpikeportError
from toolchain.int_range import IntRange
from toolchain.program.spike_ranges import weight_sums
from toolchain.program.synapse import ConvSynapse, DenseSynapse, Pair

DEFAULT_NEURON = CubaNeuron(threshold=1 << 17, current_decay=0, voltage_decay=4096)
"""Neuron of a dense layer without one (netx `hdf5.py`, `create_dense`)."""
DEFAULT_TRANSFORM = {"weight": 64, "bias": 0}
"""Of an input layer without them (netx `hdf5.py`, `create_input`)."""
DECAY = IntRange(0, 4096)
DELAY = IntRange(0, MAX_DELAY)
THRESHOLD = IntRange(0, (1 << 24) - 1)
"""Range of a threshold: LIF models shift it left by 6 in int32."""
HIGHEST_FIRING = 131071
"""Largest threshold that a membrane potential of 24 bits, 6 of them a fraction, can exceed."""
SMALL_PLANE = 127
"""Most rows or columns that stock Conv can pad in 8 bits."""
CONV_BITS = IntRange(-256, 255)
"""Range of a synapse with 8 bits and a sign."""
BEYOND = 2.0**31
"""First magnitude beyond 32 bits, in which Lava's models store all numbers."""

PAIRS = ("stride", "padding", "dilation")
KNOWN_NEURON = ("type", "iDecay", "vDecay", "vThMant", "refDelay", "gradedSpike", "wgtExp")
TRAINING_ONLY = ("scaleRho", "tauRho", "theta")
"""Names of constants of the surrogate gradient, which inference ignores."""
RUN_HERE = ("conv-groups", "wide-geometry", "never-fires")
"""Rules for files that the loader cannot run as they are, and `Network` can."""

Report = Callable[[str, FormatError, bool], None]
"""Takes a fault: its rule's id, the reader's error, and whether the reader refuses the file."""


class NoInputShape(FormatError):
    """A file that does not state the shape of its input, which was not given either."""


def walk(
    root: Group,
    report: Report,
    num_layers: int | None = None,
    message_bits: int = 0,
    input_shape: tuple[int, ...] | None = None,
) -> Iterator[CubaLayer | None]:
    """The layers of an open file, one by one; every fault goes to `report`, in order.

    Parameters
    ----------
    num_layers, message_bits, input_shape:
        As in `exports.netx.cuba_reader.read_cuba_net`.

    Returns
    -------
    One layer per index, None for layers without neurons. After a fault that the reader refuses, the
    values mean nothing: only what follows is checked.
    """
    layers = root.group(LAYERS)
    try:
        names = layers.numbered("layers")
    except FormatError as error:
        report("malformed", error, True)
        names = sorted((n for n in layers.names() if n.isdecimal()), key=int)
    steps = _Walk(report, message_bits, input_shape)
    for name in names[:num_layers]:
        layer = None
        try:
            layer = steps.layer(layers.group(name))
        except SpikeportError as error:
            if not isinstance(error, FormatError):
                error = FormatError(
                    error.message, node=layers.where(name), found=error.found, allowed=error.allowed
                )
            report("malformed", error, True)
        yield layer


class _Walk:
    """Takes the layers in order and tracks the shape that reaches the next one.

    Whatever cannot be read is None, after a report of the fault.
    """

    def __init__(
        self, report: Report, message_bits: int, input_shape: tuple[int, ...] | None
    ) -> None:
        self._report = report
        self._bits, self._shape = message_bits, input_shape
        self._flattened = False
        self._layers = 0
        self._inside = False
        """Whether spikes come from a layer of the file."""

    def layer(self, group: Group) -> CubaLayer | None:
        """The next layer."""
        kind = group.text("type")
        if kind not in _LAYER_TYPES:
            rule = "only-there" if loader_runs_layer(kind) else "unknown-layer"
            self._report(rule, refused_layer(kind, group.where("type")), True)
            self._shape, self._flattened, self._inside = None, False, True
            self._layers += 1
            return None
        read, known = _LAYER_TYPES[kind]
        self._check_names(group, ("type", "shape", *known))
        layer = read(self, group)
        self._layers += kind != FLATTEN
        return layer

    def _input(self, group: Group) -> CubaLayer | None:
        if self._layers:
            found = "an input behind another layer"
            self._say("malformed", group, found, refused=self._inside)
        given, self._shape = self._shape, self._declared(group)
        shape = self._shape
        if not self._inside and given not in (None, shape):
            self._say("malformed", group, f"shape {shape}, where {given} is given", "shape")
        if "neuron" not in group.names():
            return None
        self._inside = True
        self._say("input-numpy", group, "neuron", "neuron")
        neuron = self._neuron(group)
        weight, bias = (
            self._one(group, name) if name in group.names() else default
            for name, default in DEFAULT_TRANSFORM.items()
        )
        if shape is None or neuron is None or weight is None or bias is None:
            return None
        return CubaLayer(shape, shape, None, neuron, transform=(weight, bias))

    def _flatten(self, group: Group) -> None:
        if not self._layers:
            found = "a flatten before the first layer does not transpose"
            self._say("flatten", group, found, refused=False)
        if self._flattened:
            self._say("flatten", group, "a second flatten", refused=False)
        self._flattened = True

    def _dense(self, group: Group) -> CubaLayer | None:
        source, shape = self._shape, self._declared(group)
        flattened, self._flattened = self._flattened, False
        inside, self._inside = self._inside, True
        size = None if shape is None else prod(shape)
        self._shape = None if size is None else (size,)
        if source is not None and not flattened:
            is_image = len(source) == 3 and prod(source) > max(source)
            if is_image or (inside and len(source) > 1):
                found = f"none in front of it, where {source} arrives"
                self._say("flatten", group, found, refused=inside)
        if has_complex_weights(group):
            error = refused_complex(group)
            rule = "only-there" if error.found == COMPLEX else "half-complex"
            self._report(rule, error, True)
            weight = neuron = None
        else:
            weight = self._whole(group, "weight")
            neuron = self._neuron(group, DEFAULT_NEURON)
        bias = self._bias(group, size)
        if weight is not None and weight.ndim == 1 and size and weight.size % size == 0:
            weight = weight.reshape(size, -1)
        inputs = None if weight is None or weight.ndim != 2 else weight.shape[1]
        delays = self._delays(group, size, inputs)
        if weight is None:
            return None
        if inputs is None or len(weight) != (size or len(weight)):
            found = f"shape {weight.shape}, for {size} outputs"
            self._say("malformed", group, found, "weight")
        elif source is not None and inputs != prod(source):
            found = f"{inputs} inputs, where {prod(source)} arrive"
            self._say("malformed", group, found, "weight", refused=inside)
        if inputs is None:
            return None
        self._check_loaded(group, weight)
        if size is None or neuron is None:
            return None
        if source is None or not inside:
            source = (inputs,)
        bits = 0 if inside else self._bits
        synapse = DenseSynapse("before", weight)
        return CubaLayer((size,), source, synapse, neuron, bias, delays, bits)

    def _check_loaded(self, group: Group, weight: np.ndarray) -> None:
        """Check that the loader runs these dense weights, (F_out, F_in), unchanged."""
        low, high = int(weight.min()), int(weight.max())
        loaded = loaded_by_stock(weight)
        if low == high == 0:
            self._say("weights-all-zero", group, f"{weight.size} zeros", "weight")
        elif loaded is None or not np.array_equal(loaded, weight):
            changed = weight.size if loaded is None else int((loaded != weight).sum())
            rule = "weights-changed"
            if loaded is not None and not loaded.any():
                rule = "weights-zeroed"
            elif low < MIXED_LIMITS[0] or high > MIXED_LIMITS[1]:
                rule = "weights-clipped"
            found = f"{low} .. {high}, {changed} of {weight.size} changed"
            self._say(rule, group, found, "weight")

    def _conv(self, group: Group) -> CubaLayer | None:
        source, shape = self._shape, self._declared(group)
        inside, self._inside = self._inside, True
        self._shape = shape
        if source is None:
            error = NoInputShape(
                "the file does not say how large its input is",
                node=group.where(),
                remedy="give input_shape, (W, H, C)",
            )
            self._report("malformed", error, True)
        elif len(source) != 3:
            self._say("malformed", group, f"a convolution where {source} arrives")
        if self._flattened:
            self._say("flatten", group, "a convolution behind a flatten")
        if source is not None and max(source[1:], default=0) > SMALL_PLANE:
            self._say("large-input", group, f"{source[-2]} x {source[-1]}", "shape")
        if "delay" in group.names():
            self._say("dropped-delay", group, "delay", "delay")
        neuron = self._neuron(group)
        bias = self._bias(group, None if shape is None else shape[0])
        synapse = self._convolution(group)
        if synapse is None:
            return None
        if source is not None and len(source) == 3:
            gives = synapse.output_shape(source)
            if shape is not None and gives != shape:
                self._say(
                    "malformed",
                    group,
                    f"shape {shape}, where the convolution gives {gives}",
                    "shape",
                )
        positive, negative = weight_sums(synapse)
        low, high = int(negative.min()), int(positive.max())
        if not IntRange.signed(CONV_SUM_BITS).contains(low, high):
            self._say("wraps", group, f"{low} .. {high} with unary spikes", "weight")
        if source is None or shape is None or neuron is None:
            return None
        bits = 0 if inside else self._bits
        return CubaLayer(shape, source, synapse, neuron, bias, message_bits=bits)

    def _convolution(self, group: Group) -> ConvSynapse | None:
        """The synapse, after a check of the numbers that stock Conv stores in 8 bits."""
        weight = self._whole(group, "weight", "conv-wide-weights", CONV_BITS)
        if weight is not None and weight.ndim == 5 and weight.shape[-1] == 1:
            weight = weight[..., 0]
        if weight is not None and weight.ndim != 4:
            found = f"shape {weight.shape}, not (O, I, H, W)"
            self._say("malformed", group, found, "weight")
            weight = None
        pairs = [pair for name in PAIRS if (pair := self._pair(group, name)) is not None]
        groups = self._one(group, "groups")
        sizes = [*sum(pairs, ()), *(() if weight is None else weight.shape[2:])]
        if max(sizes, default=0) > MAX_GEOMETRY:
            self._say("wide-geometry", group, max(sizes))
        if groups is not None and groups > MAX_GROUPS:
            self._say("conv-groups", group, groups, "groups")
        if weight is None or groups is None or len(pairs) < len(PAIRS):
            return None
        return ConvSynapse("before", weight, pairs[0], pairs[1], pairs[2], groups)

    def _neuron(self, layer: Group, default: CubaNeuron | None = None) -> CubaNeuron | None:
        if "neuron" not in layer.names():
            if default is None:
                self._say("malformed", layer, "a convolution without a neuron")
            return default
        neuron = layer.group("neuron")
        kind = neuron.text("type")
        if MESSAGE_BITS in neuron.names():
            self._say("message-bits", neuron, MESSAGE_BITS, MESSAGE_BITS)
        if kind not in CUBA:
            rule = "only-there" if loader_runs_neuron(kind) else "unknown-neuron"
            rule = "half-complex" if RESONATOR in kind else rule
            self._report(rule, refused_neuron(kind, neuron.where("type")), True)
            return None
        self._check_names(neuron, (*KNOWN_NEURON, *TRAINING_ONLY, MESSAGE_BITS))
        for name, rule, plain in (
            ("refDelay", "refractory", 1),
            ("gradedSpike", "graded-spikes", 0),
            ("wgtExp", "weight-exponent", 0),
        ):
            if name in neuron.names() and neuron.number(name) != plain:
                self._say(rule, neuron, neuron.number(name), name)
        threshold = self._one(neuron, "vThMant", "bad-threshold", THRESHOLD)
        if threshold is not None and HIGHEST_FIRING < threshold <= THRESHOLD.high:
            self._say("never-fires", neuron, threshold, "vThMant")
        current, voltage = (
            self._one(neuron, name, "bad-decay", DECAY) for name in ("iDecay", "vDecay")
        )
        if threshold is None or current is None or voltage is None:
            return None
        return CubaNeuron(threshold, current, voltage)

    def _bias(self, group: Group, channels: int | None) -> np.ndarray | None:
        """Biases, int32 (C,): given per channel, or one for all."""
        if "bias" not in group.names():
            return None
        bias = self._whole(group, "bias", "wide-bias", NEURON_BIAS)
        if bias is None or channels is None:
            return None
        if bias.size not in (1, channels):
            self._say("malformed", group, f"{bias.size} values for {channels} channels", "bias")
            return None
        return np.broadcast_to(bias.reshape(-1), (channels,)).astype(np.int32)

    def _delays(self, group: Group, outputs: int | None, inputs: int | None) -> np.ndarray | None:
        """Delays, int32 (F_out, F_in): given per synapse, per output or per input."""
        if "delay" not in group.names():
            return None
        delays = self._whole(group, "delay", "long-delay", DELAY)
        if delays is None or outputs is None or inputs is None:
            return None
        if delays.ndim == 1:
            delays = delays[:, None] if delays.size == outputs else delays[None, :]
        try:
            return np.broadcast_to(delays, (outputs, inputs)).astype(np.int32)
        except ValueError:
            found = f"delays do not fit the weights: {delays.shape}"
            self._say("malformed", group, found, "delay")
            return None

    def _declared(self, group: Group) -> tuple[int, ...] | None:
        shape = tuple(int(size) for size in group.integers("shape", 1))
        if 1 <= len(shape) <= 3 and min(shape) >= 1:
            return shape
        self._say("malformed", group, f"{shape} is not a shape", "shape")
        return None

    def _pair(self, group: Group, name: str) -> Pair | None:
        """(vertical, horizontal), from two integers or one for both."""
        values = self._whole(group, name)
        if values is None or values.size in (1, 2):
            return None if values is None else (int(values.flat[0]), int(values.flat[-1]))
        self._say("malformed", group, f"must be one integer or two: {values.size}", name)
        return None

    def _one(
        self, group: Group, name: str, rule: str = "", limits: IntRange | None = None
    ) -> int | None:
        values = self._whole(group, name, rule, limits)
        if values is None or values.size == 1:
            return None if values is None else int(values.item())
        self._say("malformed", group, "must hold 1 values", name)
        return None

    def _whole(
        self, group: Group, name: str, rule: str = "", limits: IntRange | None = None
    ) -> np.ndarray | None:
        """The numbers called `name` as int64, cut to integers, which must lie within `limits`."""
        try:
            values = group.numbers(name)
        except FormatError as error:
            self._report("malformed", error, True)
            return None
        if values.size == 0:
            self._say("malformed", group, "no values", name)
            return None
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            self._say("not-finite", group, f"{bad} of {values.size} values", name)
            return None
        fractions = values != np.trunc(values)
        if fractions.any():
            first = values[fractions].reshape(-1)[0]
            found = f"{int(fractions.sum())} of {values.size}, such as {first:.6g}"
            self._say("fractions", group, found, name)
        if (np.abs(values.astype(np.float64)) >= BEYOND).any():
            self._say("malformed", group, "values beyond 32 bits", name)
            return None
        whole = np.asarray(values).astype(np.int64)
        low, high = int(whole.min()), int(whole.max())
        if limits is not None and not limits.contains(low, high):
            self._say(rule, group, f"{low} .. {high}", name)
        return whole

    def _check_names(self, group: Group, known: tuple[str, ...]) -> None:
        for name in sorted(set(group.names()) - set(known)):
            self._say("unknown-dataset", group, name, name)

    def _say(
        self, rule_id: str, group: Group, found: object, name: str = "", *, refused: bool = True
    ) -> None:
        """Report that a rule applies to `name` in `group`."""
        rule, where = RULES[rule_id], group.where(name)
        if rule_id == "malformed":
            error = FormatError(str(found), node=where)
        else:
            told = f"{rule.title}: {rule.why}"
            error = FormatError(told, node=where, found=found, remedy=rule.remedy)
        runs = rule.level is Level.WARNING or rule_id in RUN_HERE
        self._report(rule_id, error, refused and not runs)


_SYNAPTIC = (
    *("neuron", "weight", "bias", "delay"),
    *("inChannels", "outChannels", "kernelSize", "inFeatures", "outFeatures"),
)
_LAYER_TYPES: dict[str, tuple[Callable[[_Walk, Group], CubaLayer | None], tuple[str, ...]]] = {
    INPUT: (_Walk._input, ("neuron", "weight", "bias")),
    FLATTEN: (_Walk._flatten, ()),
    DENSE: (_Walk._dense, _SYNAPTIC),
    CONV: (_Walk._conv, (*_SYNAPTIC, *PAIRS, "groups")),
}
"""How each layer type is read, and its datasets besides type and shape."""
