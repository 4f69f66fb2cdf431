"""Evaluation: counts and gaps against hand computation, saved and drawn."""

import base64
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.report.__main__ import main as report
from benchmarks.report.page import find_evaluations, write_page
from benchmarks.report.speed import SUFFIX, Measurement, Table, find_measurements
from tests.command_line import fails
from tests.networks import random_inputs, random_program
from tests.oracles import closed_form, numpy_loop
from toolchain.accuracy import Accuracy, Flips
from toolchain.errors import ConversionError, DataError
from toolchain.learning.activations import NQ, QCFS, ActivationMode, activation_mode
from toolchain.learning.data import open_split
from toolchain.learning.evaluation.float_network import GAP_EDGES, layer_gaps, spiking_logits
from toolchain.learning.evaluation.int_network import CountError, compare_counts, readouts
from toolchain.learning.evaluation.results import AccuracyRow, Evaluation, Row, made_by
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.inference import logits, normalised
from toolchain.program.int_program import Schedule
from toolchain.simulator.quantized_network import quantized_counts


def test_accuracy_and_its_interval():
    outputs = np.array([[1, 3], [2, 2], [0, 5], [4, 1]])
    accuracy = Accuracy.of(outputs, np.array([1, 0, 0, 0]))
    assert (accuracy.correct, accuracy.total) == (3, 4)
    # Wilson's interval for 3 of 4, from its formula with z = 1.96: 0.3006 .. 0.9544
    assert accuracy.interval == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_flips_are_counted_both_ways():
    first = np.array([1] * 9 + [0] * 1 + [1] * 6 + [0] * 4, bool)
    second = np.array([0] * 9 + [1] * 1 + [1] * 6 + [0] * 4, bool)
    flips = Flips.of(first, second)
    assert (flips.won, flips.lost, flips.difference) == (9, 1, 0.4)
    # Ten tosses of a coin: 2 * (1 + 10) of 1024 are as uneven as 9 to 1.
    assert flips.p_value == pytest.approx(22 / 1024)
    assert str(flips) == "+40.00 (+9 -1, p = 0.021)"
    assert Flips.of(first, first).p_value == 1.0


def one_neuron(activation):
    model = nn.Sequential(nn.Linear(1, 1), activation)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(0.0)
    return model.eval()


def test_layer_gap_by_hand():
    """lam 2, L 4, T 2, v0 1: what one neuron does for four inputs."""
    activation = NQ(levels=4, threshold=2.0)
    activation.sigma.fill_(0.5)
    model = one_neuron(activation)
    x = torch.tensor([[0.5], [1.0], [1.5], [-1.0]])
    # ANN, in thresholds: 0.25, 0.5, 0.75, 0.
    # SNN: 0.5: v 1.5, 2.0 -> 1 spike, rate 0.5. 1.0: v 2.0 -> fires, 1.0 -> no: 0.5.
    # 1.5: 2.5 fires -> 0.5, 2.0 fires: 1. -1: 0.
    gap = layer_gaps(model, x, 2)["1"]
    assert np.concatenate(gap.image_means).tolist() == [-0.25, 0.0, -0.25, 0.0]
    expected = np.zeros((5, 3), int)
    for level, count in ((1, 1), (2, 1), (3, 2), (0, 0)):
        expected[level, count] += 1
    assert np.array_equal(gap.joint, expected)
    described = gap.describe()
    assert described["mean"] == -0.125
    assert described["std"] == pytest.approx(0.125)
    assert described["sigma"] == 0.25
    assert (described["too_many"], described["too_few"]) == (0.5, 0.0)
    assert described["silent_images"] == 1
    # |gap| / ann: 1, 0, 1/3
    assert described["relative_error"]["median"] == pytest.approx(1 / 3)
    assert described["relative_error"]["mean"] == pytest.approx(4 / 9)
    assert sum(described["histogram"]) == 4
    assert described["histogram"][int(np.searchsorted(GAP_EDGES, -0.25, "right")) - 1] == 2


def test_fewer_steps_are_a_prefix_of_more():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), QCFS(4, 1.0), nn.Linear(8, 3)).eval()
    x = torch.randn(7, 5)
    found = spiking_logits(model, x, (1, 3, 8))
    for steps, out in found.items():
        with activation_mode(model, ActivationMode.SPIKING, steps), torch.no_grad():
            alone = model(x.repeat(steps, 1)).reshape(steps, 7, 3).sum(0)
        assert out == pytest.approx(alone.numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["if", "cif"])
def test_readouts_are_those_of_the_plain_loop(kind):
    program = random_program(3, kind=kind, schedule=Schedule(4))
    inputs = random_inputs(program, 3)
    _, membrane = numpy_loop.run(program, inputs)
    for steps, out in readouts(program, inputs, (1, 2, 4)).items():
        assert np.array_equal(out, membrane["readout"][steps - 1])


@pytest.mark.parametrize("seed", range(6))
def test_the_quantized_network_is_the_closed_form(seed):
    program = random_program(seed, kind="cif", schedule=Schedule(3, 20), signed_input=seed % 2 == 0)
    inputs = random_inputs(program, 4, seed)
    counts, outputs = quantized_counts(program, inputs)
    for index, sample in enumerate(inputs):
        expected, readout = closed_form.counts_and_logits(program, sample)
        assert all(np.array_equal(counts[n][index], expected[n]) for n in counts)
        assert np.array_equal(outputs["readout"][index], readout)


def test_count_error_by_hand():
    error = CountError()
    error.add(np.array([[1, 2, 0], [0, 0, 1]]), np.array([[1, 1, 2], [0, 0, 0]]))
    described = error.describe()
    assert described["neurons"] == 6
    assert described["wrong"] == 3
    assert described["too_many"] == pytest.approx(2 / 6)
    assert described["too_few"] == pytest.approx(1 / 6)
    assert described["silent_images"] == 1
    assert described["relative_error"]["mean"] == pytest.approx(3 / 4)


def test_sleep_ends_every_difference():
    program = random_program(1, kind="cif", hidden=(9, 8, 7), schedule=Schedule(4, 60))
    inputs = random_inputs(program, 8)
    compared = compare_counts(program, inputs)
    assert compared.settled.unequal_images == 0
    assert compared.awake.unequal_images > 0
    assert compared.settle_steps > 0
    spikes, _ = numpy_loop.run(program, inputs[:2])
    active = max(
        int(np.flatnonzero(s.reshape(len(s), -1).any(axis=1)).max(initial=-1)) + 1
        for s in spikes.values()
    )
    assert active - 4 <= compared.settle_steps
    short = random_program(1, kind="cif", hidden=(9, 8, 7), schedule=Schedule(4, 1))
    with pytest.raises(ConversionError, match="does not settle"):
        compare_counts(short, inputs)


def test_evaluations_survive_being_saved(tmp_path, capsys):
    outputs, labels = np.array([[1, 3], [2, 2], [0, 5], [4, 1]]), np.array([1, 0, 0, 0])
    row = AccuracyRow.of(Row("SNN", "float", "IF", 4), outputs, labels)
    run = {
        "config": TrainConfig(data="digits").as_dict(),
        "epoch": 1,
        "checkpoint_sha256": "0" * 64,
        "history": [{"epoch": 1, "loss": 0.5}],
    }
    evaluation = Evaluation(run, "digits@test", 4, made_by("x", 1.0, numpy="2"), (row,))
    path = tmp_path / "evaluation.json"
    evaluation.write(path)
    assert Evaluation.read(path) == evaluation
    assert evaluation.find(steps=4) == row
    assert evaluation.find(steps=5) is None
    values = json.loads(path.read_text())
    for change, message in (
        ({"evaluation_version": 99}, "unknown evaluation version"),
        ({"rows": [{"network": "SNN"}]}, "damaged evaluation"),
        ({"extra": 1}, "damaged evaluation"),
        ({"rows": [{**values["rows"][0], "right": "8A=="}]}, "damaged evaluation"),
        ({"rows": [{**values["rows"][0], "right": "1ABC"}]}, "damaged evaluation"),
        ({"rows": [{**values["rows"][0], "right": "?"}]}, "damaged evaluation"),
    ):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(DataError, match=message):
            Evaluation.read(path)
    del values["rows"][0]["right"]  # as written before flips were counted
    path.write_text(json.dumps(values))
    assert Evaluation.read(path).rows[0].flips(row) is None
    path.write_text("{")
    with pytest.raises(DataError, match="damaged evaluation"):
        Evaluation.read(path)
    with pytest.raises(DataError, match="no such evaluation"):
        Evaluation.read(tmp_path / "no.json")
    with pytest.raises(SystemExit):
        report([str(tmp_path / "empty")])
    assert "no evaluations below" in capsys.readouterr().err


def test_rows_are_the_networks_own_accuracies(small_runs):
    from toolchain.learning.training.checkpoint import load_checkpoint

    evaluation = Evaluation.read(small_runs / "nq" / "evaluation.json")
    checkpoint = load_checkpoint(small_runs / "nq")
    data = open_split("digits@test[:40]")
    x = normalised(data, checkpoint.config.mean, checkpoint.config.std)
    model = checkpoint.model
    quantized = logits(model, x, ActivationMode.QUANTIZED).numpy()
    for row, outputs in (
        (evaluation.find(network="ANN"), quantized),
        (evaluation.find(arithmetic="float", steps=4), spiking_logits(model, x, [4])[4]),
    ):
        right = outputs.argmax(1) == data.labels
        assert row.accuracy["correct"] == int(right.sum())
        assert row.accuracy["total"] == 40
        bits = f"{int.from_bytes(base64.b64decode(row.right), 'big'):040b}"
        assert [bit == "1" for bit in bits] == right.tolist()
    kinds = {(r.arithmetic, r.steps) for r in evaluation.rows if r.neuron == "IF"}
    assert kinds == {(a, t) for a in ("float", "8-bit integer", "3-bit integer") for t in (1, 4)}


def test_wake_sleep_is_exact(small_runs):
    evaluation = Evaluation.read(small_runs / "cqrelu" / "evaluation.json")
    counts = evaluation.counts
    assert list(counts["variants"]) == ["IF", "CIF", "CIF + sleep"]
    settled = counts["variants"]["CIF + sleep"]
    assert settled["unequal_images"] == 0
    assert all(layer["wrong"] == 0 for layer in settled["layers"].values())
    ann = evaluation.find(network="ANN", arithmetic="8-bit integer")
    assert evaluation.find(neuron="CIF + sleep").accuracy == ann.accuracy


def test_the_page_holds_every_number_and_figure(small_runs, tmp_path):
    evaluations = find_evaluations(small_runs)
    assert sorted(evaluations) == ["cqrelu", "noise-0.1", "nq", "qcfs"]
    drawn = write_page(evaluations, tmp_path / "RESULTS.md", tmp_path / "figures")
    page = (tmp_path / "RESULTS.md").read_text()
    for evaluation in evaluations.values():
        for row in evaluation.rows:
            assert f"{100 * row.accuracy['accuracy']:.2f} ±" in page
        assert evaluation.made_by["command"] in page
    names = {path.stem for path in drawn}
    assert names == {
        f"{figure}-digits-lenet-width-0.25"
        for figure in (
            "residual-error",
            "snn-against-ann",
            "mean-gap",
            "relative-error",
            "spike-errors",
            "relative-error-counts",
            "training",
            "noise-intensity",
        )
    }
    for path in drawn:
        assert f"(figures/{path.name})" in page
        assert path.read_text().startswith("<?xml")


def test_the_page_gives_differences_in_points(small_runs, tmp_path):
    evaluations = find_evaluations(small_runs)
    write_page(evaluations, tmp_path / "RESULTS.md", tmp_path / "figures")
    rows = {}
    for line in (tmp_path / "RESULTS.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.setdefault(cells[0], cells[1:])
    assert rows["difference in percentage points"] == ["T = 1", "T = 4"]

    def right(side, steps):
        name, arithmetic = side
        row = evaluations[name].find(neuron="IF", arithmetic=arithmetic, steps=steps)
        return f"{int.from_bytes(base64.b64decode(row.right), 'big'):040b}"

    def points(first, second):
        # 40 samples: one is 2.5 points.
        cells = []
        for t in (1, 4):
            pairs = list(zip(right(first, t), right(second, t), strict=True))
            won, lost = pairs.count(("1", "0")), pairs.count(("0", "1"))
            tosses = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1))
            p = min(1.0, 2 * tosses / 2 ** (won + lost))
            cells.append(f"{2.5 * (won - lost):+.2f} (+{won} -{lost}, p = {p:.2g})")
        return cells

    nq, qcfs = ("nq", "float"), ("qcfs", "float")
    assert rows["NQ - QCFS, both float"] == points(nq, qcfs)
    assert rows["NQ: 8-bit integer - float"] == points(("nq", "8-bit integer"), nq)
    assert rows["QCFS: 3-bit integer - float"] == points(("qcfs", "3-bit integer"), qcfs)
    assert not any("noise" in name and "float" in name for name in rows)


def test_the_page_holds_what_benchmarks_measured(small_runs, tmp_path):
    table = Table("fast", ("", "ms"), (("one way", "3.5"), ("another", "7.0")))
    made = {"command": "python bench.py", "seconds": 7.2, "processor": "some", "cores": 2}
    made |= {"spikeport": "0", "python": "3", "x": "1"}
    measurement = Measurement("Speed of it", "What was measured.", (table,), made)
    measurement.save(tmp_path / f"it{SUFFIX}")
    found = find_measurements(tmp_path)
    assert found == {"it": measurement}
    page = tmp_path / "RESULTS.md"
    write_page(find_evaluations(small_runs), page, tmp_path / "figures", found)
    text = page.read_text()
    for part in (
        "## Speed of it",
        "| one way | 3.5 |",
        "python bench.py",
        "7 s on some, 2 cores; spikeport 0, python 3, x 1",
    ):
        assert part in text
    (tmp_path / f"it{SUFFIX}").write_text("{}")
    with pytest.raises(DataError, match="not a saved measurement"):
        find_measurements(tmp_path)


def test_the_page_repeats_to_the_byte(small_runs, tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        write_page(find_evaluations(small_runs), folder / "RESULTS.md", folder / "figures")
    for path in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data npz:other.npz", "samples of another shape than the network was trained on"),
        ("--data npz:classes.npz", "other classes than the network was trained on"),
        ("--data digits@test[:9] --steps 0,4", "every number must be at least 1"),
        ("--data digits@test[:9] --steps four", "not whole numbers with commas"),
        ("--data digits@test[:9] --weight-bits 1", "weight bits out of range"),
        ("--data digits@test[:9] --rounding gptq", "needs calibration data"),
        ("--data digits@test[:9] -o nowhere/a.json", "the folder to write into is not there"),
    ],
)
def test_wrong_use_leaves_the_last_evaluation_alone(small_runs, tmp_path, options, message):
    for name, shape in (("other", (4, 1, 9, 9)), ("classes", (4, 1, 8, 8))):
        samples = np.zeros(shape, np.uint8)
        np.savez(tmp_path / f"{name}.npz", test_samples=samples, test_labels=np.arange(4))
    path = small_runs / "qcfs" / "evaluation.json"
    before = path.read_bytes()
    fails(2, message, "evaluate", small_runs / "qcfs", *options.split(), cwd=tmp_path)
    assert path.read_bytes() == before
