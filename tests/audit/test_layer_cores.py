"""Speck: layers on cores that hold one each, against sinabs' own counts and places."""

import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from hw_models.profile import load_profile
from spikeport.chips import chip_of
from tests.command_line import ROOT, fails
from tests.networks import Branches, branched_program, random_program
from toolchain.errors import ConversionError, TargetError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import Readout

DRIVERS = (
    "samna",
    "samnagui",
    *(f"samna.speck2{chip}{part}" for chip in "ef" for part in ("", ".configuration")),
)
"""The chip's driver, which sinabs imports: its package fetches it from elsewhere on import."""


@pytest.fixture(scope="module")
def dynapcnn():
    """sinabs' own network for the chip; what it counts needs no driver."""
    patch = pytest.MonkeyPatch()
    for name in DRIVERS:
        patch.setitem(sys.modules, name, MagicMock())
    from sinabs.backend import dynapcnn

    yield dynapcnn
    patch.undo()


SPECK = chip_of("speck")


def activation(kind):
    if kind == "ours":
        return spikeport.QCFS(levels=4)
    from sinabs.layers import IAFSqueeze

    return IAFSqueeze(batch_size=1)


def build(kind, channels, *, kernel=3, stride=1, pool=2, hidden=()):
    """A network of convolutions, a pool after each, and dense layers, of 16 x 16 pixels."""
    torch.manual_seed(0)
    layers, source, size = [], 1, 16
    for width in channels:
        layers += [nn.Conv2d(source, width, kernel, stride, kernel // 2), activation(kind)]
        size = (size + 2 * (kernel // 2) - kernel) // stride + 1
        if pool > 1 and size % pool == 0:
            layers += [nn.AvgPool2d(pool)]
            size //= pool
        source = width
    layers += [nn.Flatten()]
    features = source * size * size
    for width in hidden:
        layers += [nn.Linear(features, width), activation(kind)]
        features = width
    layers += [nn.Linear(features, 10)]
    return nn.Sequential(*layers, *([activation(kind)] if kind == "theirs" else []))


def converted(model, **options):
    options = {"target": "speck", "input_bits": 1, "steps": 4, **options}
    return spikeport.convert(model, input_shape=(1, 16, 16), input_range=(0, 1), **options).program


@pytest.mark.parametrize(
    "how",
    [
        {"channels": (8, 16)},
        {"channels": (5, 7), "kernel": 5, "hidden": (30,)},
        {"channels": (24,), "stride": 2, "pool": 4},
        {"channels": (16, 16, 24, 48), "pool": 1, "stride": 2},
        {"channels": (40, 40), "pool": 4, "hidden": (33, 65)},
    ],
)
def test_memory_and_places_are_those_of_sinabs(how, dynapcnn):
    from sinabs.backend.dynapcnn.chips import Speck2FConfigBuilder
    from sinabs.backend.dynapcnn.mapping import LayerConstraints, get_valid_mapping

    found = SPECK.fit(converted(build("ours", **how)))
    assert found.problems() == []
    network = dynapcnn.DynapcnnNetwork(build("theirs", **how), input_shape=(1, 16, 16))
    theirs, layers = network.memory_summary(), list(found.uses)
    assert len(layers) == len(network.dynapcnn_layers)
    for index, layer in enumerate(layers):
        for memory in ("kernel", "neuron", "bias"):
            assert found.uses[layer][f"{memory}_memory"] == theirs[memory][index]
    limits = Speck2FConfigBuilder.get_constraints()
    assert limits == [
        LayerConstraints(*values)
        for values in zip(
            *(SPECK.limits[f"{memory}_memory"].values for memory in ("kernel", "neuron", "bias")),
            strict=True,
        )
    ]
    assert len(get_valid_mapping(network.dynapcnn_layers, limits)) == len(layers)
    assert len(set(found.placed.values())) == len(found.placed) == len(layers)
    for index, layer in enumerate(layers):
        assert limits[found.placed[layer]].fits(network.dynapcnn_layers[index])


def test_layers_make_room_for_each_other():
    """The first layer could be on any core, the last, of 64 KiB, on two: an order must be found."""
    convs = ((3, 3, 1, 1, 1, 1), (64, 1, 1, 0, 1, 1), (32, 5, 1, 2, 1, 1))
    program = random_program(0, shape=(1, 6, 6), convs=(*convs, *convs[1:]), hidden=(), classes=2)
    found = SPECK.fit(program)
    large = {name for name, use in found.uses.items() if use["kernel_memory"] == 64 * 32 * 32}
    assert large == {"conv2", "conv4"}
    assert {found.placed[name] for name in large} == {5, 6}
    assert len(set(found.placed.values())) == len(program.populations)


def told(program):
    return [f"{p['layer']}: {p['told']}" for p in SPECK.fit(program).problems()]


def small(**how):
    return random_program(1, **{"hidden": (), "classes": 3, "shape": (2, 6, 6), **how})


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (small(convs=((300, 3, 1, 1, 1, 1),), shape=(200, 6, 6)), "1,638,400 bytes of kernels"),
        (small(convs=((600, 1, 1, 0, 1, 1),), shape=(1, 16, 16)), "153,600 states of 16 bits"),
        (small(convs=((3, 17, 1, 8, 1, 1),), shape=(1, 17, 17)), "kernel 17 x 17, of 16"),
        (small(convs=((3, 3, 1, 8, 1, 1),)), "padding (8, 8), of 7"),
        (small(convs=((3, 3, 3, 1, 1, 1),)), "stride 3 x 3, of (1, 2, 4, 8)"),
        (small(convs=((3, 3, 1, 1, 2, 1),)), "a kernel that is dilated"),
        (small(convs=((3, 3, 1, 1, 1, 1, 2, 1),)), "upsamples"),
        (small(shape=(2, 6, 5)), "a kernel of 6 x 5; square"),
        (small(signed_input=True), "events have no sign"),
        (small(kind="cif"), "CIF neurons; a core has IF neurons"),
        (branched_program(1, "if", ("residual",)), "2 kernels; a core has one"),
        (branched_program(1, "if", ("max",)), "LIPOOL neurons"),
        (small(convs=((3, 3, 1, 1, 1, 1),) * 9), "a core of its own, of the 9"),
        (small(), "thresholds of channels"),
        (small(), "state bits 24 .. 24, of 1 .. 16"),
    ],
)
def test_what_does_not_fit_is_told_with_its_numbers(program, expected):
    assert any(expected in text for text in told(program)), told(program)


def test_one_layer_is_read_by_two_at_most():
    net = Branches(1, "if", (2, 6, 6))
    first = net.add("first", [net.conv("input", 3)])
    for index in range(3):
        net.add(f"out{index}", [net.dense(first, 2)], Readout(1.0))
    program = net.program(InputQuantizer((2, 6, 6), 1.0, bits=4, signed=False), Schedule(2))
    assert "first: 3 layers that read it, of 2" in told(program)


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_converted_networks_have_one_threshold_and_states_of_16_bits(rounding):
    model = build("ours", (8, 16), hidden=(20,))
    samples = torch.rand(40, 1, 16, 16).round()
    program = converted(model, rounding=rounding, calibrate=samples)
    assert program.state_bits == 16
    for population in program.spiking:
        assert len(set(population.neuron.threshold.tolist())) == 1
        assert 1 <= population.neuron.threshold[0] <= 32767
        assert abs(population.bias).max() <= 127
    recording = spikeport.run(program, samples.numpy())
    assert all(np.abs(values).max() < 1 << 15 for values in recording.membrane.values())
    assert SPECK.fit(program).problems() == []
    with pytest.raises(ConversionError, match="each channel's threshold"):
        converted(model, allow_clipping=True)


def test_convert_says_what_does_not_fit_and_where_layers_are(tmp_path):
    conversion = spikeport.convert(
        build("ours", (8,)), input_shape=(1, 16, 16), input_bits=1, steps=2, target="speck"
    )
    places = [note for note in conversion.notes if "of speck" in note]
    assert len(places) == len(conversion.program.populations)
    assert "128 bytes of kernels, 2,048 states of 16 bits" in places[0]
    with pytest.raises(TargetError, match="does not fit speck") as error:
        converted(build("ours", (40,), pool=4, hidden=(200,)), weight_bits=3)
    # Kernels of 4 x 4 over 40 channels, for 200 neurons, which take 256 addresses.
    assert "163,840 bytes of kernels, of 65,536 at most" in str(error.value)
    assert "get_constraints" in str(error.value)
    spikeport.save(conversion, tmp_path / "a.net")
    partition = ("export", "a.net", "--to", "partition", "--target", "speck", "-o", "a.json")
    fails(2, "whole layers", *partition, cwd=tmp_path)


def test_profiles_with_layer_cores_are_checked(tmp_path):
    own = tmp_path / "own.toml"
    plain = (ROOT / "hw_models" / "profiles" / "speck.toml").read_text()
    own.write_text(plain)
    assert load_profile(str(own)).layer_cores == load_profile("speck").layer_cores
    for changed in (
        plain.replace("[layer_cores.fan_out]", "[layer_cores.fans]"),
        plain.replace("values = [2]", "values = []"),
        plain.replace("values = [2]", "values = [-2]"),
        plain.replace("32768, 65536, 65536,", "32768, 65536,", 1),
        plain + "\n[chip.cores]\nvalue = 9\nsource = ''\n",
    ):
        own.write_text(changed)
        with pytest.raises(TargetError, match="is not a profile"):
            load_profile(str(own))


def test_the_audit_tells_the_core_of_each_layer(tmp_path):
    program = converted(build("ours", (8, 16)))
    samples = np.random.default_rng(0).integers(0, 2, (3, 1, 16, 16)).astype(float)
    found = spikeport.audit(program, samples, lava_samples=0, target="speck")
    chip = found.document["chip"]
    assert chip["cores_per_chip"]["value"] == 9
    # 16 x 16 x 8 states; kernels of 8 x 4 x 4 -> 16 in 9 taps; 16 x 4 x 4 x 10 weights.
    shares = ((2048, "neuron"), (8 * 16 * 16, "kernel"), (16 * 16 * 16, "kernel"))
    for layer, (words, memory) in zip(chip["layers"], shares, strict=True):
        size = chip["limits"][f"{memory}_memory"]["value"][layer["core"]]
        assert layer["fullest"] == {"limit": f"{memory}_memory", "share": words / size}
    found.save(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "16,384, 16,384, 16,384, 32,768" in page
    chart = page[page.index("<title>3 cores on 1 chips") : page.index('id="chip"')]
    assert chart.count("opacity: 0.25") == 9 - 3
    for index, layer in enumerate(chip["layers"]):
        row = (
            f"<td>{index + 1}. {layer['name']}</td><td>{layer['core']}</td><td>layer</td><td>-</td>"
        )
        assert row in page
