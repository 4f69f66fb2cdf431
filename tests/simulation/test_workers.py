"""Runs, evaluations and audits that several processes or a cluster share: the same to the byte."""

import json
import time
from dataclasses import asdict

import numpy as np
import pytest
from torch import nn

import spikeport
from spikeport.backends import Reference
from spikeport.running import run_inputs
from tests.command_line import FACTORIES, here, started
from tests.networks import branched_program, random_inputs, random_program
from tests.simulation.worker_functions import first, leave, threads
from toolchain.errors import BackendRunError, SpikeportError, UsageError, ValueRangeError
from toolchain.learning.activations import QCFS
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, compare
from toolchain.workers import Work, open_workers, pools, work

DATA = "digits@test[:90]"


@pytest.fixture(scope="module")
def processes():
    with open_workers(2) as workers:
        yield workers


class DaskCluster:
    """A scheduler and worker processes, in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.file, self.processes = folder, folder / "scheduler.json", []
        self._start("--port", "0", module="distributed.cli.dask_scheduler")
        end = time.monotonic() + 60
        while not self.file.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]

    def _start(self, *arguments, module):
        common = ("--scheduler-file", self.file, "--no-dashboard")
        self.processes.append(started(*arguments, *common, module=module, cwd=self.folder))

    def add(self, count):
        from distributed import Client

        for _ in range(count):
            how = ("--no-nanny", "--nthreads", "1")
            self._start(*how, module="distributed.cli.dask_worker")
        alive = sum(process.is_alive() for process in self.processes) - 1
        with Client(self.address) as client:
            client.wait_for_workers(alive, timeout=60)

    def kill_one(self):
        """Kill the oldest worker that lives."""
        worker = next(process for process in self.processes[1:] if process.is_alive())
        worker.kill()
        worker.join()

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = DaskCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.add(3)
        yield cluster
    finally:
        cluster.close()


class Killer:
    """A progress function that kills one worker of three as soon as a part is finished."""

    def __init__(self, cluster, what):
        self.cluster, self.what, self.killed = cluster, what, False

    def __call__(self, *told):
        *what, done, total = told
        if not self.killed and 0 < done < total and all(self.what in name for name in what):
            self.cluster.kill_one()
            self.killed = True


@pytest.fixture
def kill(cluster):
    """Makes a `Killer`; its victim gets a successor, so that each test begins with three."""
    made = []

    def make(what=""):
        made.append(Killer(cluster, what))
        return made[-1]

    yield make
    assert all(killer.killed for killer in made)
    cluster.add(len(made))


def same_files(a, b, folder):
    """Whether two recordings are the same file."""
    a.save(folder / "a.npz")
    b.save(folder / "b.npz")
    return (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_a_recording_is_the_same_where_a_worker_dies(cluster, kill, tmp_path):
    program = branched_program(1, "cif", ("residual", "max"), schedule=Schedule(3, 4))
    inputs = random_inputs(program, 100)
    labels = np.arange(100) % 3
    given = {"labels": labels, "engine": "fast"}
    alone = spikeport.run(program, inputs * program.input.scale, **given)
    how = {"scheduler": cluster.address, "progress": kill(), **given}
    shared = spikeport.run(program, inputs * program.input.scale, **how)
    assert alone.num_samples == 100
    assert same_files(alone, shared, tmp_path)


def test_processes_share_a_recording_and_one_dies(processes, tmp_path):
    program = random_program(2, "cif", schedule=Schedule(3, 2))
    inputs, backend = random_inputs(program, 90), Reference("stepwise")
    seen = []

    def progress(done, total):
        if not seen:
            processes._processes[0]._process.kill()
        seen.append((done, total))

    shared = run_inputs(program, inputs, backend, Mode.EVENTS, progress, processes)
    assert same_files(backend.run(program, inputs, mode=Mode.EVENTS), shared, tmp_path)
    assert [total for _, total in seen] == [90] * 5
    assert sorted(done for done, _ in seen) == [done for done, _ in seen]
    assert seen[-1] == (90, 90)


def test_lava_in_processes():
    program = random_program(2, "cif", schedule=Schedule(3, 2))
    samples = random_inputs(program, 3) * program.input.scale
    found = spikeport.run(program, samples, backend="lava", models="fast", jobs=2)
    assert compare(spikeport.run(program, samples), found).equal
    assert found.meta["models"]["tag"] == "fast"


@pytest.fixture(scope="module")
def network():
    import torch

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), QCFS(4, 1.0), nn.Flatten(), nn.Linear(144, 10)
    )
    return model.eval()


def evaluated(network, **how):
    found = asdict(spikeport.evaluate(network, DATA, command="a command", **how))
    del found["made_by"]["seconds"]
    return json.dumps(found)


def test_an_evaluation_is_the_same_where_a_worker_dies(network, cluster, kill):
    how = {"steps": (1, 4), "weight_bits": (8, 4)}
    shared = evaluated(network, scheduler=cluster.address, progress=kill("integer"), **how)
    assert shared == evaluated(network, **how)


def test_counts_of_a_file_are_the_same_where_a_worker_dies(network, cluster, kill, tmp_path):
    """CIF with sleep: counts against the quantized network, and steps until the last is silent."""
    converted = spikeport.convert(
        network, neuron="cif", steps=4, sleep_steps=6, input_shape=(1, 8, 8)
    )
    spikeport.save(converted, tmp_path / "a.net")
    killer = kill("CIF and sleep")
    shared = evaluated(tmp_path / "a.net", scheduler=cluster.address, progress=killer)
    assert shared == evaluated(tmp_path / "a.net")
    assert json.loads(shared)["counts"]["samples"] == 90


def test_an_audit_is_the_same_where_a_worker_dies(network, cluster, kill):
    converted = spikeport.convert(network, steps=4, input_shape=(1, 8, 8))
    how = {"network": network, "lava_samples": 0, "gates": ["drop<=50"], "budget_samples": 20}
    killer = kill("integer reference")
    shared = spikeport.audit(converted, DATA, scheduler=cluster.address, progress=killer, **how)
    alone = spikeport.audit(converted, DATA, **how)
    assert json.dumps(shared.document) == json.dumps(alone.document)


FACTORY = """
import torch
from torch.utils.data import TensorDataset

def whole():
    torch.manual_seed(1)
    return TensorDataset(torch.rand(60, 1, 8, 8), torch.arange(60) % 10)
"""


def test_workers_need_no_file(cluster, tmp_path, monkeypatch):
    """Network and data are files that only this process finds, one of them a FACTORY."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(FACTORIES)
    (tmp_path / "mine.py").write_text(FACTORY)
    assert here("convert", "nets.py:good", "--input-shape", "1,8,8", "-o", "a.net").exit_code == 0
    run = ("run", "a.net", "--data", "mine.py:whole", "--record", "digest", "--engine", "fast")
    assert here(*run, "-o", "alone.npz").error is None
    assert here(*run, "-o", "shared.npz", "--scheduler", cluster.address).error is None
    assert (tmp_path / "alone.npz").read_bytes() == (tmp_path / "shared.npz").read_bytes()


def test_parts_are_narrow_and_many_enough(processes):
    inputs = np.arange(-200, 200, dtype=np.int32).reshape(100, 2, 2)
    parts = processes.split(inputs)
    assert {part.dtype for part in parts} == {np.dtype(np.int16)}
    assert np.array_equal(np.concatenate(parts), inputs)
    assert [len(part) for part in parts] == [17, 17, 17, 17, 16, 16]
    assert [len(part) for part in processes.split(inputs[:1])] == [1]
    assert [len(part) for part in processes.split(inputs[:5])] == [3, 2]
    large = np.zeros((10, 1 << 21), np.int32)
    assert {len(part) for part in processes.split(large)} == {2}


def test_each_process_has_one_thread(processes):
    found = processes.over_samples(Work(threads, None), np.zeros((2, 1), int))
    assert found == [(1, "1")] * 2


def test_a_part_whose_workers_always_die(processes):
    numbers = np.arange(40)[:, None]
    with pytest.raises(BackendRunError, match="ended 3 times at the same part") as told:
        processes.over_samples(Work(leave, None), numbers)
    assert told.value.found == "exit code 7"
    assert processes.over_samples(Work(leave, None), numbers + 4) == [270, 670]


def test_a_cluster_that_loses_all_workers(tmp_path, monkeypatch):
    """Dask itself waits for others, without end."""
    monkeypatch.setattr(pools, "LOST_SECONDS", 1)
    cluster = DaskCluster(tmp_path)
    try:
        cluster.add(1)
        with open_workers(scheduler=cluster.address) as workers:
            found = workers.each(Work(first, None), list(range(20)))
            next(found)
            cluster.kill_one()
            with pytest.raises(BackendRunError, match="all workers of the cluster are gone"):
                list(found)
    finally:
        cluster.close()


def test_errors_are_those_of_one_process(processes, cluster):
    program = random_program(2)
    wrong = random_inputs(program, 40)
    wrong[33] = 10_000
    with open_workers(scheduler=cluster.address) as many:
        for workers in (None, processes, many):
            with pytest.raises(ValueRangeError) as told:
                run_inputs(program, wrong, Reference(), Mode.DIGEST, None, workers)
            assert "10000" in str(told.value)


def test_what_workers_cannot_import(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def first(shared, part, progress):\n    return part\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with open_workers(scheduler=cluster.address) as workers:
        with pytest.raises(BackendRunError, match="failed on a worker") as told:
            workers.over_samples(Work(only_here.first, None), np.zeros((2, 2), int))
        assert "No module named 'only_here'" in str(told.value)


def test_workers_of_other_versions(processes, cluster, monkeypatch):
    others = {"spikeport": "0.0.1", "torch": "1.0", "numpy": "1.0"}
    asked = Work(leave, None, others)
    with open_workers(scheduler=cluster.address) as many:
        for workers in (processes, many):
            with pytest.raises(BackendRunError, match="other versions") as told:
                workers.over_samples(asked, np.zeros((2, 2), int))
            assert told.value.allowed == "spikeport 0.0.1, torch 1.0, numpy 1.0"
            assert str(told.value.found).startswith(f"spikeport {spikeport.__version__}, torch ")
    assert work.versions() != others


def test_wrong_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "CONNECT_SECONDS", 1)
    program = random_program(2)
    samples = random_inputs(program, 2) * program.input.scale
    with pytest.raises(UsageError, match="no number of processes"):
        spikeport.run(program, samples, jobs=0)
    with pytest.raises(UsageError, match="exclude each other"):
        spikeport.audit(program, samples, jobs=2, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(BackendRunError, match="does not answer"):
        spikeport.evaluate(program, "digits@test[:2]", scheduler="tcp://127.0.0.1:9")
    empty = DaskCluster(tmp_path)
    try:
        with pytest.raises(SpikeportError, match="has no workers"):
            spikeport.run(program, samples, scheduler=empty.address)
    finally:
        empty.close()
    resumed = {"backend": "lava", "parts": tmp_path / "parts", "resume": True}
    with pytest.raises(UsageError, match="of one process"):
        spikeport.run(program, samples, jobs=2, **resumed)
