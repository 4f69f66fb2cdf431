"""`evaluate` on sequences: rows, accuracy over time, latency, events and synops, by plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from benchmarks.report.page import write_page
from tests.command_line import here
from tests.event_files import dat_file, moving_square
from tests.oracles import numpy_loop
from toolchain.errors import DataError, ProgramError
from toolchain.learning.activations import QCFS, ActivationMode, activation_mode
from toolchain.learning.data import open_split
from toolchain.learning.evaluation.over_time import largest_alone, median_step
from toolchain.learning.evaluation.results import Evaluation
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.train_classifier import train
from toolchain.program.synops import fan_out

SMALL = {
    "data": "moving-shapes",
    "model": "mlp",
    "width": 0.1,
    "epochs": 4,
    "train_limit": 400,
    "initial_threshold": 2.0,
    "batch_size": 20,
    "levels": 8,
    "std": (0.05,),
}
DATA = "moving-shapes@test[:30]"
FACTORY = """
import torch, spikeport
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(512, 20), spikeport.QCFS(4), nn.Linear(20, 4))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    for activation in ("nq", "cqrelu"):
        train(TrainConfig(**SMALL, activation=activation), folder / activation)
    return folder


def by_hand(program, inputs, labels):
    """Right samples after each step, first right ones, those for good, and operations."""
    spikes, membrane = numpy_loop.run(program, inputs)
    outputs = membrane[program.readout.name]
    correct = [int((out.argmax(1) == labels).sum()) for out in outputs]
    first, good = [0] * len(outputs), [0] * len(outputs)
    for sample, label in enumerate(labels):
        right = [
            all(out[sample, label] > v for k, v in enumerate(out[sample]) if k != label)
            for out in outputs
        ]
        if any(right):
            first[right.index(True)] += 1
        if right[-1]:
            good[max((t + 1 for t, r in enumerate(right) if not r), default=0)] += 1
    events = {"input": np.count_nonzero(inputs)}
    events |= {name: np.count_nonzero(sent) for name, sent in spikes.items()}
    events.pop(program.readout.name, None)
    return correct, first, good, events


def test_an_if_network_is_the_plain_loop(runs):
    data = open_split(DATA)
    found = spikeport.evaluate(runs / "nq", DATA, weight_bits=(8, 4))
    made = spikeport.convert(runs / "nq")
    inputs = data.samples.astype(np.int64)
    correct, first, good, events = by_hand(made.program, inputs, data.labels)
    eight, four = found.sequences
    assert (eight["arithmetic"], four["arithmetic"]) == ("8-bit integer", "4-bit integer")
    assert (eight["neuron"], eight["wake_steps"], eight["samples"]) == ("IF", 8, 30)
    assert eight["correct"] == correct
    assert eight["first_right"] == first
    assert eight["right_for_good"] == good
    assert sum(first) > sum(good) > 0
    assert eight["camera_events"] == pytest.approx(data.samples.sum() / 30)
    layers = {layer["name"]: layer for layer in eight["operations"]["layers"]}
    assert {name: layer["events"] for name, layer in layers.items()} == {
        name: pytest.approx(count / 30) for name, count in events.items()
    }
    hidden = made.program.populations[0].shape[0]
    assert layers["input"]["synops"] == pytest.approx(hidden * events["input"] / 30)
    rows = [row for row in found.rows if row.arithmetic == "8-bit integer"]
    assert [row.steps for row in rows] == [1, 2, 4, 8]
    assert [row.accuracy["correct"] for row in rows] == [correct[t - 1] for t in (1, 2, 4, 8)]
    assert found.gaps["steps"] == 8
    assert found.notes == ()


def test_the_float_networks_get_means_and_frames(runs):
    data, model = open_split(DATA), load_checkpoint(runs / "nq").model
    found = spikeport.evaluate(runs / "nq", DATA, steps=(3, 8))
    x = torch.from_numpy(data.real()) / 0.05
    with torch.no_grad():
        mean = model(x.mean(1)).argmax(1).numpy()
        with activation_mode(model, ActivationMode.SPIKING, 8):
            steps = model(x.transpose(0, 1).flatten(0, 1)).reshape(8, 30, -1).cumsum(0)
    assert found.find(network="ANN").accuracy["correct"] == (mean == data.labels).sum()
    for t in (3, 8):
        right = (steps[t - 1].argmax(1).numpy() == data.labels).sum()
        assert found.find(arithmetic="float", steps=t).accuracy["correct"] == right


def test_a_cif_network_answers_after_its_sleep(runs):
    data = open_split(DATA)
    found = spikeport.evaluate(runs / "cqrelu", DATA)
    (over_time,) = found.sequences
    assert found.counts["variants"]["CIF + sleep"]["unequal_images"] == 0
    settle = found.counts["settle_steps"]
    made = spikeport.convert(runs / "cqrelu", neuron="cif", sleep_steps=settle)
    inputs = data.samples.astype(np.int64)
    correct, first, good, _ = by_hand(made.program, inputs, data.labels)
    assert (over_time["neuron"], over_time["wake_steps"]) == ("CIF + sleep", 8)
    assert len(correct) == 8 + settle
    assert (over_time["correct"], over_time["first_right"]) == (correct, first)
    assert over_time["right_for_good"] == good
    ann = found.find(network="ANN", arithmetic="8-bit integer").accuracy["correct"]
    assert correct[-1] == ann


def test_a_network_that_has_not_answered_is_not_right():
    outputs = np.array([[[0, 0], [0, 0]], [[2, 1], [2, 1]], [[3, 3], [1, 4]]])
    alone = largest_alone(outputs, np.array([0, 1]))
    assert alone.tolist() == [[False, False], [True, False], [False, True]]
    assert median_step([0, 1, 1], 3) == 3
    assert median_step([0, 2, 0], 3) == 2
    assert median_step([1, 0, 0], 3) is None
    assert median_step([2, 0], 4) == 1


def test_networks_trained_elsewhere(runs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(512, 20), QCFS(4, 0.5), nn.Linear(20, 4)).eval()
    data = open_split(DATA)
    with torch.no_grad():
        expected = model(torch.from_numpy(data.real()).mean(1)).argmax(1).numpy()

    class Frames(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            return data.real()[index], int(data.labels[index])

    found = spikeport.evaluate(model, Frames(), input_range=(0, 255), calibrate=data)
    assert found.find(network="ANN").accuracy["correct"] == (expected == data.labels).sum()
    (over_time,) = found.sequences
    made = spikeport.convert(model, input_per_step=True, input_range=(0, 255), calibrate=data)
    correct, first, _, _ = by_hand(made.program, data.samples.astype(np.int64), data.labels)
    assert (over_time["correct"], over_time["first_right"]) == (correct, first)
    assert over_time["camera_events"] is None


def test_files_and_the_command(runs, tmp_path):
    made = spikeport.convert(runs / "nq")
    spikeport.save(made, tmp_path / "a.net")
    whole = spikeport.evaluate(tmp_path / "a.net", DATA)
    of_run = spikeport.evaluate(runs / "nq", DATA, lava_samples=2)
    assert whole.sequences == of_run.sequences
    assert (of_run.lava["steps"], of_run.lava["mismatches"]) == (8, 0)
    told = here("evaluate", runs / "nq", "--data", DATA, "-o", tmp_path / "e.json")
    assert told.exit_code == 0
    kept = Evaluation.read(tmp_path / "e.json")
    assert kept.sequences == of_run.sequences
    assert "right for the first time after" in told.stdout
    never = 30 - sum(kept.sequences[0]["first_right"])
    assert f"never {never} of 30" in " ".join(told.stdout.split())


def test_the_results_page_says_when_networks_are_right(runs, tmp_path):
    """Medians by sorting: samples that are never right come last."""
    found = {run: spikeport.evaluate(runs / run, DATA) for run in ("nq", "cqrelu")}
    write_page(found, tmp_path / "RESULTS.md", tmp_path / "figures")
    page = (tmp_path / "RESULTS.md").read_text()
    for name, evaluation in found.items():
        (run,) = evaluation.sequences
        steps = [t for t, n in enumerate(run["first_right"], 1) for _ in range(n)]
        never = 30 - len(steps)
        median = sorted([*steps, *[99] * never])[14]
        synops = f"{run['operations']['synops']:,.0f}"
        start = f"| {name} | {run['neuron']}"
        (line,) = (one for one in page.splitlines() if one.startswith(start))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (cells[3], cells[5], cells[-1]) == (str(median), f"{never / 0.3:.1f}", synops)


def test_workers_find_the_same(runs):
    alone, shared = (spikeport.evaluate(runs / "nq", DATA, jobs=jobs) for jobs in (1, 2))
    assert alone.sequences == shared.sequences


def test_a_sweep_stops_early(runs, tmp_path):
    """A point of t steps is the network that has seen the first t tensors: the plain loop."""
    data = open_split(DATA)
    inputs = data.samples.astype(np.int64)
    swept = spikeport.sweep([runs / "nq"], DATA, tmp_path / "s.sqlite", weight_bits=(8,))
    assert [result.point.steps for result in swept.results] == [1, 2, 4, 8]
    for result in swept.results:
        steps = result.point.steps
        made = spikeport.convert(runs / "nq", steps=steps)
        correct, _, _, events = by_hand(made.program, inputs[:, :steps], data.labels)
        assert (result.error, result.correct) == ("", correct[-1])
        assert result.latency == steps
        fans = {name: fan.flat[0] for name, fan in fan_out(made.program).items()}
        synops = sum(count * fans[name] for name, count in events.items())
        assert result.synops == pytest.approx(synops / 30)


def test_a_sweep_of_cif_and_of_networks_trained_elsewhere(runs, tmp_path):
    swept = spikeport.sweep(
        [runs / "cqrelu"], DATA, tmp_path / "a.sqlite", steps=(4, 8), neurons=("cif",)
    )
    assert [bool(result.error) for result in swept.results] == [True, True, False, False]
    assert "as many wake steps as trained levels" in swept.results[0].error
    file = tmp_path / "nets.py"
    file.write_text(FACTORY)
    swept = spikeport.sweep(
        [f"{file}:net"],
        DATA,
        tmp_path / "b.sqlite",
        input_range=(0, 255),
        calibrate="moving-shapes@train[:32]",
        weight_bits=(8,),
        steps=(3, 8),
    )
    assert [result.error for result in swept.results] == ["", ""]
    whole = spikeport.evaluate(
        f"{file}:net", DATA, input_range=(0, 255), calibrate="moving-shapes@train[:32]"
    )
    assert swept.results[1].correct == whole.sequences[0]["correct"][-1]


def test_a_sweep_finds_recordings_from_any_folder(tmp_path, monkeypatch):
    """Workers may run in other folders than the one in which a sweep was begun."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(FACTORY)
    for direction in range(4):
        folder = tmp_path / "d" / "test" / str(direction)
        folder.mkdir(parents=True)
        (folder / "a.dat").write_bytes(dat_file(moving_square(direction, size=(16, 16)), (16, 16)))
    (tmp_path / "elsewhere").mkdir()
    swept = spikeport.sweep(
        ["nets.py:net"],
        "events:d,frames=4",
        tmp_path / "s.sqlite",
        input_range=(0, 255),
        steps=(4,),
        weight_bits=(8,),
        progress=lambda _done, _total: monkeypatch.chdir(tmp_path / "elsewhere"),
    )
    assert [(result.error, result.total) for result in swept.results] == [("", 4)]


def test_other_lengths(runs, tmp_path):
    fewer = r"(?s)sequences have fewer steps.*up to 8"
    with pytest.raises(DataError, match=fewer):
        spikeport.evaluate(runs / "nq", DATA, steps=(9,))
    with pytest.raises(DataError, match=fewer):
        spikeport.sweep([runs / "nq"], DATA, tmp_path / "s.sqlite", steps=(9,))
    with pytest.raises(DataError, match="one tensor for each step"):
        spikeport.evaluate(runs / "nq", DATA, layer_steps=4)
    with pytest.raises(DataError, match="samples of another shape"):
        spikeport.evaluate(runs / "nq", "digits@test[:9]")
    data = open_split("moving-shapes@train[:200]")
    arrays = {"samples": data.real() / 20, "labels": data.labels}
    whole, half = tmp_path / "whole.npz", tmp_path / "half.npz"
    for file, steps in ((whole, 8), (half, 4)):
        splits = {"train": slice(0, 200), "test": slice(0, 20)}
        of = {f"{s}_{k}": a[part] for s, part in splits.items() for k, a in arrays.items()}
        of |= {name: a[:, :steps] for name, a in of.items() if "samples" in name}
        np.savez(file, **of)
    settings = {**SMALL, "data": f"npz:{whole}", "std": (0.003,)}
    for activation in ("qcfs", "cqrelu"):
        train(TrainConfig(**settings, activation=activation), tmp_path / activation)
    found = spikeport.evaluate(tmp_path / "qcfs", f"npz:{half}")
    assert [row.steps for row in found.rows if row.arithmetic == "8-bit integer"] == [1, 2, 4]
    assert found.notes == ("the network was trained on sequences of 8 tensors, and these have 4",)
    assert found.sequences[0]["wake_steps"] == 4
    with pytest.raises(ProgramError, match=r"(?s)one tensor for each wake step.*4 tensors"):
        spikeport.evaluate(tmp_path / "cqrelu", f"npz:{half}")
