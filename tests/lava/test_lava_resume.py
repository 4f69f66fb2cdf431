"""A run on Lava that is killed and taken up again ends in the same recording, byte by byte."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava, runner
from exports.netx import write_net
from tests.command_line import ROOT, fails, ok
from tests.networks import random_inputs, random_program
from toolchain.errors import BackendRunError, RecordingError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse
from toolchain.recording import Mode, Recording, compare
from toolchain.simulator.reference import simulate

SMALL_CHUNKS = """
import os, signal, sys
import exports.lava.runner as runner
from toolchain.recording.parts import Parts

runner.CHUNK_SAMPLES = 4
save, killed_after = Parts.save, int(sys.argv.pop(1))

def save_and_die(parts, chunk, records):
    save(parts, chunk, records)
    if chunk + 1 == killed_after:
        os.kill(os.getpid(), signal.SIGKILL)

Parts.save = save_and_die
from toolchain.cli.app import main
sys.argv[0] = "spikeport"
main()
"""
DATA = ["run", "net.net", "--data", "npz:data.npz@test"]
RUN = [*DATA, "--backend", "lava", "--models", "fast", "--batch", "2"]


def status(folder, *more, killed_after=0):
    """Exit status of a run that is killed when it has stored a number of chunks."""
    with (folder / "log.txt").open("ab") as log:
        return subprocess.run(
            [sys.executable, "-c", SMALL_CHUNKS, str(killed_after), *RUN, *more],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            timeout=120,
            check=False,
        ).returncode


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
    assert status(folder, "--record", mode, "-o", "whole.npz") == 0, log.read_text()
    how = ["--record", mode, "-o", "part.npz"]
    assert status(folder, *how, killed_after=2) == -signal.SIGKILL, log.read_text()
    assert not (folder / "part.npz").exists()
    assert {p.name for p in (folder / "part.npz.parts").iterdir()} == {"run.json", "0.npz", "1.npz"}
    assert status(folder, *how, "--resume") == 0, log.read_text()
    assert not (folder / "part.npz.parts").exists()
    assert (folder / "part.npz").read_bytes() == (folder / "whole.npz").read_bytes()
    samples = np.load(folder / "data.npz")["test_samples"].astype(np.int32)
    expected = simulate(program, samples, mode=Mode(mode), labels=np.zeros(18, int))
    assert compare(expected, Recording.load(folder / "part.npz")).equal


def test_finished_chunks_are_not_run_again(program, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 2)
    inputs = random_inputs(program, 9)
    ran = []
    honest = runner._run

    def failing(program, samples, *rest):
        ran.append(len(samples))
        for number, records in enumerate(honest(program, samples, *rest)):
            if number == 2:
                raise KeyboardInterrupt
            yield records

    monkeypatch.setattr(runner, "_run", failing)
    how = {"parts": tmp_path / "parts", "mode": Mode.DIGEST, "models": LavaModels.fast(batch=2)}
    with pytest.raises(KeyboardInterrupt):
        run_on_lava(program, inputs, **how)
    assert ran == [9]
    assert {p.name for p in (tmp_path / "parts").iterdir()} == {"run.json", "0.npz", "1.npz"}
    # One in the middle is there as well, so that two interpreters are needed.
    monkeypatch.setattr(runner, "_run", honest)
    other = run_on_lava(program, inputs, **{**how, "parts": tmp_path / "whole"})
    (tmp_path / "whole" / "3.npz").rename(tmp_path / "parts" / "3.npz")
    ran.clear()

    def counting(program, samples, *rest):
        ran.append(len(samples))
        return honest(program, samples, *rest)

    monkeypatch.setattr(runner, "_run", counting)
    recording = run_on_lava(program, inputs, resume=True, **how)
    assert ran == [2, 1]
    assert compare(other, recording).equal
    assert compare(simulate(program, inputs, mode=Mode.DIGEST), recording).equal


def test_a_model_that_fails_leaves_the_chunks_before(tmp_path, monkeypatch):
    """The potential of a cell leaves 16 bits in the seventh sample: 2 * 25500 >= 2^15."""
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 2)
    dense = DenseSynapse("input", [[100]])
    cell = Population("cell", (1,), (dense,), [0], IntegrateAndFire([32000], [0]))
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    program = IntProgram(
        "hot", InputQuantizer((1,), 1.0), (cell, readout), Schedule(4), state_bits=16
    )
    inputs = np.array([[1], [2], [3], [4], [5], [6], [255], [7]])
    how = {"models": LavaModels.fast(batch=1), "parts": tmp_path / "parts", "time_limit": 120}
    with pytest.raises(BackendRunError, match="left its range"):
        run_on_lava(program, inputs, **how)
    found = {path.name for path in (tmp_path / "parts").iterdir()}
    assert found == {"run.json", "0.npz", "1.npz", "2.npz"}


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
