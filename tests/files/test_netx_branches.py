"""`.net` files of branched programs: round trip, version 1, and refusal of what is malformed."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exports.netx
from exports.netx import read_net, write_net, write_stock_net
from tests.command_line import ROOT
from tests.networks import BLOCKS, branched_program
from toolchain.errors import FormatError, TargetError
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import GradedIntegrateAndFire
from toolchain.recording import Recording

SPEC = Path(exports.netx.__file__).with_name("FORMAT.md")
VERSION = "spikeport/format_version"
PACK = ROOT / "tests/conformance/pack"


@pytest.fixture
def program():
    return branched_program(5, "cif", ("residual", "max", "sum", "concat"), schedule=Schedule(3, 2))


@pytest.fixture
def net(program, tmp_path):
    path = tmp_path / "a.net"
    write_net(program, path)
    return path


def layers_of(net):
    """Number of each layer in the file by its name."""
    with h5py.File(net) as file:
        return {
            group["spikeport/name"][()].decode(): f"layer/{number}"
            for number, group in file["layer"].items()
            if "spikeport" in group
        }


def datasets(path):
    """Every dataset of a file by its path."""
    found = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(keep)
    return found


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["if", "cif"]),
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4),
    skip=st.booleans(),
)
def test_round_trip(seed, kind, blocks, skip, tmp_path_factory):
    program = branched_program(seed, kind, blocks, shape=(2, 9, 8), skip_to_readout=skip)
    path = tmp_path_factory.mktemp("net") / "x.net"
    write_net(program, path)
    back = read_net(path)
    assert back.structure() == program.structure()
    assert back.arrays().keys() == program.arrays().keys()
    for name, array in program.arrays().items():
        assert np.array_equal(back.arrays()[name], array)
        assert back.arrays()[name].dtype == array.dtype
    assert back.hash == program.hash


def test_where_things_are(net):
    at = layers_of(net)
    with h5py.File(net) as file:
        residual, pool, relay = (file[at[name]] for name in ("residual0", "max1", "sum2p"))
        assert residual["type"][0] == b"conv"
        assert residual["spikeport/source"][()] == b"residual0a"
        skip = residual["spikeport/synapse/1"]
        assert (skip["kind"][()], skip["source"][()]) == (b"conv", b"stem")
        assert skip["weight"].shape == (3, 1, 1, 1)
        assert skip["groups"][()] == 3
        assert (pool["type"][0], pool["neuron/type"][0]) == (b"pool", b"LIPOOL")
        assert set(pool) == {
            *("type", "shape", "kernel", "stride", "padding", "dilation", "neuron", "spikeport")
        }
        assert (relay["type"][0], relay["neuron/type"][0]) == (b"conv", b"RELAY")
        assert set(relay["neuron"]) == {"type"}
        readout = file[at["readout"]]
        assert readout["spikeport/synapse/1/kind"][()] == b"dense"
        assert set(readout["spikeport/synapse/1"]) == {
            *("kind", "source", "weight", "weight_exponent")
        }


def test_the_document_names_every_dataset(net):
    text = SPEC.read_text()
    names = set()
    with h5py.File(net) as file:
        file.visit(lambda name: names.add(name.rpartition("/")[2]))
    for name in names - {"layer", "neuron", "spikeport", "simulation"}:
        assert name.isdigit() or f"`{name}" in text or f"/{name}`" in text, name
    assert "`spikeport/synapse/K`" in text


@pytest.mark.parametrize("name", ["random-if", "random-cif", "digits-if", "digits-cif"])
def test_version_1_is_read(name, tmp_path):
    """Files written by version 1, and what they become when written again."""
    path = PACK / f"{name}.net"
    program = read_net(path)
    assert program.hash == Recording.load(PACK / f"{name}.npz").meta["program_hash"]
    write_net(program, tmp_path / "again.net")
    old, new = datasets(path), datasets(tmp_path / "again.net")
    assert (old.pop(VERSION), new.pop(VERSION)) == (1, 2)
    added = {n.rpartition("/")[2] for n in set(new) - set(old)}
    assert added == {"source", "certificate", "sha256"}
    for dataset, value in old.items():
        assert np.array_equal(new[dataset], value), dataset


def change(net, name, value=None):
    with h5py.File(net, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize(
    "dataset",
    [
        ("residual0", "spikeport/source"),
        ("residual0", "spikeport/synapse/1/kind"),
        ("residual0", "spikeport/synapse/1/source"),
        ("residual0", "spikeport/synapse/1/weight"),
        ("residual0", "spikeport/synapse/1/weight_exponent"),
        ("residual0", "spikeport/synapse/1/stride"),
        ("residual0", "spikeport/synapse/1/padding"),
        ("residual0", "spikeport/synapse/1/dilation"),
        ("residual0", "spikeport/synapse/1/groups"),
        ("readout", "spikeport/synapse/1/weight"),
        ("max1", "kernel"),
        ("max1", "stride"),
        ("max1", "padding"),
        ("max1", "dilation"),
        ("max1", "spikeport/source"),
        ("max1", "neuron/type"),
        ("sum2p", "bias"),
    ],
)
def test_missing_dataset(net, dataset):
    name, inside = dataset
    path = f"{layers_of(net)[name]}/{inside}"
    change(net, path)
    with pytest.raises(FormatError, match="is missing") as error:
        read_net(net)
    assert f"/{path}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "inside", "value", "message"),
    [
        ("residual0", "spikeport/source", b"nowhere", "an earlier layer"),
        ("residual0", "spikeport/source", b"residual0", "an earlier layer"),
        ("residual0", "spikeport/source", b"readout", "an earlier layer"),
        ("stem", "spikeport/source", b"residual0", "an earlier layer"),
        ("residual0", "spikeport/synapse/1/source", b"concat3", "an earlier layer"),
        ("residual0", "spikeport/synapse/1/source", 7, "is not a string"),
        ("residual0", "spikeport/synapse/1/kind", b"window", "unknown kind of synapse"),
        ("residual0", "spikeport/synapse/1/kind", b"pool", "unknown kind of synapse"),
        ("residual0", "spikeport/synapse/1/kind", b"dense", "must hold integers with 2 axes"),
        ("residual0", "spikeport/synapse/1/groups", 2, "groups must divide C_out"),
        ("residual0", "spikeport/synapse/1/weight_exponent", 99, "weight_exponent must be"),
        ("residual0", "spikeport/synapse/3/kind", b"conv", "numbered from 1"),
        ("residual0a", "spikeport/synapse/note", 1, "numbered from 1"),
        ("residual0a", "spikeport/synapse", 1, "is of the wrong kind"),
        ("residual0a", "spikeport/name", b"stem", "two layers have the same name"),
        ("residual0a", "spikeport/name", b"input", "two layers have the same name"),
        ("max1", "kernel", np.array([2, 2, 2]), "must hold two integers"),
        ("max1", "kernel", np.array([2.0, 2.0]), "must hold integers"),
        ("max1", "padding", np.array([2, 2]), "at most half its kernel"),
        ("max1", "neuron/type", np.array([b"IF"], "S10"), "threshold: is missing"),
        ("max1", "neuron/type", np.array([b"RELAY"], "S10"), "is fed by windows"),
        ("sum2p", "neuron/type", np.array([b"LIPOOL"], "S10"), "is fed by windows"),
        ("sum2p", "bias", np.array([0, 1, 0]), "a RELAY has no bias"),
        ("sum2p", "weight", np.full((3, 1, 2, 2), 100), "may not fit 8 bits"),
        ("max1", "shape", np.array([], np.int64), "does not describe a layer"),
    ],
)
def test_malformed(net, name, inside, value, message):
    path = f"{layers_of(net)[name]}/{inside}"
    change(net, path, value)
    with pytest.raises(FormatError, match=message) as error:
        read_net(net)
    # A layer's own fault has its path; what only shows in the whole program has its name.
    assert layers_of(net).get(name, "layer/") in str(error.value) or name in str(error.value)


def test_a_pool_takes_no_further_synapse(net):
    at = layers_of(net)
    with h5py.File(net, "a") as file:
        file.copy(file[f"{at['residual0']}/spikeport/synapse"], file[at["max1"]]["spikeport"])
    with pytest.raises(FormatError, match=r"max1: a synapse does not fit|max1: a LIPool"):
        read_net(net)


def test_a_skip_led_elsewhere_is_noticed(net):
    """Another source of the same shape: well formed, and not what was written."""
    path = f"{layers_of(net)['residual0']}/spikeport/source"
    with h5py.File(net) as file:
        assert file[path][()] == b"residual0a"
    change(net, path, b"stem")
    with pytest.raises(FormatError, match="changed after it was written"):
        read_net(net)


def test_branches_in_a_file_of_version_1_are_refused(net, tmp_path):
    change(net, VERSION, 1)
    with pytest.raises(FormatError, match="further synapses are out of place"):
        read_net(net)
    pooled = tmp_path / "pooled.net"
    write_net(branched_program(1, "if", ("max",), skip_to_readout=False), pooled)
    change(pooled, VERSION, 1)
    with pytest.raises(FormatError, match="unknown layer type"):
        read_net(pooled)
    summed = tmp_path / "summed.net"
    write_net(branched_program(1, "if", ("sum",), skip_to_readout=False), summed)
    change(summed, VERSION, 1)
    with pytest.raises(FormatError, match="unknown neuron type"):
        read_net(summed)


@pytest.fixture
def overhung(tmp_path):
    path = tmp_path / "overhung.net"
    write_net(branched_program(3, "if", ("overhang",), skip_to_readout=False), path)
    return path


def test_only_a_program_with_an_overhang_needs_version_3(net, overhung):
    assert datasets(net)[VERSION] == 2
    assert datasets(overhung)[VERSION] == 3
    assert not any(name.endswith("overhang") for name in datasets(net))
    at = layers_of(overhung)["overhang0"]
    (pool,) = read_net(overhung).population("overhang0").synapses
    assert datasets(overhung)[f"{at}/overhang"].tolist() == list(pool.overhang)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "does not fit its population|changed after it was written"),
        (np.array([1, 1, 1]), "must hold two integers"),
        (np.array([0.5, 1.0]), "must hold integers"),
        (np.array([-9, 0]), "padding below and to the right"),
        (np.array([40, 0]), "nothing but padding"),
        (np.array([0, 1 << 60]), "nothing but padding"),
    ],
)
def test_malformed_overhang(overhung, value, message):
    change(overhung, f"{layers_of(overhung)['overhang0']}/overhang", value)
    with pytest.raises(FormatError, match=message):
        read_net(overhung)


def test_an_overhang_in_a_file_of_version_2_does_not_count(overhung):
    change(overhung, VERSION, 2)
    with pytest.raises(FormatError, match=r"does not fit its population|changed after it was"):
        read_net(overhung)


@pytest.fixture
def upsampled(tmp_path):
    path = tmp_path / "upsampled.net"
    write_net(branched_program(3, "if", ("upsampled",), skip_to_readout=False), path)
    return path


def test_only_a_program_with_an_upsampled_convolution_needs_version_4(net, upsampled):
    assert datasets(upsampled)[VERSION] == 4
    assert not any(name.endswith("upsample") for name in datasets(net))
    at = layers_of(upsampled)["upsampled0"]
    conv, *_ = read_net(upsampled).population("upsampled0").synapses
    assert conv.upsample == (2, 2)
    assert conv.overhang == (1, 0)
    for name in ("upsample", "overhang"):
        assert datasets(upsampled)[f"{at}/{name}"].tolist() == list(getattr(conv, name))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("upsample", None, "does not fit its population"),
        ("overhang", None, "does not fit its population|changed after it was written"),
        ("upsample", np.array([2]), "must hold two integers"),
        ("upsample", np.array([2.0, 2.0]), "must hold integers"),
        ("upsample", np.array([0, 2]), "upsample must be two integers >= 1"),
        ("upsample", np.array([1 << 60, 2]), "does not fit its population"),
        ("overhang", np.array([-9, 0]), "padding below and to the right"),
    ],
)
def test_malformed_upsampling(upsampled, name, value, message):
    change(upsampled, f"{layers_of(upsampled)['upsampled0']}/{name}", value)
    with pytest.raises(FormatError, match=message):
        read_net(upsampled)


@pytest.mark.parametrize("version", [2, 3])
def test_upsampling_in_a_file_of_an_older_version_does_not_count(upsampled, version):
    change(upsampled, VERSION, version)
    with pytest.raises(FormatError, match=r"does not fit its population|changed after it was"):
        read_net(upsampled)


@pytest.fixture
def graded(tmp_path):
    path = tmp_path / "graded.net"
    write_net(branched_program(3, "graded", ("residual", "max"), low=-9, high=9), path)
    return path


def test_only_a_program_with_graded_neurons_needs_version_6(net, graded):
    assert datasets(graded)[VERSION] == 6
    assert not any(name.endswith("max_spike") for name in datasets(net))
    at = layers_of(graded)["stem"]
    neuron = read_net(graded).population("stem").neuron
    assert isinstance(neuron, GradedIntegrateAndFire)
    assert datasets(graded)[f"{at}/neuron/max_spike"] == neuron.max_spike


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "max_spike: is missing"),
        (1, "out of range"),
        (128, "out of range"),
        (np.array([3]), "must hold integers with 0 axes"),
        (3.0, "must hold integers with 0 axes"),
        (9, "changed after it was written"),
    ],
)
def test_a_malformed_largest_spike(graded, value, message):
    change(graded, f"{layers_of(graded)['stem']}/neuron/max_spike", value)
    with pytest.raises(FormatError, match=message):
        read_net(graded)


@pytest.mark.parametrize("version", [2, 5])
def test_graded_neurons_in_a_file_of_an_older_version_are_refused(graded, version):
    change(graded, VERSION, version)
    with pytest.raises(FormatError, match=r"unknown neuron type(?s:.*)GRADED_IF"):
        read_net(graded)


def test_branches_are_not_for_the_stock_loader(tmp_path):
    path = tmp_path / "stock.net"
    program = branched_program(1, "if", ("residual",), schedule=Schedule(1))
    with pytest.raises(TargetError, match=r"(?s)residual0: the stock loader runs chains.*stem"):
        write_stock_net(program, path)
    with pytest.raises(TargetError, match=r"max0: stock netx has no pools"):
        write_stock_net(
            branched_program(1, "if", ("max",), schedule=Schedule(1), skip_to_readout=False), path
        )
    relayed = branched_program(1, "if", ("sum",), schedule=Schedule(1), skip_to_readout=False)
    with pytest.raises(TargetError, match=r"sum0p: stock netx has no such neuron"):
        write_stock_net(relayed, path)
    assert list(tmp_path.iterdir()) == []
