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

from exports.lava import LavaModels, run_on_lava
from exports.lava.resources import SHARED_MEMORY
from exports.netx import write_net
from tests.command_line import ROOT
from tests.networks import random_inputs, random_program
from toolchain.errors import BackendRunError, ValueRangeError
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import Readout
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate

pytestmark = pytest.mark.alone
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
    descriptors = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() == descriptors
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


def test_sixty_runs_in_a_row(program):
    """In one Python process, which gets no larger; descriptors and the rest: see the fixture."""
    inputs = random_inputs(program, 2)
    expected = simulate(program, inputs, mode=Mode.DIGEST)
    models, this = LavaModels.fast(batch=2), psutil.Process()
    for run in range(60):
        found = run_on_lava(program, inputs, models=models, mode=Mode.DIGEST, time_limit=60)
        assert compare(expected, found).equal
        if run == 20:
            threads, children, memory = this.num_threads(), this.children(), this.memory_info().rss
    assert this.num_threads() == threads
    assert this.children() == children
    assert this.memory_info().rss < memory + 4e6  # 200 runs were allowed 20 MB


IN_LITTLE_SHARED_MEMORY = """
mount -t tmpfs -o size=$1 tmpfs /dev/shm && shift && "$@"
status=$?
echo "left: $(ls /dev/shm)"
exit $status
"""


@pytest.mark.parametrize("size", ["4k", "64k", "300k"])
def test_full_shared_memory(long_program, size, tmp_path):
    """No room for the first semaphores, for all of them, and for what the channels carry."""
    write_net(long_program, tmp_path / "a.net")
    samples = random_inputs(long_program, 4).astype(float)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=np.zeros(4, int))
    # A mount namespace of its own, so that nobody else's shared memory is touched.
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_LITTLE_SHARED_MEMORY]
    run = ["run", "a.net", "--data", "npz:data.npz@test", "--backend", "lava", "-o", "a.npz"]
    result = subprocess.run(
        [*shell, "sh", size, sys.executable, "-m", "toolchain.cli", *run, "--time-limit", "60"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "shared memory is full: /dev/shm holds" in result.stderr
    assert "did not end" not in result.stderr
    assert result.stdout.splitlines()[-1] == "left: "
    assert not (tmp_path / "a.npz").exists()


def test_time_out(long_program):
    started = time.monotonic()
    with pytest.raises(BackendRunError, match=r"did not end within 3 s") as error:
        run_on_lava(long_program, random_inputs(long_program, 400), time_limit=3)
    assert time.monotonic() - started < 20
    assert error.value.exit_code == 1
    assert "time_limit=" in str(error.value)


def test_a_model_that_fails_tells_what_and_where(program):
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
    with pytest.raises(BackendRunError, match="conv0: a state left its range at") as error:
        run_on_lava(narrow, inputs, time_limit=60)
    assert "Traceback" not in str(error.value)
    assert "weight bits" in error.value.remedy
    cause = str(error.value.__cause__)
    assert "Traceback (most recent call last)" in cause
    assert "spiking_population.py" in cause
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
    text = str(error.value)
    assert "before the run was over" in text or "Error" in error.value.found, text


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


@pytest.mark.parametrize("when", ["write_net", "to_lava"])
def test_the_caller_is_killed_while_it_sets_up(long_program, when, tmp_path):
    """Its supervisor is there before it writes a file, and leaves none."""
    net, folder = tmp_path / "a.net", tmp_path / "temporary"
    write_net(long_program, net)
    folder.mkdir()
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        import numpy as np
        from exports.lava import run_on_lava, runner
        from exports.netx import read_net

        def end(*_):
            assert os.listdir({str(folder)!r})
            os.kill(os.getpid(), signal.SIGKILL)

        runner.{when} = end
        program = read_net(Path({str(net)!r}))
        run_on_lava(program, np.zeros((2, *program.input.shape), int))
    """)
    where = {**os.environ, "TMPDIR": str(folder)}
    ended = subprocess.run([sys.executable, "-c", code], env=where, check=False)
    assert ended.returncode == -signal.SIGKILL
    deadline = time.monotonic() + SETTLE
    while any(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(folder.iterdir())


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
        from exports.lava import LavaModels, run_on_lava
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
