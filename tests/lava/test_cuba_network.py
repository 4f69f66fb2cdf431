"""lava-dl's own netx files in `Network`: the bits of its loader and of its tests' golden data.

Each network runs in a process of its own, because lava forks and its import changes the process.
"""

import json
from importlib.metadata import files

import h5py
import numpy as np
import pytest

from exports.netx.cuba_reader import is_stock_net, read_cuba_net
from exports.netx.stock_weights import loaded_by_stock
from tests.command_line import ROOT
from tests.lava_programs import run_program
from toolchain.errors import FormatError, SpikeportError

pytestmark = pytest.mark.stock

PROGRAM = """
import json, sys
import numpy as np
from hw_models.lava_compat import import_stock_netx, prepare

how = json.loads(sys.argv[1])
if how["loader"] == "stock":
    Network = import_stock_netx().Network
else:
    prepare()
    from exports.network import Network
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from hw_models.run_config import SimCfg

net = Network(net_config=how["net"], **how["settings"])
config = Loihi2SimCfg(select_tag="fixed_pt")
if how["loader"] in ("fast", "fixed_pt"):
    config = SimCfg(how["loader"])
if how["bias"]:
    net.in_layer.neuron.bias_mant.init = np.load(how["bias"]).astype(int)
steps = how["steps"]
if how["data"]:
    source = Source(data=np.load(how["data"]))
    source.s_out.connect(net.inp)
sinks = []
for layer in net.layers if how["spikes"] else net.layers[-1:]:
    sinks.append(Sink(shape=layer.neuron.s_out.shape, buffer=steps))
    layer.neuron.s_out.connect(sinks[-1].a_in)
found = {"table": np.array(str(net)), "len": np.array(len(net))}
done = 0
for stop in [*how["probe"], steps]:
    if stop > done:
        net.run(condition=RunSteps(num_steps=stop - done), run_cfg=config)
        done = stop
    for index in how["probed"].get(str(stop), []):
        neuron = net.layers[index].neuron
        found[f"u-{index}-{stop}"] = np.array(neuron.u.get())
        found[f"v-{index}-{stop}"] = np.array(neuron.v.get())
for index, sink in enumerate(sinks):
    found[f"spikes-{index if how['spikes'] else len(net.layers) - 1}"] = sink.data.get()
net.stop()
np.savez(how["out"], **found)
"""


def run(tmp_path, net, loader, steps, *, data=None, bias=None, probed=None, spikes=True, **how):
    """Spikes of layers (..., steps), and u and v of `probed`, {step: layers}, as the user sees."""
    for name, values in (("data", data), ("bias", bias)):
        if values is not None:
            np.save(tmp_path / f"{name}.npy", values)
    settings = {
        "loader": loader,
        "net": str(net),
        "settings": how,
        "steps": steps,
        "data": None if data is None else str(tmp_path / "data.npy"),
        "bias": None if bias is None else str(tmp_path / "bias.npy"),
        "probe": sorted(probed or {}),
        "probed": {str(step): layers for step, layers in (probed or {}).items()},
        "spikes": spikes,
        "out": str(tmp_path / f"{loader}.npz"),
    }
    result = run_program(PROGRAM, json.dumps(settings))
    assert result.returncode == 0, result.stdout + result.stderr
    with np.load(settings["out"]) as file:
        return {name: file[name] for name in file.files}


def golden(name):
    """A file that the lava-dl package ships with its tests."""
    place = f"tests/lava/lib/dl/netx/{name}"
    return next(file.locate() for file in files("lava-dl") if str(file) == place)


# Random files against the stock loader


def write_layer(layers, kind, rng, shape, weight=None, *, decays=(1024, 512), threshold=60, **more):
    """One layer as `export_hdf5` of lava-dl 0.6.0 writes it."""
    group = layers.create_group(str(len(layers)))
    group.create_dataset("type", (1,), "S10", [kind.encode()])
    group["shape"] = np.array(shape)
    if kind == "flatten":
        return
    if weight is not None:
        group["weight"] = weight.astype(np.float32)
        group["bias"] = rng.integers(-20, 40, shape[0]).astype(np.float32)
    for name, value in more.items():
        group[name] = value
    neuron = {"type": "CUBA", "iDecay": decays[0], "vDecay": decays[1], "vThMant": threshold}
    for name, value in {**neuron, "refDelay": 1, "gradedSpike": False}.items():
        group[f"neuron/{name}"] = value


def conv_net(path, rng, *, input_neurons=True):
    """Convolutions of every geometry, a flatten, dense layers with and without delays."""
    with h5py.File(path, "w") as file:
        layers = file.create_group("layer")
        if input_neurons:
            write_layer(layers, "input", rng, (2, 9, 8), bias=3.0, weight=None)
        else:
            group = layers.create_group("0")
            group.create_dataset("type", (1,), "S10", [b"input"])
            group["shape"] = np.array((2, 9, 8))
        geometry = {"stride": [2, 1], "padding": [1, 2], "dilation": [1, 2], "groups": 2}
        weight = rng.integers(-30, 31, (6, 1, 3, 3, 1))
        write_layer(layers, "conv", rng, (6, 5, 8), weight, **geometry)
        weight = rng.integers(-30, 31, (4, 6, 2, 3))
        plain = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        write_layer(layers, "conv", rng, (4, 4, 6), weight, decays=(4096, 0), **plain)
        write_layer(layers, "flatten", rng, (1, 1, 96))
        weight = rng.integers(-200, 202, (7, 96))
        write_layer(layers, "dense", rng, (7, 1, 1), weight, threshold=300)
        weight = rng.integers(-100, 120, (6, 7))
        delay = rng.integers(0, 5, 6).astype(np.float32)
        write_layer(layers, "dense", rng, (6, 1, 1), weight, delay=delay)
        weight = rng.integers(1, 120, (3, 6))
        delay = rng.integers(0, 3, (3, 6)).astype(np.float32)
        write_layer(layers, "dense", rng, (3, 1, 1), weight, delay=delay)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name


@pytest.mark.parametrize("seed", [0, 1])
def test_the_bits_of_the_stock_loader(tmp_path, seed):
    rng = np.random.default_rng(seed)
    conv_net(tmp_path / "net.net", rng)
    how = {
        "steps": 30,
        "bias": rng.integers(0, 60, (8, 9, 2)),
        "probed": {step: list(range(6)) for step in (1, 9, 30)},
        **({"reset_interval": 12, "reset_offset": 1} if seed else {}),
    }
    expected = run(tmp_path, tmp_path / "net.net", "stock", **how)
    assert all(expected[f"spikes-{index}"].any() for index in range(6))
    for loader in ("fast", "fixed_pt", "plain"):
        assert_same(run(tmp_path, tmp_path / "net.net", loader, **how), expected)


@pytest.mark.parametrize("bits", [0, 5])
def test_spikes_from_outside_and_parts_of_a_network(tmp_path, bits):
    rng = np.random.default_rng(2)
    conv_net(tmp_path / "net.net", rng, input_neurons=False)
    low, high = (0, 2) if bits == 0 else (-9, 10)
    how = {
        "steps": 20,
        "data": rng.integers(low, high, (8, 9, 2, 20)) * (rng.random((8, 9, 2, 20)) < 0.3),
        "probed": {20: [0, 1]},
        "input_message_bits": bits,
        "num_layers": 3,
    }
    expected = run(tmp_path, tmp_path / "net.net", "stock", **how)
    assert expected["len"] == 2
    for loader in ("fast", "fixed_pt"):
        assert_same(run(tmp_path, tmp_path / "net.net", loader, **how), expected)
    how |= {"num_layers": None, "skip_layers": 4, "probed": {20: [0, 1, 2]}, "bias": None}
    # A dense layer in front takes what a flatten makes, in C, H, W order.
    how["data"] = rng.integers(0, 2, (96, 20))
    expected = run(tmp_path, tmp_path / "net.net", "stock", **how)
    assert expected["len"] == 3
    for loader in ("fast", "fixed_pt"):
        assert_same(run(tmp_path, tmp_path / "net.net", loader, **how), expected)


def test_a_batch_is_as_many_single_runs(tmp_path):
    rng = np.random.default_rng(3)
    conv_net(tmp_path / "net.net", rng)
    bias = rng.integers(0, 60, (3, 8, 9, 2))
    together = run(tmp_path, tmp_path / "net.net", "fast", 14, bias=bias, batch=3)
    for sample in range(3):
        alone = run(tmp_path, tmp_path / "net.net", "stock", 14, bias=bias[sample])
        for index in range(6):
            name = f"spikes-{index}"
            assert np.array_equal(together[name][sample], alone[name]), name


# The golden data of lava-dl's tests


def test_tinynet(tmp_path):
    bias = np.load(golden("gts/tinynet/input_bias.npy"))
    expected = np.load(golden("gts/tinynet/output.npy"))[0].transpose([2, 1, 0, 3])[..., 1:]
    for loader in ("fast", "fixed_pt"):
        found = run(tmp_path, golden("tiny.net"), loader, 17, bias=bias, reset_interval=17)
        # One step of depth per layer, as in lava-dl's own test.
        assert np.array_equal(found["spikes-2"][..., 2:17], expected)
    assert expected.any()


def test_pilotnet(tmp_path):
    """Currents and potentials of every layer, of the smaller ones at every step."""
    names = [f"conv-{i}" for i in range(5)] + [f"fc-{i}" for i in range(3)]
    probed = {step: list(range(3, 10)) for step in range(1, 16)} | {15: list(range(1, 10))}
    found = run(
        tmp_path,
        golden("gts/pilotnet_lif/network.net"),
        "fast",
        15,
        bias=np.load(golden("gts/pilotnet_lif/image.npy")),
        probed=probed,
        spikes=False,
        reset_interval=16,
    )
    data = {
        name: [np.load(golden(f"gts/pilotnet_lif/{name}{what}.npy")) for what in ("-u", "-v", "")]
        for name in names
    }
    for step, layers in probed.items():
        for index in layers[:-1]:
            u, v, fired = (values[..., step - 1] for values in data[names[index - 1]])
            assert np.array_equal(found[f"u-{index}-{step}"], u), (index, step)
            # The golden potentials of neurons that fired hold a mark, 128, in place of 0.
            assert (v[fired] == 128).all()
            expected = np.where(fired, 0, v)
            assert np.array_equal(found[f"v-{index}-{step}"], expected), (index, step)
    # The golden data of the last layer contradict those of the one before, which its loader and
    # this one agree with: u = 64 W s one step later.
    with h5py.File(golden("gts/pilotnet_lif/network.net")) as file:
        weight = file["layer/10/weight"][()].astype(int)
    before = data["fc-2"][2].astype(int)
    for step in range(2, 16):
        assert found[f"u-9-{step}"] == 64 * weight @ before[:, step - 2]


def test_ntidigits(tmp_path):
    """Axonal delays of up to 62 steps; the golden spikes fit no loader, so the stock one tells."""
    how = {
        "steps": 150,
        "data": np.load(golden("gts/ntidigits/input.npy"))[:, :150],
        "probed": {150: [0, 1, 2]},
        "num_layers": 5,
    }
    expected = run(tmp_path, golden("gts/ntidigits/ntidigits.net"), "stock", **how)
    assert expected["spikes-2"].any()
    for loader in ("fast", "fixed_pt"):
        assert_same(run(tmp_path, golden("gts/ntidigits/ntidigits.net"), loader, **how), expected)


def test_mnist_whose_last_layer_has_no_neuron_of_its_own(tmp_path):
    how = {
        "steps": 10,
        "bias": np.random.default_rng(0).integers(0, 120, 784),
        "probed": {10: [1, 2, 3]},
    }
    expected = run(tmp_path, golden("mnist.net"), "stock", **how)
    assert expected["v-3-10"].any()
    assert_same(run(tmp_path, golden("mnist.net"), "fast", **how), expected)


# What is refused


def changed(path, change):
    """A sound file with one thing changed."""
    conv_net(path, np.random.default_rng(0))
    with h5py.File(path, "a") as file:
        change(file["layer"])
    return path


def put(name, value):
    """A change that sets a dataset."""

    def change(layers):
        if name in layers:
            del layers[name]
        layers[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("1/weight", np.full((6, 1, 3, 3), 2.5)), "not whole"),
        (put("1/weight", np.full((6, 1, 3, 3), np.nan)), "NaN or infinity"),
        (put("4/weight", np.full((7, 96), 300)), "loaded as 0"),
        (put("4/weight", np.full((7, 96), -300)), "loaded as 0"),
        (put("4/weight", np.zeros((7, 96))), "without any weight"),
        (put("4/weight", np.arange(-300, 372).reshape(7, 96)), "weights that are clipped"),
        (put("4/weight", np.full((7, 96), -4)), "loaded as 0"),
        (put("4/weight", np.full((7, 95), 1)), "95 inputs, where 96 arrive"),
        (put("1/groups", 3), "channels differ"),
        (put("1/shape", [6, 5, 7]), r"where the convolution gives \(6, 5, 8\)"),
        (put("1/bias", [40000.0] * 6), "beyond 16 bits"),
        (put("1/bias", [1.0] * 5), "5 values for 6 channels"),
        (put("1/delay", [3.0] * 6), "which are dropped"),
        (put("5/delay", [63] * 6), "beyond 62 steps"),
        (put("5/delay", [1] * 5), "do not fit"),
        (put("1/type", "pool"), "no such layer"),
        (put("1/type", "dense_rec"), "only lava-dl's own loader"),
        (put("1/neuron/type", "SDNN"), "only CUBA"),
        (put("1/neuron/refDelay", 2), "delay that is dropped"),
        (put("1/neuron/gradedSpike", True), "sent as one bit"),
        (put("1/neuron/messageBits", 8), "building hangs"),
        (put("1/neuron/vDecay", 4097), "outside 0 .. 4096"),
        (put("1/stride", [1, 2, 3]), "one integer or two"),
        (lambda layers: layers.__delitem__("3"), "numbered from 0"),
        (lambda layers: layers.__delitem__("1/stride"), "is missing"),
        (lambda layers: layers["3"].__delitem__("type"), "is missing"),
        (lambda layers: layers.move("6", "7"), "numbered from 0"),
    ],
)
def test_refusals_name_the_place(tmp_path, change, words):
    path = changed(tmp_path / "net.net", change)
    with pytest.raises(SpikeportError, match=words) as caught:
        read_cuba_net(path)
    assert str(path) in str(caught.value)


def test_what_is_a_stock_file(tmp_path):
    assert is_stock_net(golden("tiny.net"))
    assert not is_stock_net(ROOT / "tests/conformance/pack/digits-if.net")
    (tmp_path / "no.net").write_text("nothing")
    with pytest.raises(FormatError, match="HDF5"):
        is_stock_net(tmp_path / "no.net")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"blocks": 2}, "not grouped into blocks"),
        ({"reset_interval": 6}, "would never reset"),
        ({"skip_layers": 7}, "no layer is left"),
        ({"data": np.full((8, 9, 2, 4), -1), "num_layers": 3}, "does not fit the messages"),
    ],
)
def test_refusals_of_the_process(tmp_path, how, words):
    rng = np.random.default_rng(0)
    conv_net(tmp_path / "net.net", rng, input_neurons="data" not in how)
    with pytest.raises(AssertionError, match=words):
        run(tmp_path, tmp_path / "net.net", "fast", 4, **how)


def test_weights_as_the_stock_loader_makes_them(tmp_path):
    """Against lava-dl's and Lava's own functions, on matrices of every sign and magnitude."""
    code = """
import contextlib, io, sys
import numpy as np
from hw_models.lava_compat import import_stock_netx
import_stock_netx()
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
found = []
for weight in np.load(sys.argv[1]):
    try:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            held, bits, exponent, _ = optimize_weight_bits(weight)
    except OverflowError:
        found.append(np.full(weight.shape, np.nan))
        continue
    mode = determine_sign_mode(held)
    held = truncate_weights(clip_weights(held, mode, num_bits=8), mode, bits)
    found.append(held * 2.0**exponent)
np.save(sys.argv[2], found)
"""
    rng = np.random.default_rng(0)
    spans = [(-1, 1), (0, 1), (1, 2), (-1, 0), (-2, -1)]
    weights = np.array(
        [
            rng.integers(low * reach, high * reach + 1, (2, 3)) << rng.integers(0, 3)
            for reach in (1, 2, 3, 7, 30, 100, 127, 128, 250, 255, 256, 300, 600)
            for low, high in spans
            for _ in range(30)
        ]
    )
    np.save(tmp_path / "weights.npy", weights)
    paths = [str(tmp_path / name) for name in ("weights.npy", "found.npy")]
    assert run_program(code, *paths).returncode == 0
    kinds = set()
    for weight, held in zip(weights, np.load(paths[1]), strict=True):
        mine = loaded_by_stock(weight)
        if mine is None:
            assert not np.array_equal(held, np.trunc(held)), weight
        else:
            assert np.array_equal(mine, held), weight
        kinds.add("none" if mine is None else "same" if np.array_equal(mine, weight) else "other")
    assert kinds == {"none", "same", "other"}
