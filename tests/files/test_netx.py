"""`.net` files: round trip, refusal of everything damaged, and the written format."""

import re
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exports.netx
from exports.netx import FORMAT_VERSION, read_net, write_net, writer
from exports.netx.lint import lint_file
from exports.netx.replays import read_replays
from tests.networks import random_program
from tests.oracles import net_file
from tests.strategies import KINDS
from toolchain.errors import FormatError, OutputError
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import NEURONS

SPEC = Path(exports.netx.__file__).with_name("FORMAT.md")


@pytest.fixture
def program():
    return replace(random_program(7, "cif", schedule=Schedule(3, 2)), provenance={"seed": 7})


@pytest.fixture
def net(program, tmp_path):
    path = tmp_path / "a.net"
    write_net(program, path)
    return path


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    kind=KINDS,
    hidden=st.lists(st.integers(1, 5), max_size=2),
    signed=st.booleans(),
)
def test_round_trip(seed, kind, hidden, signed, tmp_path_factory):
    program = random_program(seed, kind, hidden=hidden, signed_input=signed)
    path = tmp_path_factory.mktemp("net") / "x.net"
    write_net(program, path)
    back = read_net(path)
    assert back.structure() == program.structure()
    for name, array in program.arrays().items():
        assert np.array_equal(back.arrays()[name], array)
        assert back.arrays()[name].dtype == array.dtype
    assert back.hash == program.hash


def test_paths_as_strings(program, net, tmp_path):
    write_net(program, str(tmp_path / "b.net"))
    assert read_net(str(tmp_path / "b.net")).hash == read_net(net).hash
    with pytest.raises(FormatError, match="no such file"):
        read_net(str(tmp_path / "missing.net"))


def test_provenance_survives(net):
    assert read_net(net).provenance == {"seed": 7}


def test_stock_names_and_types(net):
    with h5py.File(net) as file:
        assert [file[f"layer/{i}/type"][0] for i in range(5)] == [
            b"input",
            b"conv",
            b"flatten",
            b"dense",
            b"dense",
        ]
        conv = file["layer/1"]
        assert file["layer/0/type"].dtype == "S10"
        assert conv["weight"].dtype == np.int8
        assert conv["weight"].shape == (3, 2, 3, 3)
        assert conv["stride"][()].tolist() == [1, 1]
        assert conv["groups"].shape == ()
        assert file["simulation/tSample"][()] == 5


def test_the_document_states_the_version():
    found = re.search(r"describes \*\*version (\d+)\*\*", SPEC.read_text())
    assert found is not None
    assert int(found[1]) == FORMAT_VERSION


def test_the_document_names_every_dataset(net):
    text = SPEC.read_text()
    names = set()
    with h5py.File(net) as file:
        file.visit(lambda name: names.add(name.rpartition("/")[2]))
    for name in names - {"layer", "neuron", "spikeport", "simulation"}:
        assert name.isdigit() or f"`{name}" in text or f"/{name}`" in text, name
    for kind in NEURONS:
        assert f"`{kind}`" in text


def test_writing_while_other_processes_are_started(program, tmp_path):
    """A child that is just being started must not keep a finished file locked."""
    stop = threading.Event()

    def start_processes():
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    starters = [threading.Thread(target=start_processes) for _ in range(3)]
    for starter in starters:
        starter.start()
    try:
        for index in range(60):
            write_net(program, tmp_path / f"{index}.net")
    finally:
        stop.set()
        for starter in starters:
            starter.join()


def test_failed_writing_leaves_nothing(program, tmp_path):
    with pytest.raises(OutputError, match="folder to write into is not there"):
        write_net(program, tmp_path / "missing" / "a.net")
    with pytest.raises(OutputError, match="is a folder"):
        write_net(program, tmp_path)
    assert list(tmp_path.iterdir()) == []


def add_one(file, name):
    values = file[name][...]
    values.flat[0] += 1
    file[name][...] = values


def rewrite(file, name, old, new):
    text = file[name].asstr()[()]
    assert old in text
    del file[name]
    file[name] = text.replace(old, new)


FAULTS = {
    "conv0/weight0": lambda file: add_one(file, "layer/1/weight"),
    "conv0/bias": lambda file: add_one(file, "layer/1/bias"),
    "conv0/threshold": lambda file: add_one(file, "layer/1/neuron/threshold"),
    "the header": lambda file: rewrite(
        file, "spikeport/header", '"wake_steps":4', '"wake_steps":5'
    ),
    "the texts": lambda file: rewrite(file, "spikeport/certificate", "{", '{"more":1,'),
    "the provenance": lambda file: rewrite(file, "spikeport/provenance", "{", '{"more":1,'),
    "the hash": lambda file: rewrite(
        file, "spikeport/program_hash", random_program(7).hash[:9], "0" * 9
    ),
}


@pytest.fixture
def faulty(monkeypatch, request):
    """Writing that leaves a file with a fault."""

    def write(program, file):
        honest(program, file)
        FAULTS[request.param](file)

    honest = writer._write
    monkeypatch.setattr(writer, "_write", write)
    return request.param


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_failed_verification_leaves_nothing(tmp_path, faulty):
    program = replace(random_program(7), provenance={"source": "a test"})
    with pytest.raises(FormatError, match="not the program written") as failure:
        write_net(program, tmp_path / "a.net")
    assert f"a difference in {faulty}" in str(failure.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faulty", ["conv0/weight0"], indirect=True)
def test_a_file_that_was_there_survives_a_failed_write(tmp_path, faulty):
    path = tmp_path / "a.net"
    path.write_bytes(b"what was there")
    with pytest.raises(FormatError):
        write_net(random_program(9), path)
    assert path.read_bytes() == b"what was there"


def test_missing_file(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        read_net(tmp_path / "a.net")


@pytest.mark.parametrize("keep", [0, 10, 2000, -200])
def test_truncated(net, keep):
    data = net.read_bytes()
    net.write_bytes(data[:keep] if keep >= 0 else data[: len(data) + keep])
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        read_net(net)


def test_not_hdf5(tmp_path):
    path = tmp_path / "a.net"
    path.write_text("hello")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        read_net(path)


def test_a_file_of_another_project(tmp_path):
    path = tmp_path / "a.net"
    with h5py.File(path, "w") as file:
        file["layer/0/type"] = "input"
    with pytest.raises(FormatError, match="not a file of this project"):
        read_net(path)


def every_dataset():
    """All datasets of a CIF file and what breaks when each is missing."""
    return [
        "layer/0/type",
        "layer/0/shape",
        *(
            f"layer/1/{n}"
            for n in [
                "type",
                "shape",
                "weight",
                "bias",
                "stride",
                "padding",
                "dilation",
                "groups",
                "neuron/type",
                "neuron/threshold",
                "neuron/initial_potential",
                "spikeport/name",
                "spikeport/source",
                "spikeport/weight_exponent",
            ]
        ),
        "layer/4/spikeport/scale",
        "simulation/Ts",
        "simulation/tSample",
        "spikeport/format_version",
        "spikeport/program_hash",
        "spikeport/header",
        "spikeport/provenance",
    ]


@pytest.mark.parametrize("name", every_dataset())
def test_missing_dataset(net, name):
    with h5py.File(net, "a") as file:
        del file[name]
    with pytest.raises(FormatError, match="is missing") as error:
        read_net(net)
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["layer", "layer/1/neuron", "layer/2"])
def test_missing_group(net, name):
    with h5py.File(net, "a") as file:
        del file[name]
    with pytest.raises(FormatError):
        read_net(net)


def put(net, name, value, **how):
    with h5py.File(net, "a") as file:
        del file[name]
        if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
            file[name] = value
        else:
            file.create_dataset(name, data=value, **how)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("spikeport/format_version", 7, "unknown format version"),
        ("spikeport/header", np.bytes_("{"), "is not a JSON object"),
        ("spikeport/header", np.bytes_("[]"), "is not a JSON object"),
        ("spikeport/header", np.bytes_("{}"), "does not describe a program"),
        ("spikeport/program_hash", np.bytes_("0"), "changed after it was written"),
        ("layer/1/weight", np.zeros((3, 2, 3, 3)), "must hold integers with 4 axes"),
        ("layer/1/weight", np.zeros((3, 2, 3), int), "must hold integers with 4 axes"),
        ("layer/1/weight", np.full((3, 2, 3, 3), 200), "does not describe a program"),
        ("layer/1/type", np.array([b"average"], "S10"), "unknown layer type"),
        ("layer/1/type", np.array([b"pool"], "S10"), "kernel: is missing"),
        ("layer/1/neuron/type", np.array([b"CUBA"], "S10"), "unknown neuron type"),
        ("layer/1/neuron/threshold", np.array([1, 0, 1]), "threshold must be positive"),
        ("layer/1/neuron/threshold", np.array([1, 1]), "one value per channel"),
        ("layer/1/stride", np.array([1, 1, 1]), "must hold two integers"),
        ("layer/1/stride", np.array([0, 1]), "stride must be two integers >= 1"),
        ("layer/1/spikeport/name", 3, "is not a string"),
        ("layer/1/weight", h5py.ExternalLink("/etc/hostname", "/"), "a link into another file"),
        ("layer/1/weight", h5py.SoftLink("/layer/3/weight"), "a soft link to"),
        ("layer/0/shape", np.array([2, 6, 6]), "input shape differs"),
        ("simulation/Ts", 2, "not those of the program"),
        ("simulation/tSample", 6, "not those of the program"),
        ("spikeport/sha256", 3, "is not a string"),
        ("spikeport/sha256", np.bytes_("0"), "changed since it was written"),
    ],
)
def test_wrong_dataset(net, name, value, message):
    put(net, name, value)
    with pytest.raises(FormatError, match=message):
        read_net(net)


TEXT_CHANGES = {
    "the name": lambda file: rewrite(file, "spikeport/header", '"name":"', '"name":"x'),
    "the provenance": lambda file: rewrite(file, "spikeport/provenance", "7", "8"),
    "the certificate": lambda file: rewrite(file, "spikeport/certificate", "true", "1"),
    "no certificate": lambda file: file["spikeport"].pop("certificate"),
    "replays": lambda file: file.__setitem__("spikeport/replays", '{"runs":[]}'),
}


@pytest.mark.parametrize("change", TEXT_CHANGES)
def test_any_changed_text_is_noticed(net, change):
    """What is no part of the program's hash: it is part of that of the texts."""
    before = read_net(net).hash
    with h5py.File(net, "r+") as file:
        TEXT_CHANGES[change](file)
    for read in (read_net, read_replays):
        with pytest.raises(FormatError, match="changed since it was written"):
            read(net)
    assert [f.rule_id for f in lint_file(net).found] == ["not-this-program"]
    with h5py.File(net, "r+") as file:
        del file["spikeport/sha256"]
    # As files from before there was such a hash.
    assert read_net(net).hash == before
    net_file.write_text_hash(net)
    assert read_net(net).hash == before


def test_a_flatten_that_is_missing(net):
    with h5py.File(net, "a") as file:
        del file["layer/2"]
        file.move("layer/3", "layer/2")
        file.move("layer/4", "layer/3")
    with pytest.raises(FormatError, match="flatten is missing or misplaced"):
        read_net(net)


@pytest.mark.parametrize("seed", range(12))
def test_any_changed_number_is_noticed(net, seed):
    """Change one element of one array: the content no longer is what its hash says."""
    rng = np.random.default_rng(seed)
    names = ["weight", "bias", "neuron/threshold", "neuron/initial_potential"]
    layer, name = rng.choice(["1", "3"]), rng.choice(names)
    with h5py.File(net, "a") as file:
        dataset = file[f"layer/{layer}/{name}"]
        values = dataset[()]
        index = tuple(rng.integers(0, values.shape))
        values[index] = values[index] - 1 if values[index] > 1 else values[index] + 1
        dataset[...] = values
    with pytest.raises(FormatError, match="changed after it was written"):
        read_net(net)
