"""Training that starts from a network of the user's: `model="FILE.py:FACTORY"`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import spikeport
from tests.command_line import here
from toolchain.errors import CheckpointError, DataError, SpikeportError
from toolchain.learning.data import open_split
from toolchain.learning.training.checkpoint import load_checkpoint

NET = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.hidden, self.last = nn.Linear(512, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x))
        x = F.dropout(F.relu(self.hidden(x.view(x.size(0), -1))), 0.1, training=self.training)
        return self.last(x)


def make():
    return Net()


def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))


def quantized():
    import spikeport

    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), spikeport.QCFS(2, 1.0), nn.Linear(32, 10)
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with net.py and w.pt, the weights of a ReLU network that knows the digits."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(NET)
    names = {}
    exec(NET, names)
    data = open_split("digits", "train")
    x, y = torch.from_numpy(data.real()).float(), torch.from_numpy(data.labels)
    torch.manual_seed(0)
    model = names["make"]()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    torch.save(model.state_dict(), folder / "w.pt")
    with np.load(save_npz(folder, data)) as arrays:
        assert len(arrays["train_labels"])
    return folder, model.eval()


def save_npz(folder, data):
    test = open_split("digits", "test")
    np.savez(
        folder / "digits.npz",
        train_samples=data.real().astype(np.float32),
        train_labels=data.labels,
        test_samples=test.real().astype(np.float32),
        test_labels=test.labels,
    )
    return folder / "digits.npz"


CONFIG = spikeport.TrainConfig(
    data="digits",
    model="net.py:make",
    weights="w.pt",
    levels=2,
    epochs=3,
    learning_rate=0.01,
    device="cpu",
    precision="float32",
)


def accuracy(model, data="digits"):
    test = open_split(data, "test")
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(test.real()).float()).argmax(1).numpy()
    return float((found == test.labels).mean())


@pytest.mark.parametrize("activation", ["nq", "qcfs"])
@pytest.mark.parametrize("data", ["digits", "npz:digits.npz"])
def test_fine_tuning_improves_the_quantized_network(activation, data, place, tmp_path, monkeypatch):
    folder, relu = place
    monkeypatch.chdir(folder)
    start = spikeport.quantize(relu, activation, 2, calibrate="digits@train")
    run = tmp_path / "run"
    kept = spikeport.train(replace(CONFIG, data=data, activation=activation), run)
    assert accuracy(kept.model) > accuracy(start) + 0.01
    loaded = load_checkpoint(run)
    assert accuracy(loaded.model) == accuracy(kept.model)
    conversion = spikeport.convert(run, steps=16)
    recording = spikeport.run(conversion, f"{data}@test")
    assert recording.accuracy() > accuracy(start) + 0.01
    assert conversion.program.provenance["training"]["model"] == "net.py:make"
    rows = spikeport.evaluate(run, f"{data}@test", steps=[4]).rows
    found = [row.accuracy["accuracy"] for row in rows]
    assert any(value == pytest.approx(accuracy(kept.model)) for value in found)


def test_a_stopped_run_goes_on_to_the_same_bits(place, tmp_path, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)

    def stop(epoch, done, metrics):
        if epoch == 1 and done > 30:
            raise KeyboardInterrupt

    whole = spikeport.train(CONFIG, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        spikeport.train(CONFIG, tmp_path / "stopped", stop)
    stopped = spikeport.train(CONFIG, tmp_path / "stopped")
    assert stopped.tensors_sha256 == whole.tensors_sha256
    assert stopped.history == whole.history


def test_a_file_that_changed_or_went_is_told(place, tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "w.pt").write_bytes((place[0] / "w.pt").read_bytes())
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    config = replace(CONFIG, epochs=1, train_limit=200)
    spikeport.train(config, run)
    (tmp_path / "net.py").write_text(NET + "\n# changed\n")
    for act in (
        lambda: spikeport.convert(run),
        lambda: spikeport.evaluate(run, "digits@test"),
        lambda: spikeport.train(config, run),
    ):
        with pytest.raises(CheckpointError, match=r"has changed|model_sha256"):
            act()
    (tmp_path / "net.py").unlink()
    with pytest.raises(CheckpointError, match="not there"):
        spikeport.convert(run)
    (tmp_path / "net.py").write_text(NET)
    assert spikeport.convert(run).program.spiking


def test_a_quantized_network_is_trained_as_it_is(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place[0])
    config = replace(CONFIG, model="net.py:quantized", weights=None, activation="qcfs", epochs=1)
    kept = spikeport.train(config, tmp_path / "run")
    kinds = [type(m).__name__ for m in kept.model.children()]
    assert kinds == ["Flatten", "Linear", "QCFS", "Linear"]
    with pytest.raises(DataError, match=r'activation="qcfs", levels=2'):
        spikeport.train(replace(config, activation="nq"), tmp_path / "other")


WRONG = {
    "classes": ({"model": "net.py:small", "weights": None}, "fewer outputs"),
    "factory": ({"model": "net.py:nothing"}, "no such factory"),
    "weights": ({"weights": "nothing.pt"}, "no such file"),
    "weights of another": ({"model": "net.py:small"}, "do not fit"),
    "shape": ({"data": "npz:flat.npz"}, "forward fails"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_use_is_told_before_anything_is_written(case, place, tmp_path, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    np.savez(folder / "flat.npz", train_samples=np.ones((20, 3)), train_labels=np.arange(20) % 10)
    changed, told = WRONG[case]
    with pytest.raises(SpikeportError, match=told):
        spikeport.train(replace(CONFIG, **changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_that_go_with_no_such_network():
    with pytest.raises(DataError, match="weights go with"):
        replace(CONFIG, model="lenet")
    with pytest.raises(DataError, match="width and pooling"):
        replace(CONFIG, width=0.5)


def test_the_command(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place[0])
    run = tmp_path / "run"
    options = "--data digits --model net.py:make --weights w.pt --epochs 1 --limit 200"
    result = here("train", *options.split(), "--out", run, "--json")
    assert result.exit_code == 0, result.output
    config = json.loads((run / "checkpoint.json").read_text())["config"]
    assert (config["model"], config["weights"]) == ("net.py:make", "w.pt")
    again = here("train", "--config", run / "config.toml", "--out", run, "--json")
    assert again.exit_code == 0, again.output


SHORT = spikeport.TrainConfig(
    data="digits",
    model="mlp",
    activation="qcfs",
    levels=4,
    epochs=6,
    batch_size=32,
    learning_rate=0.1,
    initial_threshold=2.0,
    device="cpu",
    precision="float32",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folders of a finished run by activation."""
    folders = {}
    for activation in ("relu", "qcfs"):
        folders[activation] = tmp_path_factory.mktemp("runs") / activation
        spikeport.train(replace(SHORT, activation=activation), folders[activation])
    return folders


@pytest.mark.parametrize("kind", ["relu", "qcfs"])
def test_nq_starts_from_another_run(kind, finished, tmp_path, caplog):
    before = load_checkpoint(finished[kind]).model.state_dict()
    slow = replace(SHORT, activation="nq", epochs=1, learning_rate=1e-9, init=str(finished[kind]))
    with caplog.at_level("INFO"):
        kept = spikeport.train(slow, tmp_path / "run")
    after = kept.model.state_dict()
    assert before.keys() <= after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5)
    anew = {name for name in after if name not in before}
    assert anew == {n for n in after if n.endswith("sigma" if kind == "qcfs" else SET_ANEW)}
    assert "started anew: " + ", ".join(n for n in after if n in anew) in caplog.text
    if kind == "relu":
        relu = load_checkpoint(finished[kind]).model
        outputs = []
        for module in relu.modules():
            if isinstance(module, torch.nn.ReLU):
                module.register_forward_hook(lambda m, i, o: outputs.append(o.numpy()))
        with torch.no_grad():
            relu(torch.from_numpy(open_split("digits", "train").real()).float())
        expected = [np.percentile(o, 99.9) for o in outputs]
        found = [v.item() for n, v in after.items() if n.endswith("threshold")]
        assert found == pytest.approx(expected, rel=0.1)  # of 256 samples, not of all
    assert accuracy(kept.model) > accuracy(load_checkpoint(finished[kind]).model) - 0.1


SET_ANEW = ("sigma", "threshold")


def test_a_finished_run_is_trained_on(finished, tmp_path):
    folder = finished["qcfs"]
    longer = replace(SHORT, epochs=12)
    with pytest.raises(CheckpointError, match="init="):
        spikeport.train(longer, folder)
    more = replace(SHORT, learning_rate=0.01, init=str(folder))
    kept = spikeport.train(more, tmp_path / "more")
    assert kept.history[0]["loss"] < load_checkpoint(folder).history[0]["loss"] / 2
    again = spikeport.train(more, tmp_path / "more")
    assert again.tensors_sha256 == kept.tensors_sha256


def test_weights_of_another_number_of_classes(finished, tmp_path, monkeypatch, caplog):
    """All but the last layer are taken."""
    data = open_split("digits", "train")
    path = tmp_path / "few.npz"
    few = data.labels < 4
    np.savez(
        path,
        train_samples=data.real()[few].astype(np.float32),
        train_labels=data.labels[few],
    )
    config = replace(SHORT, data=f"npz:{path}", epochs=1, init=str(finished["qcfs"]))
    with caplog.at_level("INFO"):
        spikeport.train(config, tmp_path / "run")
    assert "started anew: 5.weight, 5.bias" in caplog.text
    assert "not taken: 5.bias, 5.weight" in caplog.text
    with pytest.raises(CheckpointError, match="no tensor fits"):
        spikeport.train(replace(config, model="lenet", data="digits"), tmp_path / "other")
