"""Behaviour of lava-dl's own loader, in one place for the readers and lint.

The readers and lint take their messages from here, so that they agree. Source:
`Network._create` and `get_neuron_params` of `netx/hdf5.py`, lava-dl 0.6.0.
"""

from __future__ import annotations

from exports.netx.group import Group
from exports.netx.layout import CONV, DENSE, FLATTEN, INPUT, LAYERS
from toolchain.errors import FormatError, SpikeportError

CUBA = ("LOIHI", "CUBA")
"""Names of the only neuron that is run here, older and newer."""
BUILT_HERE = (INPUT, FLATTEN, DENSE, CONV)
RECURRENT = "dense_rec"
RAISING = {
    **dict.fromkeys(("pool", "average", "concat", "unpool", "convT"), "NotImplementedError"),
    "dense_comp": "AttributeError",
}
"""Layer types for which the loader raises an error, and the error.

It calls `create_complex_dense`, which it does not have.
"""
COMPLEX = "complex weights"
"""Layer type in messages: `weight` is a group of `real` and `imag`."""
RESONATOR = "RF"
"""Part of the names of the neurons that take complex currents, and of no others."""

MESSAGE_BITS = "messageBits"
"""Dataset of a neuron that the loader misreads: `NetDict.array_keys` lacks it."""

HERE = "`from exports.network import Network` runs it where all layers are CUBA conv and dense"
ELSEWHERE = "lava.lib.dl.netx.hdf5.Network, lava-dl's own loader, runs it; nothing here does"


def loader_runs_layer(kind: str) -> bool:
    """Whether lava-dl's loader builds such a layer."""
    return kind in BUILT_HERE or kind == RECURRENT


def loader_runs_neuron(kind: str) -> bool:
    """Whether lava-dl's loader knows such a neuron: it accepts any name with RF in it."""
    return kind in CUBA or kind == "SDNN" or RESONATOR in kind


def has_complex_weights(layer: Group) -> bool:
    """Whether `layer` is a dense layer with complex weights, which the loader builds."""
    return "weight" in layer.names() and layer.is_group("weight")


def refused_complex(layer: Group) -> FormatError:
    """A reader's error for a dense layer with complex weights."""
    neuron = layer.group("neuron").text("type") if "neuron" in layer.names() else CUBA[-1]
    if RESONATOR in neuron:
        return refused_layer(COMPLEX, layer.where("weight"))
    return _half_complex(layer.where("weight"), f"{COMPLEX} and {neuron} neurons")


def _half_complex(where: str, found: str) -> FormatError:
    return FormatError(
        "lava-dl's loader stops where only weights or only neurons are complex",
        node=where,
        found=found,
        allowed="CUBA neurons behind real weights",
        remedy="export it again: complex weights go with RF neurons, and with no others",
    )


def refused_layer(kind: str, where: str) -> FormatError:
    """A reader's error for a layer type that it does not build."""
    if loader_runs_layer(kind) or kind == COMPLEX:
        return FormatError(
            "only lava-dl's own loader runs such a layer",
            node=where,
            found=kind,
            allowed=", ".join(BUILT_HERE),
            remedy=ELSEWHERE,
        )
    does = f"stops at it with {RAISING[kind]}" if kind in RAISING else "silently skips it"
    return FormatError(
        f"lava-dl's loader has no such layer: it {does}",
        node=where,
        found=kind,
        allowed=", ".join(BUILT_HERE),
        remedy="num_layers takes only the layers before it",
    )


def refused_neuron(kind: str, where: str) -> FormatError:
    """A reader's error for a neuron type that it does not build, with real weights."""
    if RESONATOR in kind:
        return _half_complex(where, f"real weights and {kind} neurons")
    known = loader_runs_neuron(kind)
    return FormatError(
        "only CUBA neurons are run here" if known else "lava-dl's loader knows no such neuron",
        node=where,
        found=kind,
        allowed=", ".join(CUBA),
        remedy=ELSEWHERE if known else "export it with CUBA neurons",
    )


def way_to_run(root: Group) -> str:
    """How to run an HDF5 file that this project did not write."""
    if LAYERS not in root.names():
        return "convert a network first: spikeport convert"
    try:
        layers = root.group(LAYERS)
        for name in layers.numbered("layers"):
            refused = _refused(layers.group(name))
            if refused is not None:
                found = f"{refused.found} in layer {name}"
                return f"it is a file of lava-dl with {found}: {refused.remedy}"
    except SpikeportError:
        return "it seems to be a damaged file of lava-dl: `spikeport lint` says what is wrong"
    return f"it is a file of lava-dl: {HERE}"


def _refused(layer: Group) -> FormatError | None:
    """The error for a layer that this project does not run; None if it runs the layer."""
    kind = layer.text("type")
    if kind not in BUILT_HERE:
        return refused_layer(kind, layer.where("type"))
    if has_complex_weights(layer):
        return refused_complex(layer)
    if "neuron" in layer.names():
        neuron = layer.group("neuron").text("type")
        if neuron not in CUBA:
            return refused_neuron(neuron, layer.where("neuron/type"))
    return None
