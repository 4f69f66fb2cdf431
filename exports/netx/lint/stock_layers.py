"""Lint for the layers of a lava-dl file: everything that its loader changes silently.

Every layer is checked, even after a damaged one: a reader stops at the first error,
and lint reports all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from exports.netx.cuba_reader import (
    DECAY,
    KNOWN,
    KNOWN_NEURON,
    THRESHOLD,
    TRAINING_ONLY,
)
from exports.netx.group import Group
from exports.netx.layout import CONV, DENSE, FLATTEN, INPUT, LAYERS
from exports.netx.lint.findings import Findings
from exports.netx.stock_loader import (
    COMPLEX,
    CUBA,
    MESSAGE_BITS,
    RESONATOR,
    has_complex_weights,
    loader_runs_layer,
    loader_runs_neuron,
)
from exports.netx.stock_weights import MIXED_LIMITS, loaded_by_stock
from hw_models.cuba_layer import MAX_DELAY
from hw_models.stock.limits import CONV_SUM_BITS, MAX_GEOMETRY, MAX_GROUPS, NEURON_BIAS
from toolchain.errors import FormatError, SpikeportError
from toolchain.int_range import IntRange
from toolchain.program.spike_ranges import weight_sums
from toolchain.program.synapse import ConvSynapse

HIGHEST_FIRING = 131071
"""Largest threshold that a membrane potential of 24 bits, 6 of them a fraction, can exceed."""
PAIRS = ("stride", "padding", "dilation")
SMALL_PLANE = 127
"""Most rows or columns that stock Conv can pad in 8 bits."""
CONV_BITS = IntRange(-256, 255)
"""Range of a synapse with 8 bits and a sign."""


class StockLinter:
    """Checks the layers in order and tracks the shape that reaches the next one."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._shape: tuple[int, ...] | None = None
        self._flattened = False
        self._layers = 0

    def look(self, root: Group) -> None:
        """Check every layer under /layer."""
        layers = root.group(LAYERS)
        try:
            names = layers.numbered("layers")
        except FormatError as error:
            self._findings.add_error("malformed", error)
            names = sorted((n for n in layers.names() if n.isdecimal()), key=int)
        for name in names:
            try:
                self._layer(layers.group(name))
            except SpikeportError as error:
                self._findings.add_error("malformed", error, layers.where(name))

    def _say(self, rule: str, group: Group, found: object, name: str = "") -> None:
        self._findings.add(rule, group.where(name), found)

    def _layer(self, group: Group) -> None:
        kind = group.text("type")
        look: dict[str, Callable[[Group], None]] = {
            INPUT: self._input,
            FLATTEN: self._flatten,
            DENSE: self._dense,
            CONV: self._conv,
        }
        if kind not in look:
            rule = "only-there" if loader_runs_layer(kind) else "unknown-layer"
            self._say(rule, group, kind, "type")
            self._shape, self._flattened = None, False
            self._layers += 1
            return
        self._unknown(group, kind)
        look[kind](group)
        self._layers += kind != FLATTEN

    def _unknown(self, group: Group, kind: str) -> None:
        known = {*KNOWN[kind], *(["delay"] if kind == CONV else [])}
        for name in sorted(set(group.names()) - known):
            self._say("unknown-dataset", group, name, name)

    def _input(self, group: Group) -> None:
        if self._layers:
            self._say("malformed", group, "an input behind another layer")
        self._shape = self._declared(group)
        if "neuron" in group.names():
            self._say("input-numpy", group, "neuron", "neuron")
            self._neuron(group)
        for name in ("weight", "bias"):
            if name in group.names():
                self._whole(group, name)

    def _flatten(self, group: Group) -> None:
        if not self._layers:
            self._say("flatten", group, "a flatten before the first layer does not transpose")
        if self._flattened:
            self._say("flatten", group, "a second flatten")
        self._flattened = True

    def _dense(self, group: Group) -> None:
        source, self._shape = self._shape, self._declared(group)
        flattened, self._flattened = self._flattened, False
        if source is not None and len(source) == 3 and prod(source) > max(source) and not flattened:
            self._say("flatten", group, f"none in front of it, where {source} arrives")
        complex_weights = has_complex_weights(group)
        neuron = group.group("neuron").text("type") if "neuron" in group.names() else CUBA[-1]
        weight = None if complex_weights else self._whole(group, "weight")
        if complex_weights and RESONATOR in neuron:
            self._say("only-there", group, COMPLEX, "weight")
        elif complex_weights:
            self._say("half-complex", group, f"{COMPLEX} and {neuron} neurons", "weight")
        elif "neuron" in group.names():
            self._neuron(group)
        size = None if self._shape is None else prod(self._shape)
        self._bias(group, size)
        self._delays(group)
        if weight is None:
            return
        if weight.ndim == 1 and size and weight.size % size == 0:
            weight = weight.reshape(size, -1)
        if weight.ndim != 2 or (size is not None and len(weight) != size):
            self._say("malformed", group, f"shape {weight.shape}, for {size} outputs", "weight")
        elif source is not None and weight.shape[1] != prod(source):
            found = f"{weight.shape[1]} inputs, where {prod(source)} arrive"
            self._say("malformed", group, found, "weight")
        if weight.ndim == 2:
            self._dense_weights(group, weight)

    def _dense_weights(self, group: Group, weight: np.ndarray) -> None:
        low, high = int(weight.min()), int(weight.max())
        loaded = loaded_by_stock(weight)
        span = f"{low} .. {high}"
        if low == high == 0:
            self._say("weights-all-zero", group, f"{weight.size} zeros", "weight")
        elif loaded is None or not np.array_equal(loaded, weight):
            changed = weight.size if loaded is None else int((loaded != weight).sum())
            rule = "weights-changed"
            if loaded is not None and not loaded.any():
                rule = "weights-zeroed"
            elif low < MIXED_LIMITS[0] or high > MIXED_LIMITS[1]:
                rule = "weights-clipped"
            self._say(rule, group, f"{span}, {changed} of {weight.size} changed", "weight")

    def _conv(self, group: Group) -> None:
        source, self._shape = self._shape, self._declared(group)
        if source is not None and len(source) != 3:
            self._say("malformed", group, f"a convolution where {source} arrives")
        if self._flattened:
            self._say("flatten", group, "a convolution behind a flatten")
        if source is not None and max(source[1:], default=0) > SMALL_PLANE:
            self._say("large-input", group, f"{source[-2]} x {source[-1]}", "shape")
        if "delay" in group.names():
            self._say("dropped-delay", group, "delay", "delay")
        if "neuron" in group.names():
            self._neuron(group)
        else:
            self._say("malformed", group, "a convolution without a neuron")
        self._bias(group, None if self._shape is None else self._shape[0])
        weight = self._whole(group, "weight")
        if weight is not None and weight.ndim == 5 and weight.shape[-1] == 1:
            weight = weight[..., 0]
        if weight is not None and weight.ndim != 4:
            self._say("malformed", group, f"shape {weight.shape}, not (O, I, H, W)", "weight")
            weight = None
        geometry = {name: self._whole(group, name) for name in (*PAIRS, "groups")}
        self._conv_numbers(group, weight, geometry)
        known = all(values is not None and values.size in (1, 2) for values in geometry.values())
        if weight is not None and known:
            self._sums(group, weight, source, geometry)

    def _conv_numbers(
        self, group: Group, weight: np.ndarray | None, geometry: dict[str, np.ndarray | None]
    ) -> None:
        """Check the numbers that stock Conv stores in 8 bits."""
        sizes = [values for name, values in geometry.items() if name in PAIRS]
        if weight is not None:
            sizes.append(np.array(weight.shape[2:]))
            low, high = int(weight.min()), int(weight.max())
            if not CONV_BITS.contains(low, high):
                self._say("conv-wide-weights", group, f"{low} .. {high}", "weight")
        widest = max((int(values.max()) for values in sizes if values is not None), default=0)
        if widest > MAX_GEOMETRY:
            self._say("wide-geometry", group, widest)
        groups = geometry["groups"]
        if groups is not None and groups.size == 1 and int(groups.item()) > MAX_GROUPS:
            self._say("conv-groups", group, int(groups.item()), "groups")

    def _sums(
        self,
        group: Group,
        weight: np.ndarray,
        source: tuple[int, ...] | None,
        geometry: dict[str, np.ndarray | None],
    ) -> None:
        """Set the shape of the output, and check the largest sums for unary spikes."""
        ends = {
            name: (int(values.reshape(-1)[0]), int(values.reshape(-1)[-1]))
            for name, values in geometry.items()
            if values is not None
        }
        stride, padding, dilation = (ends[name] for name in PAIRS)
        synapse = ConvSynapse("before", weight, stride, padding, dilation, ends["groups"][0])
        if source is not None and len(source) == 3:
            gives = synapse.output_shape(source)
            if self._shape is not None and gives != self._shape:
                self._say("malformed", group, f"{self._shape}, where it gives {gives}", "shape")
        positive, negative = weight_sums(synapse)
        low, high = int(negative.min()), int(positive.max())
        if not IntRange.signed(CONV_SUM_BITS).contains(low, high):
            self._say("wraps", group, f"{low} .. {high} with unary spikes", "weight")

    def _declared(self, group: Group) -> tuple[int, ...] | None:
        shape = tuple(int(size) for size in group.integers("shape", 1))
        if not 1 <= len(shape) <= 3 or min(shape, default=0) < 1:
            self._say("malformed", group, f"{shape} is not a shape", "shape")
            return None
        return shape

    def _neuron(self, group: Group) -> None:
        neuron = group.group("neuron")
        kind = neuron.text("type")
        if MESSAGE_BITS in neuron.names():
            self._say("message-bits", neuron, MESSAGE_BITS, MESSAGE_BITS)
        if RESONATOR in kind:
            self._say("half-complex", neuron, f"real weights and {kind} neurons", "type")
            return
        if kind not in CUBA:
            rule = "only-there" if loader_runs_neuron(kind) else "unknown-neuron"
            self._say(rule, neuron, kind, "type")
            return
        for name in sorted(set(neuron.names()) - {*KNOWN_NEURON, *TRAINING_ONLY, MESSAGE_BITS}):
            self._say("unknown-dataset", neuron, name, name)
        for name, rule, plain in (
            ("refDelay", "refractory", 1),
            ("gradedSpike", "graded-spikes", 0),
            ("wgtExp", "weight-exponent", 0),
        ):
            if name in neuron.names() and neuron.number(name) != plain:
                self._say(rule, neuron, neuron.number(name), name)
        threshold = self._whole(neuron, "vThMant")
        if threshold is not None and threshold.size:
            low, high = int(threshold.min()), int(threshold.max())
            if not THRESHOLD.contains(low, high):
                self._say("bad-threshold", neuron, f"{low} .. {high}", "vThMant")
            elif low > HIGHEST_FIRING:
                self._say("never-fires", neuron, low, "vThMant")
        for name in ("iDecay", "vDecay"):
            decay = self._whole(neuron, name)
            if decay is not None and not DECAY.contains(int(decay.min()), int(decay.max())):
                self._say("bad-decay", neuron, f"{decay.min()} .. {decay.max()}", name)

    def _bias(self, group: Group, channels: int | None) -> None:
        if "bias" not in group.names():
            return
        bias = self._whole(group, "bias")
        if bias is None:
            return
        if channels is not None and bias.size not in (1, channels):
            self._say("malformed", group, f"{bias.size} values for {channels} channels", "bias")
        if not NEURON_BIAS.contains(int(bias.min()), int(bias.max())):
            self._say("wide-bias", group, f"{bias.min()} .. {bias.max()}", "bias")

    def _delays(self, group: Group) -> None:
        if "delay" not in group.names():
            return
        delays = self._whole(group, "delay")
        if delays is not None and (delays.min() < 0 or delays.max() > MAX_DELAY):
            self._say("long-delay", group, f"{delays.min()} .. {delays.max()}", "delay")

    def _whole(self, group: Group, name: str) -> np.ndarray | None:
        """The numbers called `name` as int64; None, with a finding, if they are not whole."""
        try:
            values = group.numbers(name)
        except FormatError as error:
            self._findings.add_error("malformed", error, group.where(name))
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
        if (np.abs(values.astype(np.float64)) >= 2.0**31).any():
            self._say("malformed", group, "values beyond 32 bits", name)
            return None
        return np.asarray(values).astype(np.int64)
