"""A run on Lava that is killed and taken up again ends in the same recording, byte by byte."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava, runner
from exports.netx import write_net
from tests.command_line import ROOT, fails, ok
from tests.networks import random_inputs, random_program
from toolchain.errors import BackendRunError, RecordingError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, Recording, compare
from toolchain.simulator.reference import simulate

SMALL_CHUNKS = """
import sys
import exports.lava.runner as runner
runner.CHUNK_SAMPLES = 4
from toolchain.cli.app import main
sys.argv[0] = "spikeport"
main()
"""
DATA = ["run", "net.net", "--data", "npz:data.npz@test"]
RUN = [*DATA, "--backend", "lava", "--models", "fast", "--batch", "2"]


def start(folder, *more):
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", SMALL_CHUNKS, *RUN, *more],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )


@pytest.fixture
def program():
    return random_program(8, "cif", convs=((4, 3, 1, 1, 1, 1),), schedule=Schedule(3, 3))


@pytest.fixture
def folder(program, tmp_path):
    write_net(program, tmp_path / "net.net")
    samples = random_inputs(program, 18, 2).astype(np.float32)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=np.zeros(18, int))
    return tmp_path


@pytest.mark.parametrize("mode", [m.value for m in Mode])
def test_killed_and_taken_up(folder, program, mode):
    log = folder / "log.txt"
    whole = start(folder, "--record", mode, "-o", "whole.npz")
    assert whole.wait(120) == 0, log.read_text()
    killed = start(folder, "--record", mode, "-o", "part.npz")
    deadline = time.monotonic() + 60
    while not (folder / "part.npz.parts" / "1.npz").is_file():
        assert killed.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (folder / "part.npz").exists()
    before = list((folder / "part.npz.parts").glob("[01].npz"))
    again = start(folder, "--record", mode, "-o", "part.npz", "--resume")
    assert again.wait(120) == 0, log.read_text()
    assert len(before) == 2
    assert not (folder / "part.npz.parts").exists()
    assert (folder / "part.npz").read_bytes() == (folder / "whole.npz").read_bytes()
    samples = np.load(folder / "data.npz")["test_samples"].astype(np.int32)
    expected = simulate(program, samples, mode=Mode(mode), labels=np.zeros(18, int))
    assert compare(expected, Recording.load(folder / "part.npz")).equal


def test_finished_chunks_are_not_run_again(program, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 2)
    inputs = random_inputs(program, 6)
    ran = []
    honest = runner._run_chunk

    def failing(program, chunk, *rest):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(len(chunk))
        return honest(program, chunk, *rest)

    monkeypatch.setattr(runner, "_run_chunk", failing)
    how = {"parts": tmp_path / "parts", "mode": Mode.DIGEST, "models": LavaModels.fast(batch=2)}
    with pytest.raises(KeyboardInterrupt):
        run_on_lava(program, inputs, **how)
    ran.clear()
    recording = run_on_lava(program, inputs, resume=True, **how)
    assert ran == [2]
    assert compare(simulate(program, inputs, mode=Mode.DIGEST), recording).equal


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": Mode.COUNTS}, "mode"),
        ({"models": LavaModels.fast(batch=1)}, "models"),
        ({"inputs": 1}, "inputs"),
    ],
)
def test_parts_of_another_run_are_refused(program, tmp_path, change, named):
    inputs = random_inputs(program, 2)
    how = {"parts": tmp_path / "parts", "mode": Mode.DIGEST, "models": LavaModels.fast(batch=2)}
    run_on_lava(program, inputs, **how)
    if "inputs" in change:
        change, inputs = {}, random_inputs(program, 2, 9)
    with pytest.raises(RecordingError, match="parts are of another run") as error:
        run_on_lava(program, inputs, resume=True, **{**how, **change})
    assert named in str(error.value)


def test_damaged_parts_are_refused(program, tmp_path):
    inputs, parts = random_inputs(program, 2), tmp_path / "parts"
    run_on_lava(program, inputs, parts=parts)
    (parts / "0.npz").write_bytes(b"nothing")
    with pytest.raises(RecordingError, match="a part is damaged"):
        run_on_lava(program, inputs, parts=parts, resume=True)
    (parts / "run.json").write_text("{")
    with pytest.raises(RecordingError, match="not the parts of a run"):
        run_on_lava(program, inputs, parts=parts, resume=True)


def test_a_run_that_finished_nothing_leaves_nothing(program, tmp_path):
    with pytest.raises(BackendRunError, match="did not end"):
        run_on_lava(program, random_inputs(program, 2), parts=tmp_path / "parts", time_limit=0.1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "parts").mkdir()
    recording = run_on_lava(
        program, random_inputs(program, 2), parts=tmp_path / "parts", resume=True
    )
    assert len(recording.logits) == 2


def test_a_folder_with_other_things_is_left_alone(program, tmp_path):
    mine = tmp_path / "parts" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    with pytest.raises(RecordingError, match="not the parts of a run"):
        run_on_lava(program, random_inputs(program, 2), parts=mine.parent)
    assert mine.read_text() == "keep"


def test_resume_without_parts_is_a_run(folder):
    ok(*RUN, "-o", "r.npz", "--resume", cwd=folder)
    fails(
        2,
        "--resume says nothing to the backend reference",
        *DATA,
        *["-o", "r.npz", "--resume"],
        cwd=folder,
    )
