"""A Lava run that does not fit the system says so at once, and what is missing."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava
from exports.lava.failure import Failure
from exports.lava.job import Job, Plan
from exports.lava.models import STOCK
from exports.lava.resources import Needs, provide, remedy_for
from exports.lava.runner import CHUNK_SAMPLES, _environment
from exports.netx import write_net
from tests.command_line import ROOT
from tests.networks import random_inputs, random_program
from toolchain.errors import BackendRunError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate

pytestmark = pytest.mark.alone
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run_in_shell(tmp_path, before, program, *options, time_limit=100):
    """`spikeport run` on Lava behind some lines of shell, in a name space of its own."""
    write_net(program, tmp_path / "a.net")
    samples = random_inputs(program, 2).astype(float)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=np.zeros(2, int))
    command = ["run", "a.net", "--data", "npz:data.npz@test", "--backend", "lava", "-o", "a.npz"]
    shell = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{before}\nexec "$@"']
    started = time.monotonic()
    result = subprocess.run(
        [*shell, "sh", sys.executable, "-m", "toolchain.cli", *command, *options],
        capture_output=True,
        text=True,
        timeout=time_limit,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert "Traceback" not in result.stderr
    return result, time.monotonic() - started


@pytest.fixture(scope="module")
def program():
    return random_program(2, schedule=Schedule(3))


def test_too_few_open_files_are_told_at_once(program, tmp_path):
    result, seconds = run_in_shell(tmp_path, "ulimit -n 70", program)
    assert result.returncode == 1, result.stderr
    assert "needs more open files than it may have" in result.stderr
    assert "allowed: 70" in result.stderr
    assert "ulimit -Hn" in result.stderr
    assert seconds < 60
    assert not (tmp_path / "a.npz").exists()


def test_the_soft_limit_of_open_files_is_raised(program, tmp_path):
    result, _ = run_in_shell(tmp_path, "ulimit -Sn 70", program)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("option", "kib"), [("-v", 1_000_000), ("-d", 600_000)])
def test_a_limit_of_memory_in_one_process(option, kib, tmp_path):
    """A few layers fit, where threads share one heap; many do not, and are told of it at once."""
    fits = random_program(2, "cif", hidden=(6,) * 6, schedule=Schedule(3))
    result, _ = run_in_shell(tmp_path, f"ulimit {option} {kib}", fits)
    assert result.returncode == 0, result.stderr
    wide = random_program(2, hidden=(3,) * 24, schedule=Schedule(3))
    (tmp_path / "a.npz").unlink()
    result, seconds = run_in_shell(tmp_path, f"ulimit {option} {kib}", wide)
    assert result.returncode == 1, result.stderr
    assert f"needs more bytes of memory in one process (ulimit {option})" in result.stderr
    assert f"allowed: {1024 * kib:,}" in result.stderr
    assert f"raise the limit of it (ulimit {option})" in result.stderr
    assert seconds < 60
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize("size", ["8k", "300k"])
def test_a_full_folder_for_temporary_files(size, tmp_path):
    """No room for the network, and none for what the layers leave."""
    program = random_program(
        2, shape=(2, 24, 24), convs=((16, 3, 1, 1, 1, 1),), schedule=Schedule(12)
    )
    (tmp_path / "little").mkdir()
    mount = f"mount -t tmpfs -o size={size} tmpfs little && export TMPDIR=$PWD/little"
    result, _ = run_in_shell(tmp_path, mount, program, "--models", "fast")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "(TMPDIR) is full" in result.stderr
    assert "shared memory" not in result.stderr


def test_a_long_name_of_the_folder_for_temporary_files(program, tmp_path):
    (tmp_path / "long" / ("x" * 100)).mkdir(parents=True)
    result, _ = run_in_shell(tmp_path, "export TMPDIR=$(echo $PWD/long/*)", program)
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "long").glob("*/*"))


@pytest.mark.parametrize(
    ("more", "what"), [("shared_memory", "shared memory"), ("memory", "memory")]
)
def test_what_cannot_fit_is_refused(more, what):
    needs = Needs(9, open_files=1, threads=1, shared_memory=1, memory=1, address_space=1)
    provide(needs)
    with pytest.raises(BackendRunError, match=f"needs more bytes of {what} than") as error:
        provide(replace(needs, **{more: 1 << 60}))
    assert what in error.value.remedy


TOO_MANY_THREADS = """
import os, resource
from exports.lava.resources import Needs, provide
if not os.geteuid():
    os.setuid(65534)  # root has no limit
resource.setrlimit(resource.RLIMIT_NPROC, (5000, 5000))
provide(Needs(9, 1, 100, 1, 1, 1))
provide(Needs(9, 1, 5001, 1, 1, 1))
"""


def python(script, *arguments, env=ENVIRONMENT):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )


def test_too_many_threads_are_refused():
    result = python(TOO_MANY_THREADS)
    assert "needs more processes and threads than it may have" in result.stderr
    assert "ulimit -u" in result.stderr


MEASURED = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
import psutil
from exports.lava import worker
from exports.lava.job import Job
from exports.lava.resources import Needs
from hw_models import lava_compat

job = Job.load(Path(sys.argv[1]))
lava_compat.prepare()
from lava.magma.runtime.runtime import Runtime

original = Runtime.initialize

def initialize(self):
    this = psutil.Process()
    needs, files, size = Needs.of(self._executable, 3), this.num_fds(), this.memory_info().vms
    original(self)
    all_of_them = [this, *this.children(recursive=True)]
    counts = [-1]
    while len(counts) < 8 or len(set(counts[-8:])) > 1:  # processes still start their threads
        time.sleep(0.25)
        counts.append(sum(p.num_threads() for p in all_of_them))
    print("RESULT" + json.dumps([asdict(needs), {
        "open_files": max(p.num_fds() for p in all_of_them) - files,
        "threads": sum(p.num_threads() for p in all_of_them),
        "memory": sum(p.memory_full_info().uss for p in all_of_them[1:]),
        "address_space": max(p.memory_info().vms for p in all_of_them) - size,
    }]))

Runtime.initialize = initialize
sys.argv[1:] = [str(job.path)]
sys.exit(worker.main())
"""


@pytest.mark.parametrize("layers", [1, 9])
def test_what_is_counted_is_what_a_run_takes(layers, tmp_path):
    program = random_program(1, "cif", hidden=(6,) * layers, schedule=Schedule(3))
    job = Job(str(tmp_path), "counted", 1, 60.0, Plan("digest", STOCK, (), 1))
    job.save()
    write_net(program, job.net)
    np.save(job.inputs, random_inputs(program, 1).transpose(0, 3, 2, 1))
    result = python(MEASURED, tmp_path, env=_environment())
    assert "RESULT" in result.stdout, result.stderr
    needs, taken = json.loads(result.stdout.partition("RESULT")[2].splitlines()[0])
    assert taken["open_files"] <= needs["open_files"] < 1.2 * taken["open_files"] + 16
    assert 0.9 * needs["threads"] <= taken["threads"] <= 1.1 * needs["threads"] + 4
    assert needs["memory"] < taken["memory"] < 3 * needs["memory"]
    assert needs["address_space"] <= taken["address_space"] < 1.2 * needs["address_space"] + 4e7


WITHOUT_DESCRIPTORS = """
import os, resource, sys
from pathlib import Path
from exports.lava.job import Job
from exports.lava.worker import Reporter

report = Reporter(Job.load(Path(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open(os.devnull, os.O_RDONLY)
except OSError as error:
    report(error)
"""


def test_a_failure_is_reported_without_a_descriptor_left(tmp_path):
    job = Job(str(tmp_path), "full", 1, 60.0, Plan("digest", STOCK, (), 1))
    job.save()
    assert python(WITHOUT_DESCRIPTORS, tmp_path).stderr == ""
    (report,) = job.errors()
    error = Failure.from_json(report.read_text()).error()
    assert "Too many open files" in error.found
    assert "ulimit -Hn" in error.remedy


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("OSError: [Errno 24] Too many open files", "ulimit -Hn"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "ulimit -u"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("OSError: [Errno 12] Cannot allocate memory", "free some memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable", "free some memory"),
        ("Lava process 7 ended by signal 9 before the run was over", "free some memory"),
        ("Lava process 7 ended by signal 7 before the run was over", "shared memory"),
        ("OSError: [Errno 28] No space left on device: '/tmp/x'", "TMPDIR"),
        ('File "/lib/multiprocessing/synchronize.py"\n No space left on device', "shared memory"),
    ],
)
def test_each_limit_has_its_remedy(text, word):
    assert word in remedy_for(text)
    assert remedy_for("ValueError: 3") is None


REMEDIES = """
import resource, sys
from exports.lava.resources import remedy_for
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
print(remedy_for("RuntimeError: can't start new thread"))
print(remedy_for("OSError: [Errno 12] Cannot allocate memory"))
"""


def test_a_limit_of_address_space_may_be_why():
    threads, memory = python(REMEDIES).stdout.splitlines()
    assert "(ulimit -u and ulimit -v)" in threads
    assert "(ulimit -v)" in memory
    assert "free some memory" not in memory


@pytest.mark.parametrize("models", [STOCK, LavaModels.fast(batch=1)], ids=["stock", "fast"])
def test_names_are_nobodys_but_the_users(models):
    """Layers called like arguments and parts of the code, and several runs that are joined."""
    names = ["file", "allow_pickle", "process_0", "v"]
    named = random_program(3, hidden=(5, 6), schedule=Schedule(3))
    renamed = dict(zip((p.name for p in named.populations), names, strict=True))
    populations = tuple(
        replace(
            p,
            name=renamed[p.name],
            synapses=tuple(replace(s, source=renamed.get(s.source, s.source)) for s in p.synapses),
        )
        for p in named.populations
    )
    named = replace(named, populations=populations)
    inputs = random_inputs(named, CHUNK_SAMPLES + 1)
    found = run_on_lava(named, inputs, models=models, mode=Mode.DIGEST, time_limit=100)
    assert compare(simulate(named, inputs, mode=Mode.DIGEST), found).equal


def test_a_missing_report_tells_the_last_line():
    text = "status 1: Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"
    error = Failure.of_text("the Lava run ended early", text).error()
    assert error.found == "KeyError: 'x'"
    assert "Traceback" not in str(error)
