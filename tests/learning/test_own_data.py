"""Data of the user's: a Dataset or DataLoader from FILE.py:FACTORY, or given as an object."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import spikeport
from tests.command_line import here
from toolchain.errors import CheckpointError, DataError
from toolchain.learning.data import open_split, parse_source
from toolchain.learning.data.torch_data import labelled

MINE = """
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from helper import digits

class Images(Dataset):
    classes = [f"digit {i}" for i in range(12)]

    def __init__(self, split):
        self.x, self.y = digits(split)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return torch.from_numpy(self.x[index]), int(self.y[index])

def images(split="train"):
    return Images(split)

def loader(split):
    return DataLoader(Images(split), batch_size=64, shuffle=split == "train")

def whole():
    x, y = digits("test")
    return TensorDataset(torch.from_numpy(x[:50]), torch.from_numpy(y[:50]))

def unlabelled():
    return TensorDataset(torch.rand(8, 1, 8, 8))

def number():
    return 3

def fails():
    class Broken(Images):
        def __getitem__(self, index):
            raise KeyError("no image")
    return Broken("test")
"""
HELPER = """
from toolchain.learning.data import open_split

def digits(split):
    data = open_split(f"digits@{split}[:300]")
    return data.real(), data.labels
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's file, with a helper beside it."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_grammar():
    source = parse_source("../a b/mine.py:loader@train[10:20]")
    assert (source.name, str(source.path)) == ("../a b/mine.py:loader", "../a b/mine.py")
    assert (source.factory, source.base) == ("loader", "../a b/mine.py:loader")
    assert (source.split, source.start, source.stop) == ("train", 10, 20)


@pytest.mark.parametrize("factory", ["images", "loader"])
def test_a_factory_is_the_data_it_returns(folder, factory):
    """Also one that shuffles: a run that continues needs the same order each time."""
    for split in ("train", "test"):
        found, expected = open_split(f"mine.py:{factory}@{split}"), open_split(f"digits@{split}")
        assert np.array_equal(found.samples, expected.real()[:300])
        assert np.array_equal(found.labels, expected.labels[:300])
        assert found.sha256 == open_split(f"mine.py:{factory}", split).sha256
        assert found.class_names == tuple(f"digit {i}" for i in range(12))
    assert len(open_split(f"mine.py:{factory}@test[5:15]")) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine.py:whole@test", "the factory has no parameter `split`"),
        ("mine.py:unlabelled", "the samples have no labels"),
        ("mine.py:number", "these are no samples"),
        ("mine.py:nothing", "the file defines no such factory"),
        ("mine.py:fails", "(?s)the data cannot be read.*KeyError: 'no image'.*mine.py:"),
        ("nothing.py:loader", "no such file"),
        ("mine.py:loader@validation", "no such split"),
        ("mine.py:loader@test[900:]", "the slice is empty"),
        ("mine.py:", "not a data source"),
        ("mine.py", "not a data source"),
    ],
)
def test_wrong_factories(folder, text, message):
    with pytest.raises(spikeport.SpikeportError, match=message):
        open_split(text)


def test_all_commands_take_it(folder):
    train = ("train", "--data", "mine.py:loader", "--model", "mlp", "--activation", "qcfs")
    how = ("--epochs", "1", "--width", "0.25", "--initial-threshold", "2", "--out", "run")
    assert here(*train, *how).exit_code == 0
    document = json.loads((folder / "run" / "checkpoint.json").read_text())
    assert document["data_sha256"] == open_split("mine.py:images@train").sha256
    assert here(*train, *how).exit_code == 0  # a finished run, on the same data
    end = here("evaluate", "run", "--data", "mine.py:images@test", "--steps", "2")
    assert end.exit_code == 0, end.output
    calibrate = ("--calibrate", "mine.py:loader", "--calibration-samples", "40")
    end = here("convert", "run", "-o", "net.net", *calibrate)
    assert end.exit_code == 0, end.output
    end = here("run", "net.net", "--data", "mine.py:whole", "-o", "rec.npz")
    assert end.exit_code == 0, end.output
    end = here("sweep", "run", "--data", "mine.py:whole", "--steps", "2", "-o", "s.sqlite")
    assert end.exit_code == 0, end.output
    end = here("train", "--data", "mine.py:loader@test", "--out", "other")
    assert "the test split is not for training" in str(end.error)
    assert not (folder / "other").exists()


def test_a_loader_as_an_object(tmp_path):
    """It trains as the same data from a source do, and a run continues only on them."""
    data = open_split("digits@train[:300]")
    x, y = torch.from_numpy(data.real()), torch.from_numpy(data.labels)
    config = spikeport.TrainConfig(
        data="my loader", model="mlp", width=0.25, epochs=1, initial_threshold=2.0
    )
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    kept = spikeport.train(config, tmp_path / "a", data=loader)
    np.savez(tmp_path / "d.npz", train_samples=data.real(), train_labels=data.labels)
    named = spikeport.TrainConfig(**{**vars(config), "data": f"npz:{tmp_path}/d.npz"})
    same = spikeport.train(named, tmp_path / "b")
    assert kept.tensors_sha256 == same.tensors_sha256
    again = spikeport.train(config, tmp_path / "a", data=TensorDataset(x, y))
    assert again.history == kept.history
    with pytest.raises(CheckpointError, match="other data"):
        spikeport.train(config, tmp_path / "a", data=TensorDataset(x[:200], y[:200]))
    with pytest.raises(DataError, match="not a data source"):
        spikeport.train(config, tmp_path / "a")
    with pytest.raises(DataError, match="no labels"):
        spikeport.train(config, tmp_path / "c", data=TensorDataset(x))
    assert not (tmp_path / "c").exists()
    found = spikeport.evaluate(tmp_path / "a", loader, steps=(2,))
    assert found.num_samples == 300
    assert found.rows == spikeport.evaluate(tmp_path / "b", named.data + "@train", steps=(2,)).rows


def test_names_of_classes_that_the_dataset_gives():
    data = TensorDataset(torch.rand(4, 2), torch.tensor([0, 1, 0, 1]))
    assert labelled(data, "x").class_names == ("0", "1")
    vars(data)["classes"] = ["cat", "dog", "bird"]
    for given in (data, DataLoader(data, batch_size=3)):
        assert labelled(given, "x").class_names == ("cat", "dog", "bird")
    vars(data)["classes"] = ["cat"]  # fewer than the labels have: not theirs
    assert labelled(data, "x").class_names == ("0", "1")
