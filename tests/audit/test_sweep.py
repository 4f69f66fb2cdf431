"""Sweeps: what is measured, resumed, shared among worker processes, and worth having."""

import json
import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.profile import load_profile
from spikeport.chips import chip_of
from spikeport.given_network import GivenNetwork, described
from spikeport.sweeping import Lowering
from spikeport.trained_network import network_of
from tests.command_line import START, here, ok, spikeport, started
from toolchain.audit.chip_fit import fit
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import OutputError
from toolchain.learning.data import open_split
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode
from toolchain.simulator import reference
from toolchain.sweep.grid import Point, make_grid
from toolchain.sweep.measure import Result, measure
from toolchain.sweep.pareto import costs, front
from toolchain.sweep.plot import draw, save_plot
from toolchain.sweep.store import Store
from toolchain.workers import pools

DATA = "digits@test[:60]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    how = ("--model", "mlp", "--activation", "qcfs", "--levels", "4", "--epochs", "2", *START)
    ok("train", "--data", "digits", *how, "--out", "run", cwd=folder)
    return folder


def lowering(run):
    given = GivenNetwork(run, None, described())
    sha256 = load_checkpoint(run).tensors_sha256
    return Lowering({str(run): (given, sha256)}, load_profile("loihi2").as_target_limits())


def rows(path):
    with sqlite3.connect(path) as database:
        return database.execute("SELECT * FROM results ORDER BY key").fetchall()


def test_the_grid_is_every_combination():
    grid = make_grid([("a", 4), ("b", 8)], ["if", "cif"], [2, 1], [8, 3])
    assert len(grid) == len(set(grid)) == 16
    assert [p.steps for p in grid] == [1] * 8 + [2] * 8
    assert {p.levels for p in grid} == {4, 8}
    graded = make_grid([("a", 4)], ["if", "cif"], [2], [8], [1, 4])
    assert [(p.neuron, p.max_spike) for p in graded] == [("if", 1), ("cif", 1), ("if", 4)]
    point = grid[0]
    assert Point("r", 4, "cif", 3, 8).schedule == Schedule(3, 12)
    assert Point("r", 4, "if", 3, 8).schedule == Schedule(3)
    key = point.key("c", "d", "loihi2")
    assert replace(point, run="elsewhere").key("c", "d", "loihi2") == key
    others = [
        replace(point, steps=9).key("c", "d", "loihi2"),
        replace(point, weight_bits=5).key("c", "d", "loihi2"),
        replace(point, max_spike=4).key("c", "d", "loihi2"),
        point.key("x", "d", "loihi2"),
        point.key("c", "x", "loihi2"),
        point.key("c", "d", "loihi1"),
    ]
    assert len({key, *others}) == 7


@pytest.mark.parametrize(("neuron", "steps", "most"), [("if", 2, 1), ("if", 2, 3), ("cif", 4, 1)])
def test_a_point_is_what_convert_and_the_reference_simulator_give(folder, neuron, steps, most):
    limits = load_profile("loihi2").as_target_limits()
    point = Point(str(folder / "run"), 4, neuron, steps, 4, most)
    found = measure("key", point, lowering(folder / "run"), DATA, chip_of("loihi2"))
    network = network_of(load_checkpoint(folder / "run"), folder / "run")
    options = ConversionOptions(neuron, point.schedule, 4, max_spike=most)
    program = convert(network.model, network.quantizer, options, limits, name="run").program
    data = open_split(DATA)
    inputs = program.input.quantize(data.real())
    recording = reference.simulate(program, inputs, mode=Mode.COUNTS, labels=data.labels)
    assert found.error == ""
    assert found.correct == int((recording.predictions == data.labels).sum())
    assert found.total == 60
    assert found.synops == sum(recording.meta["synops"].values()) / 60
    assert found.latency == program.schedule.num_steps
    assert found.cores == fit(program, chip_of("loihi2")).cores
    assert found.program_hash == program.hash


def test_what_cannot_be_converted_is_a_result(folder):
    point = Point(str(folder / "run"), 4, "if", 2, 1)
    found = measure("key", point, lowering(folder / "run"), DATA, chip_of("loihi2"))
    assert "weight bits out of range" in found.error
    assert (found.accuracy, found.total) == (0, 0)
    assert front([found]) == []


def test_the_store_keeps_results(tmp_path):
    store = Store(tmp_path / "a.sqlite")
    first = Result("k1", Point("r", 4, "if", 2, 8), 5, 9, 12.5, 2, 3, "hash", 0.5)
    failed = Result("k2", Point("r", 4, "if", 1, 8), error="why")
    for result in (first, failed):
        store.add(result)
    assert store.done() == {"k1", "k2"}
    assert Store(tmp_path / "a.sqlite").results() == [failed, first]
    assert store.results(["k1"]) == [first]
    store.add(replace(first, correct=6))
    assert store.results(["k1"])[0].correct == 6
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("ALTER TABLE results DROP COLUMN max_spike")
        database.execute("PRAGMA user_version = 1")
    assert Store(tmp_path / "a.sqlite").results(["k2"]) == [failed]
    Store(tmp_path / "a.sqlite").add(replace(failed, key="k3"))
    assert Store(tmp_path / "a.sqlite").done() == {"k1", "k2", "k3"}
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be looked at\n" * 90)
    with pytest.raises(OutputError, match="not a sweep"):
        Store(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE x (y)")
    with pytest.raises(OutputError, match="not a sweep"):
        Store(tmp_path / "other.sqlite")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 3)),
        max_size=12,
    )
)
def test_the_front_by_brute_force(values):
    results = [
        Result(str(i), Point("r", 4, "if", latency, 8), correct, 4, float(synops), latency, cores)
        for i, (correct, synops, latency, cores) in enumerate(values)
    ]

    def beats(a, b):
        x, y = costs(a), costs(b)
        return all(p <= q for p, q in zip(x, y, strict=True)) and x != y

    expected = [r for r in results if not any(beats(other, r) for other in results)]
    assert front(results) == expected


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_picture_names_every_point(count, tmp_path):
    """Its time steps stand in every point; cores are whole numbers, also where all have as many."""
    grid = make_grid([("$a_", 4), ("b", 4)], ["if", "cif"], [1, 16], [8, 3])
    results = [
        Result(str(i), point, i, 60, 1000.0 + i, point.schedule.num_steps, 4)
        for i, point in enumerate(grid * bool(count))
        if count == 2 or point.run.endswith("b")
    ]
    figure = draw([*results, Result("f", grid[0], error="failed")])
    save_plot(figure, tmp_path / "a.png")
    for axes in figure.axes:
        told = sorted(int(text.get_text()) for text in axes.texts)
        assert told == sorted(r.point.steps for r in results)
    low, high = figure.axes[2].get_xlim()
    ticks = [tick for tick in figure.axes[2].get_xticks() if low <= tick <= high]
    assert len(ticks) == 3
    assert all(float(tick).is_integer() for tick in ticks)


def sweep(*more):
    return ("sweep", "run", "--data", DATA, *more)


def test_the_command(folder):
    grid = ("--steps", "1,2", "--weight-bits", "1,4", "--neurons", "if,cif", "-o", "a.sqlite")
    shown = ok(*sweep(*grid, "--plot", "a.png", "--jobs", "2"), cwd=folder)
    assert "weight bits out of range" in shown.stdout
    assert (folder / "a.png").stat().st_size > 1000
    before = rows(folder / "a.sqlite")
    assert len(before) == 8
    report = json.loads(ok(*sweep(*grid), "--json", cwd=folder).stdout)
    # Nothing was measured again: even the seconds are the same.
    assert rows(folder / "a.sqlite") == before
    assert sum(r["pareto"] for r in report["results"]) >= 1
    assert all(r["error"] or r["total"] == 60 for r in report["results"])
    ok(*sweep(*grid[:1], "1,2,3", *grid[2:]), cwd=folder)
    after = rows(folder / "a.sqlite")
    assert len(after) == 12
    assert set(before) < set(after)


def test_wrong_uses(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(pools, "CONNECT_SECONDS", 1)
    for code, message, *more in (
        (2, "no such neuron", "--neurons", "lif"),
        (2, "not whole numbers", "--steps", "1,two"),
        (2, "at least 1", "--steps", "0"),
        (2, "is no chip", "--target", "stock-netx"),
        (1, "the scheduler does not answer", "--scheduler", "tcp://127.0.0.1:9"),
    ):
        ended = here(*sweep(*more, "-o", "x.sqlite"))
        assert ended.exit_code == code
        assert message in str(ended.error)
    ended = here("sweep", "x", "--data", DATA, "-o", "x.sqlite")
    assert ended.exit_code == 2
    assert "not a checkpoint folder" in str(ended.error)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def count(path):
    try:
        return len(rows(path))
    except sqlite3.Error:
        return 0


MANY = ("--steps", "1,2,3,4,5,6,7,8", "--weight-bits", "3,4,5,6,7,8")


def test_a_killed_sweep_goes_on(folder):
    out = folder / "killed.sqlite"
    process = started(*sweep(*MANY, "-o", out), cwd=folder)
    try:
        wait_for(lambda: count(out) >= 3)
    finally:
        process.kill()
        process.join()
    before = rows(out)
    assert 3 <= len(before) < 48
    ok(*sweep(*MANY, "-o", out), cwd=folder)
    after = rows(out)
    assert len(after) == 48
    assert set(before) < set(after)


def test_workers_share_it_and_one_dies(folder):
    """Real processes: a scheduler and two workers, of which one is killed in the middle."""
    address, out = folder / "scheduler.json", folder / "shared.sqlite"
    common = ("--scheduler-file", address, "--no-dashboard")
    processes = []

    def start(*arguments, **module):
        processes.append(started(*arguments, cwd=folder, **module))

    try:
        start("--port", "0", *common, module="distributed.cli.dask_scheduler")
        wait_for(address.exists)
        for _ in range(2):
            alone = ("--no-nanny", "--nthreads", "1")
            start(*alone, *common, module="distributed.cli.dask_worker")
        there = json.loads(address.read_text())["address"]
        start(*sweep(*MANY, "-o", out, "--scheduler", there))
        wait_for(lambda: count(out) >= 4)
        processes[1].kill()
        processes[-1].join(180)
        assert processes[-1].exitcode == 0
    finally:
        for process in processes:
            process.kill()
            process.join()
    alone = folder / "killed.sqlite"
    if count(alone) < 48:
        ok(*sweep(*MANY, "-o", alone), cwd=folder)
    shared, expected = ({r[0]: r[2:-2] for r in rows(path)} for path in (out, alone))
    assert len(shared) == 48
    assert shared == expected


def test_json_without_a_terminal(folder):
    arguments = sweep("--steps", "1", "--weight-bits", "4", "-o", "j.sqlite", "--json")
    result = spikeport(*arguments, cwd=folder)
    assert result.stderr == ""
    (row,) = json.loads(result.stdout)["results"]
    assert row["levels"] == 4
    assert np.isclose(row["accuracy"], row["correct"] / row["total"])


def test_a_sweep_without_any_result_has_failed(folder):
    found = sweep("--steps", "1,2", "--weight-bits", "8", "-o", "bad.sqlite")
    at = found.index("--weight-bits") + 1
    result = spikeport(*found[:at], "40", *found[at + 1 :], cwd=folder)
    assert result.returncode == 1, result.stderr
    assert "2 of 2 points failed" in result.stdout
    result = spikeport(*found[:at], "8,40", *found[at + 1 :], cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "2 of 4 points failed" in result.stdout
