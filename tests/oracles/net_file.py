"""An interpreter of `.net` files written from `exports/netx/FORMAT.md` alone.

It reads a file with h5py, hashes it, runs it in plain integers and makes digests and replays; it
imports nothing of this project. Arrays of a run are int64 (N, C, H, W) or (N, F).
"""

import hashlib
import json
from dataclasses import dataclass

import h5py
import numpy as np
import xxhash

GEOMETRY = ("stride", "padding", "dilation")


@dataclass
class Layer:
    """What the file says of a layer; `synapses`, `numbers` as they are hashed, `arrays` by name."""

    name: str
    shape: tuple
    neuron: str
    scale: float | None
    numbers: dict
    synapses: list
    arrays: dict


@dataclass
class NetFile:
    """The header as it stands, the layers but input and flatten, and the hash the file states."""

    header: dict
    layers: list
    stated_hash: str


def text(dataset):
    """A string, scalar or of shape (1,)."""
    value = dataset[()] if dataset.shape == () else dataset[0]
    return value.decode()


def whole(dataset):
    """Integers."""
    assert dataset.dtype.kind in "iu"
    return dataset[()].astype(np.int64)


def synapse(kind, source, group, exponent):
    """The object of one synapse in the hashed JSON, and its weights (None of a pool)."""
    fields = {"kind": kind, "source": source}
    if kind != "dense":
        fields |= {name: [int(v) for v in group[name]] for name in GEOMETRY}
    neutral = {"window": {"overhang": 0}, "conv": {"overhang": 0, "upsample": 1}}
    for name, value in neutral.get(kind, {}).items():
        if name in group and (group[name][()] != value).any():
            fields[name] = [int(v) for v in group[name]]
    if kind == "window":
        return {**fields, "kernel": [int(v) for v in group["kernel"]]}, None
    if kind == "conv":
        fields["groups"] = int(group["groups"][()])
    return {**fields, "weight_exponent": exponent}, whole(group["weight"])


def read_layer(group, version, before):
    """One layer that is no input and no flatten; `before` is the name of the layer before."""
    own, kind, neuron = group["spikeport"], text(group["type"]), text(group["neuron/type"])
    shape = tuple(int(v) for v in group["shape"])

    def source(where):
        return before if version == 1 else text(where["source"])

    if kind == "pool":
        found = [synapse("window", source(own), group, None)]
        arrays = {"bias": np.zeros(shape[0], np.int64)}
    else:
        found = [synapse(kind, source(own), group, int(own["weight_exponent"][()]))]
        arrays = {"bias": whole(group["bias"])}
    further = own["synapse"] if version > 1 and "synapse" in own else {}
    for k in range(1, len(further) + 1):
        one = further[str(k)]
        exponent = int(one["weight_exponent"][()])
        found.append(synapse(text(one["kind"]), source(one), one, exponent))
    for k, (_, weight) in enumerate(found):
        if weight is not None:
            arrays[f"weight{k}"] = weight
    if neuron in ("IF", "CIF", "GRADED_IF"):
        for name in ("threshold", "initial_potential"):
            arrays[name] = whole(group["neuron"][name])
    numbers = {}
    if neuron == "GRADED_IF":
        assert version == 6
        numbers["max_spike"] = int(whole(group["neuron/max_spike"]))
    scale = float(own["scale"][()]) if neuron == "READOUT" else None
    synapses = [s for s, _ in found]
    return Layer(text(own["name"]), shape, neuron, scale, numbers, synapses, arrays)


def read(path):
    """The file at `path`."""
    with h5py.File(path, "r") as file:
        own = file["spikeport"]
        version = int(own["format_version"][()])
        assert version in (1, 2, 3, 4, 5, 6)
        layers, before = [], "input"
        for n in range(1, len(file["layer"])):
            group = file["layer"][str(n)]
            if text(group["type"]) != "flatten":
                layers.append(read_layer(group, version, before))
                before = layers[-1].name
        header = json.loads(text(own["header"]))
        if version < 5:
            header["input"].pop("per_step", None)
        return NetFile(header, layers, text(own["program_hash"]))


def replays_in(path):
    """The objects under `replays`, `runs`."""
    with h5py.File(path, "r") as file:
        return json.loads(text(file["spikeport/replays"]))["runs"]


# Hash


def quoted(string):
    """A JSON string by the rules of the document."""
    short = {'"': '\\"', "\\": "\\\\"}
    short |= {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    out = ""
    for character in string:
        if character in short:
            out += short[character]
        elif " " <= character <= "~":
            out += character
        else:
            units = character.encode("utf-16-be")
            out += "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
    return f'"{out}"'


def canonical(value):
    """Canonical JSON by the rules of the document."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return repr(value)


def structure(net):
    """The JSON object that is hashed."""
    fields = ("wake_steps", "sleep_steps", "weight_bits", "state_bits", "watch_ranges")
    quantizer = dict(net.header["input"])
    for name in ("mean", "std"):
        quantizer[name] = [float(v) for v in quantizer[name]]
    return {
        "input": {**quantizer, "scale": float(quantizer["scale"])},
        **{name: net.header[name] for name in fields},
        "populations": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "neuron": layer.neuron,
                "scale": layer.scale,
                **layer.numbers,
                "synapses": layer.synapses,
            }
            for layer in net.layers
        ],
    }


def program_hash(net):
    """The hash of what was read."""
    digest = hashlib.sha256(canonical(structure(net)).encode())
    arrays = {f"{layer.name}/{n}": a for layer in net.layers for n, a in layer.arrays.items()}
    for name in sorted(arrays):
        digest.update(f"\0{name}:{arrays[name].shape}:".encode())
        digest.update(arrays[name].astype("<i8").tobytes())
    return digest.hexdigest()


def text_hash(path):
    """The hash of the texts in /spikeport, and the one that the file states, None if none."""
    with h5py.File(path, "r") as file:
        own = file["spikeport"].items()
        held = {
            name: text(item)
            for name, item in own
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "OS"
        }
    stated = held.pop("sha256", None)
    return hashlib.sha256(canonical(held).encode()).hexdigest(), stated


def write_text_hash(path):
    """State the hash of the texts as they are now."""
    found, stated = text_hash(path)
    with h5py.File(path, "r+") as file:
        if stated is not None:
            del file["spikeport/sha256"]
        file["spikeport/sha256"] = found


# Semantics


def quantize(net, samples):
    """Graded input spikes for real samples (N, ...); raises where one is out of range."""
    given = net.header["input"]
    axes = (-1, *[1] * (len(given["shape"]) - 1))
    mean, std = (np.array(given[name], np.float64).reshape(axes) for name in ("mean", "std"))
    levels = np.rint(((samples.astype(np.float64) - mean) / std) / given["scale"])
    bits = given["bits"]
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if given["signed"] else (0, 2**bits - 1)
    if not ((levels >= low) & (levels <= high)).all():
        raise ValueError("outside the input's range")
    return levels.astype(np.int64)


def taps(x, kernel, fields):
    """For each place of the kernel the spikes it meets, (N, C, H_out, W_out), row by row."""
    (top, left), (down, right), step = fields["padding"], fields["stride"], fields["dilation"]
    more = fields.get("overhang", (0, 0))
    for axis, apart in enumerate(fields.get("upsample", (1, 1)), 2):
        between = np.repeat(np.arange(1, x.shape[axis]), apart - 1)
        x = np.insert(x, between, 0, axis)
    padded = np.pad(x, ((0, 0), (0, 0), (top, top + more[0]), (left, left + more[1])))
    height, width = (
        (padded.shape[2 + a] - step[a] * (kernel[a] - 1) - 1) // fields["stride"][a] + 1
        for a in (0, 1)
    )
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            y, z = row * step[0], column * step[1]
            yield padded[
                :,
                :,
                y : y + (height - 1) * down + 1 : down,
                z : z + (width - 1) * right + 1 : right,
            ]


def weighted(fields, weight, spikes):
    """`2^weight_exponent * W s`."""
    if fields["kind"] == "dense":
        total = spikes.reshape(len(spikes), -1) @ weight.T
    else:
        kernel, groups = weight.shape[2:], fields["groups"]
        columns = weight.reshape(len(weight), weight.shape[1], -1)
        total = 0
        for place, seen in enumerate(taps(spikes, kernel, fields)):
            parts = zip(
                np.split(seen, groups, 1), np.split(columns[:, :, place], groups), strict=True
            )
            total = total + np.concatenate([np.einsum("ncij,oc->noij", s, w) for s, w in parts], 1)
    return total << fields["weight_exponent"]


class Neurons:
    """The state of one layer for `count` samples, and its step."""

    def __init__(self, layer, count):
        self.layer = layer
        self.axes = (-1, *[1] * (len(layer.shape) - 1))
        self.v = np.zeros((count, *layer.shape), np.int64)
        if layer.neuron in ("IF", "CIF", "GRADED_IF"):
            self.v = self.v + layer.arrays["initial_potential"].reshape(self.axes)
            self.theta = layer.arrays["threshold"].reshape(self.axes)
        self.sent, self.wake_steps, self.counts = np.zeros_like(self.v), 0, None

    def current(self, sent, awake):
        """Sum of all synapses and, awake, the bias."""
        total = self.layer.arrays["bias"].reshape(self.axes) if awake else 0
        for k, fields in enumerate(self.layer.synapses):
            total = total + weighted(
                fields, self.layer.arrays[f"weight{k}"], sent[fields["source"]]
            )
        return total

    def step(self, sent, awake):
        """The spikes sent, None of a readout, and the potential recorded."""
        kind = self.layer.neuron
        if kind == "LIPOOL":
            (fields,) = self.layer.synapses
            windows = np.stack(list(taps(sent[fields["source"]], fields["kernel"], fields)))
            self.counts = windows if self.counts is None else self.counts + windows
            spikes, self.v = self.counts.max(0) - self.v, self.counts.max(0)
            return spikes, self.v
        current = self.current(sent, awake)
        if kind == "RELAY":
            return current, np.zeros_like(current)
        self.v = self.v + current
        if kind == "READOUT":
            return None, self.v
        spikes = (self.v >= self.theta).astype(np.int64)
        if kind == "GRADED_IF":
            spikes = np.clip(self.v // self.theta, 0, self.layer.numbers["max_spike"])
        if kind == "CIF":
            self.wake_steps += awake
            spikes[self.v < 0] = -1
            spikes[(spikes <= 0) & (self.sent <= 0)] = 0
            spikes[(spikes > 0) & (self.sent >= self.wake_steps)] = 0
            self.sent = self.sent + spikes
        self.v = self.v - self.theta * spikes
        return spikes, self.v


# Digests and replays


def chained(chain, values):
    """The chain after the samples of `values`, (N, ...), channels first as they are here."""
    for sample in np.ascontiguousarray(np.moveaxis(values, 1, -1)):
        chain = xxhash.xxh3_128(chain + sample.tobytes()).digest()
    return chain


def polynomial(digest, values):
    """The digest after the samples of `values`, (N, ...), channels first as they are here."""
    number = int.from_bytes(digest, "big")
    for sample in np.ascontiguousarray(np.moveaxis(values, 1, -1)):
        hashed = int.from_bytes(xxhash.xxh3_128(sample.tobytes()).digest(), "big")
        number = (5 * number + hashed) % (2**128 - 159)
    return number.to_bytes(16, "big")


def run(net, inputs, version=3):
    """Digests, uint8 (T, 2, 16) by layer, and outputs, int64 (N, ...) by readout."""
    digested = chained if version == 2 else polynomial
    states = {layer.name: Neurons(layer, len(inputs)) for layer in net.layers}
    steps = net.header["wake_steps"] + net.header["sleep_steps"]
    digests = {layer.name: np.zeros((steps, 2, 16), np.uint8) for layer in net.layers}
    for t in range(1, steps + 1):
        awake = t <= net.header["wake_steps"]
        now = inputs
        if net.header["input"].get("per_step"):
            now = inputs[:, min(t, net.header["wake_steps"]) - 1]
        sent = {"input": now.astype(np.int64) * awake}
        for name, state in states.items():
            spikes, potential = state.step(sent, awake)
            digest = digests[name][t - 1]
            if spikes is not None:
                sent[name] = spikes
                digest[0] = list(digested(bytes(16), spikes.astype("<i1")))
            digest[1] = list(digested(bytes(16), potential.astype("<i4")))
    outputs = {
        layer.name: states[layer.name].v for layer in net.layers if layer.neuron == "READOUT"
    }
    return digests, outputs


def prefixed(array, with_type=False):
    """An array as replays hash it."""
    prefix = f"{array.dtype.str if with_type else ''}{array.shape}:"
    return prefix.encode() + array.tobytes()


def replay(net, inputs, version=3):
    """The objects `digests` (in version 2 `layers`) and `outputs` of a replay."""
    digests, outputs = run(net, inputs, version)
    one_vector = [array.ndim for array in outputs.values()] == [2]
    return (
        {name: hashlib.sha256(prefixed(d)).hexdigest() for name, d in digests.items()},
        {
            "logits" if one_vector else f"output/{name}": hashlib.sha256(
                prefixed(array.astype("<i8"))
            ).hexdigest()
            for name, array in outputs.items()
        },
    )


def data_sha256(*arrays):
    """Hash of samples and labels, or of samples and all that boxes have."""
    return hashlib.sha256(b"".join(prefixed(a, with_type=True) for a in arrays)).hexdigest()
