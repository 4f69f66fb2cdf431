"""The Lava runner with real processes: whatever happens, a clear end and nothing left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from exports.lava import run_on_lava
from exports.lava.job import SHARED_MEMORY
from exports.netx import write_net
from tests.networks import random_inputs, random_program
from toolchain.errors import BackendRunError, ValueRangeError
from toolchain.neurons import Readout
from toolchain.program.int_program import Schedule
from toolchain.recording import compare
from toolchain.simulator.reference import simulate

TEMPORARY = Path(os.environ.get("TMPDIR", "/tmp"))
SETTLE = 15.0


def leftovers():
    """Processes, shared memory and folders that belong to Lava runs."""
    processes = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if "exports.lava." in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            processes.append(f"{process.pid} {line}")
    ours = ("spikeport_", "psm_")
    segments = [str(p) for p in SHARED_MEMORY.iterdir() if p.name.startswith(ours)]
    folders = [str(p) for p in TEMPORARY.iterdir() if p.name.startswith(("spikeport-", "pymp-"))]
    return processes + segments + folders


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = set(leftovers())
    yield
    deadline = time.monotonic() + SETTLE
    while (left := set(leftovers()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == set()


@pytest.fixture(scope="module")
def program():
    return random_program(2, schedule=Schedule(3))


@pytest.fixture(scope="module")
def long_program():
    """Runs for minutes, so that there is time to interrupt it."""
    return random_program(2, shape=(2, 24, 24), convs=((16, 5, 1, 2, 1, 1),), schedule=Schedule(50))


def running_lava():
    return [p for p in leftovers() if "exports.lava.worker" in p]


def wait_for_lava(count=3):
    """Until the worker and some of its Lava processes are up; returns their ids, oldest first.

    By the time they were started: process ids may wrap around.
    """
    deadline = time.monotonic() + 30
    while len(found := running_lava()) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    pids = [int(p.split()[0]) for p in found]
    return sorted(pids, key=lambda pid: (psutil.Process(pid).create_time(), pid))


def test_success(program):
    inputs = random_inputs(program, 4)
    progress = []
    recording = run_on_lava(
        program, inputs, time_limit=60, progress=lambda done, total: progress.append((done, total))
    )
    assert compare(simulate(program, inputs), recording).equal
    assert progress[-1] == (4, 4)
    assert recording.meta["backend"] == "lava"
    assert recording.meta["versions"]["lava-nc"] == "0.10.0"


def test_several_runs_for_many_samples(program, monkeypatch):
    monkeypatch.setattr("exports.lava.runner.CHUNK_BYTES", 3000)
    inputs = random_inputs(program, 5)
    recording = run_on_lava(program, inputs, time_limit=120)
    assert compare(simulate(program, inputs), recording).equal


def test_two_runs_side_by_side(program):
    inputs = random_inputs(program, 3)
    results = {}

    def go(name):
        results[name] = run_on_lava(program, inputs, time_limit=60)

    threads = [threading.Thread(target=go, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compare(results[0], results[1]).equal


def test_time_out(long_program):
    started = time.monotonic()
    with pytest.raises(BackendRunError, match=r"did not end within 3 s") as error:
        run_on_lava(long_program, random_inputs(long_program, 400), time_limit=3)
    assert time.monotonic() - started < 20
    assert error.value.exit_code == 1
    assert "--time-limit" in str(error.value)


def test_a_model_that_fails_shows_its_traceback(program):
    """The membrane leaves a declared 12-bit range inside the Lava model."""

    def narrowed(population):
        if isinstance(population.neuron, Readout):
            return population
        theta = np.full_like(population.neuron.threshold, 2000)
        neuron = replace(population.neuron, threshold=theta, initial_potential=theta // 2)
        return replace(population, neuron=neuron)

    populations = tuple(narrowed(p) for p in program.populations)
    narrow = replace(program, state_bits=12, populations=populations)
    inputs = random_inputs(narrow, 2)
    with pytest.raises(BackendRunError, match="a Lava process failed") as error:
        run_on_lava(narrow, inputs, time_limit=60)
    text = str(error.value)
    assert "Traceback (most recent call last)" in text
    assert "a state left its range at global step" in text
    assert "spiking_population.py" in text
    with pytest.raises(ValueRangeError):
        simulate(narrow, inputs)


@pytest.mark.parametrize("which", [2, 3, -1])
def test_a_killed_lava_process_is_noticed(long_program, which):
    """Its end, or the failure it causes elsewhere, is reported at once.

    The worker comes first and the server of its shared memory second; a run does not need the
    latter once it goes.
    """
    started = time.monotonic()
    killer = threading.Thread(target=lambda: os.kill(wait_for_lava(6)[which], signal.SIGKILL))
    killer.start()
    with pytest.raises(BackendRunError, match="a Lava process failed") as error:
        run_on_lava(long_program, random_inputs(long_program, 400), time_limit=100)
    killer.join()
    assert time.monotonic() - started < 60
    assert "before the run was over" in str(error.value) or "Traceback" in str(error.value)


def test_a_killed_worker_is_noticed(long_program):
    killer = threading.Thread(target=lambda: os.kill(wait_for_lava(6)[0], signal.SIGKILL))
    killer.start()
    with pytest.raises(BackendRunError, match="ended early"):
        run_on_lava(long_program, random_inputs(long_program, 400), time_limit=100)
    killer.join()


def test_a_killed_supervisor_is_noticed(long_program):
    def kill():
        wait_for_lava(6)
        (line,) = [p for p in leftovers() if "exports.lava.supervisor" in p]
        os.kill(int(line.split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(BackendRunError, match="ended early"):
        run_on_lava(long_program, random_inputs(long_program, 400), time_limit=100)
    killer.join()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_caller_is_ended(long_program, how, tmp_path):
    """Ctrl-C, a polite end and SIGKILL of the process that called: Lava goes too."""
    net, samples = tmp_path / "a.net", tmp_path / "x.npy"
    write_net(long_program, net)
    np.save(samples, random_inputs(long_program, 400))
    # A shell that runs the tests in its background has them ignore Ctrl-C, children and all.
    code = textwrap.dedent(f"""
        import signal
        from pathlib import Path
        import numpy as np
        from exports.lava import run_on_lava
        from exports.netx import read_net
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run_on_lava(read_net(Path({str(net)!r})), np.load({str(samples)!r}), time_limit=300)
    """)
    caller = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    wait_for_lava(6)
    caller.send_signal(how)
    _, errors = caller.communicate(timeout=30)
    assert caller.returncode != 0
    if how == signal.SIGINT:
        assert b"KeyboardInterrupt" in errors
    deadline = time.monotonic() + SETTLE
    while running_lava() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_lava() == []
