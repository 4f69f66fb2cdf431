"""Small netx files as lava-dl writes them, and one for each rule of lint that breaks it."""

import h5py
import numpy as np

from exports.netx import write_net
from tests.networks import random_program


def put(group, name, value):
    if name in group:
        del group[name]
    if isinstance(value, str):
        value = np.array([value.encode()], "S10")
    group[name] = value


def put_neuron(group, threshold=40, **more):
    neuron = group.require_group("neuron")
    values = {"type": "LOIHI", "vThMant": threshold, "iDecay": 4096, "vDecay": 4096, **more}
    for name, value in values.items():
        put(neuron, name, value)


def put_input(group, shape=(2, 6, 5)):
    put(group, "type", "input")
    put(group, "shape", np.array(shape, np.int64))


def put_conv(group, shape, weight, groups=1, padding=(1, 1)):
    put(group, "type", "conv")
    put(group, "shape", np.array(shape, np.int64))
    put(group, "weight", np.asarray(weight, np.float32))
    for name, value in (("stride", (1, 1)), ("padding", padding), ("dilation", (1, 1))):
        put(group, name, np.array(value))
    put(group, "groups", groups)
    put(group, "bias", np.zeros(shape[0], np.float32))
    put_neuron(group)


def put_dense(group, weight):
    weight = np.asarray(weight, np.float32)
    put(group, "type", "dense")
    put(group, "shape", np.array([len(weight)], np.int64))
    put(group, "weight", weight)
    put(group, "bias", np.zeros(len(weight), np.float32))
    put_neuron(group)


def stock_file(path):
    """input, conv, flatten, dense: nothing to find."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        put_input(layers.create_group("0"))
        put_conv(layers.create_group("1"), (4, 6, 5), rng.integers(-20, 20, (4, 2, 3, 3)))
        put(layers.create_group("2"), "type", "flatten")
        put_dense(layers.create_group("3"), rng.integers(-20, 20, (3, 120)))
        file["simulation/Ts"] = 1
    return path


def own_file(path, **how):
    """A program of this project."""
    write_net(random_program(1, hidden=(4,), **how), path)
    return path


def many_groups(file):
    put_input(file["layer/0"], (128, 6, 5))
    put_conv(file["layer/1"], (128, 6, 5), np.ones((128, 1, 3, 3)), groups=128)
    put_dense(file["layer/3"], np.tile([1, -1], (3, 128 * 15)))


def large_plane(file):
    put_input(file["layer/0"], (2, 128, 5))
    put_conv(file["layer/1"], (1, 128, 5), np.ones((1, 2, 3, 3)))
    put_dense(file["layer/3"], np.tile([1, -1], (3, 320)))


def wide_padding(file):
    put_conv(file["layer/1"], (4, 260, 259), np.ones((4, 2, 3, 3)), padding=(128, 128))
    del file["layer/3"], file["layer/2"]


def of_sign(sign, size):
    return lambda file: put_dense(file["layer/3"], np.full((3, 120), sign * size))


def dense(change):
    """The dense weights, changed in place."""

    def make(file):
        weight = file["layer/3/weight"][()]
        change(weight)
        put(file["layer/3"], "weight", weight)

    return make


def one(name, value, layer="3"):
    return lambda file: put(file[f"layer/{layer}"], name, value)


def several(value):
    def change(weight):
        weight[0, 0] = value

    return change


def powers(weight):
    weight[:] = -4
    weight[0, 0] = -3


def complex_weights(file):
    weight = file["layer/3/weight"][()]
    del file["layer/3/weight"]
    file["layer/3/weight/real"] = file["layer/3/weight/imag"] = weight


def compressed(file):
    file.create_dataset("bomb", (1 << 12, 1 << 12), "f8", compression="gzip", fillvalue=0)
    file["bomb"][0, 0] = 1


STOCK_EXAMPLES = {
    "unknown-layer": (one("type", "pool", "1"), "/layer/1/type"),
    "unknown-neuron": (one("neuron/type", "ALIF"), "/layer/3/neuron/type"),
    "half-complex": (complex_weights, "/layer/3/weight"),
    "unknown-dataset": (one("gain", 2), "/layer/3/gain"),
    "weights-zeroed": (of_sign(1, 300), "/layer/3/weight"),
    "weights-clipped": (dense(several(255)), "/layer/3/weight"),
    "weights-changed": (dense(powers), "/layer/3/weight"),
    "weights-all-zero": (of_sign(1, 0), "/layer/3/weight"),
    "fractions": (dense(several(2.9)), "/layer/3/weight"),
    "not-finite": (dense(several(np.nan)), "/layer/3/weight"),
    "conv-groups": (many_groups, "/layer/1/groups"),
    "conv-wide-weights": (
        one("weight", np.full((4, 2, 3, 3), 300, np.float32), "1"),
        "/layer/1/weight",
    ),
    "wide-geometry": (wide_padding, "/layer/1"),
    "large-input": (large_plane, "/layer/1/shape"),
    "message-bits": (one("neuron/messageBits", 8), "/layer/3/neuron/messageBits"),
    "only-there": (one("neuron/type", "SDNN"), "/layer/3/neuron/type"),
    "graded-spikes": (one("neuron/gradedSpike", 1), "/layer/3/neuron/gradedSpike"),
    "refractory": (one("neuron/refDelay", 2), "/layer/3/neuron/refDelay"),
    "weight-exponent": (one("neuron/wgtExp", 2), "/layer/3/neuron/wgtExp"),
    "never-fires": (one("neuron/vThMant", 131072), "/layer/3/neuron/vThMant"),
    "bad-threshold": (one("neuron/vThMant", -1), "/layer/3/neuron/vThMant"),
    "wide-bias": (one("bias", np.full(3, 40000.0)), "/layer/3/bias"),
    "bad-decay": (one("neuron/vDecay", 5000), "/layer/3/neuron/vDecay"),
    "long-delay": (one("delay", np.full((3, 120), 63)), "/layer/3/delay"),
    "dropped-delay": (one("delay", np.zeros(4), "1"), "/layer/1/delay"),
    "flatten": (lambda file: file.move("layer/2", "layer/x"), None),
    "wraps": (
        one("weight", np.full((4, 2, 3, 3), 1 << 20, np.float32), "1"),
        "/layer/1/weight",
    ),
    "input-numpy": (lambda file: put_neuron(file["layer/0"]), "/layer/0/neuron"),
    "malformed": (lambda file: file["layer/3"].pop("weight"), "/layer/3/weight"),
}
"""By rule: what is done to `stock_file`, and where the rule must point."""
COMES_ALONG = {"wraps": {"conv-wide-weights"}}
"""Rules that the same trap breaks as well."""


def remove_flatten(file):
    """Without gaps in the numbers."""
    file.move("layer/3", "layer/4")
    del file["layer/2"]
    file.move("layer/4", "layer/2")


STOCK_EXAMPLES["flatten"] = (remove_flatten, "/layer/2")


def linked(file):
    del file["layer/3/weight"]
    file["layer/3/weight"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft(file):
    file["layer/3/again"] = h5py.SoftLink("/layer/3")


def cycle(file):
    file["layer/3/again"] = file["layer"]


def declared(file):
    del file["layer/3/weight"]
    file["layer/3"].create_dataset("weight", (1 << 20, 1 << 20), "f4", chunks=(64, 64))


def external(file):
    del file["layer/3/weight"]
    file["layer/3"].create_dataset("weight", (3, 120), "f4", external="/etc/passwd")


def virtual(file):
    layout = h5py.VirtualLayout((3, 120), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (3, 120))
    del file["layer/3/weight"]
    file["layer/3"].create_virtual_dataset("weight", layout)


def deep(file):
    group = file["layer/3"]
    for _ in range(40):
        group = group.create_group("g")


def named_type(file):
    file["layer/3/named"] = np.dtype("f8")


def references(file):
    file["layer/3/refs"] = np.array([file["layer"].ref], dtype=h5py.ref_dtype)


HOSTILE = {
    "external link": linked,
    "soft link": soft,
    "cycle": cycle,
    "huge declared shape": declared,
    "external storage": external,
    "virtual dataset": virtual,
    "deep nesting": deep,
    "compressed bomb": compressed,
    "named type": named_type,
    "references": references,
}
"""What is done to `stock_file` that no network needs."""
