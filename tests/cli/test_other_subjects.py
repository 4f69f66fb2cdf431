"""A run of another configuration is not replaced, and a recording of another program not unsaid."""

import numpy as np
import pytest
from typer.testing import CliRunner

from exports.netx import read_net, write_net
from tests.checkpoints import CONFIG, DETECTOR, classifier, detector
from tests.networks import random_inputs, random_program
from toolchain.cli.app import app
from toolchain.errors import CheckpointError, RecordingError
from toolchain.learning.training.run_folder import open_run_folder
from toolchain.program.int_program import Schedule
from toolchain.recording import Recording
from toolchain.recording.parts import Parts

DATA = "--data npz:data.npz@test"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two networks of one input, and their data."""
    for name in ("one", "two"):
        program = random_program(ord(name[0]), "if", schedule=Schedule(1))
        write_net(program, tmp_path / f"{name}.net")
    samples = random_inputs(program, 2).astype(np.float32)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=[0, 1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(command):
    return CliRunner().invoke(app, command.split())


def warned(command, caplog):
    """What the command warns of before it replaces something."""
    caplog.clear()
    result = called(command)
    assert result.exit_code == 0, result.output
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_a_recording_of_another_program(folder, caplog):
    for _ in range(2):
        assert warned(f"run one.net {DATA} -o x.npz", caplog) == []
    old = read_net(folder / "one.net").hash[:16]
    told = f"x.npz: a recording of another program ({old}) is replaced"
    assert warned(f"run two.net {DATA} -o x.npz", caplog) == [told]
    assert Recording.load(folder / "x.npz").meta["program_hash"] == read_net("two.net").hash
    assert warned(f"run two.net {DATA} -o x.npz", caplog) == []


def test_a_recording_of_an_unknown_program(folder, caplog):
    with (folder / "x.npz").open("wb") as file:
        np.savez(file, meta=np.array("{}"))
    (told,) = warned(f"run one.net {DATA} -o x.npz", caplog)
    assert told == "x.npz: a recording of another program (unknown) is replaced"
    (folder / "x.npz").write_bytes(b"")
    assert warned(f"run one.net {DATA} -o x.npz", caplog) == []


@pytest.mark.parametrize(
    ("make", "command", "message"),
    [
        (classifier, "train --data digits --model mlp --seed 1", "(?s)other settings.*seed=0"),
        (classifier, "detector train --data shapes", "a run of another kind"),
        (detector, "train --data digits", "a run of another kind"),
        (detector, "detector train --data shapes --seed 1", "(?s)other settings.*seed=0"),
    ],
)
def test_of_another_configuration(tmp_path, monkeypatch, make, command, message):
    """A finished run's folder without the state that it could go on from."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    error = called(f"{command} --out .").exception
    with pytest.raises(CheckpointError, match=message):
        raise error
    assert error.exit_code == 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    open_run_folder(tmp_path, CONFIG if make is classifier else DETECTOR)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged, and not replaced"):
        open_run_folder(tmp_path, CONFIG)


def test_finished_samples_of_another_program(tmp_path):
    parts = Parts(tmp_path / "x.parts", {"program": "one", "mode": "full"}, resume=False)
    parts.save(0, {})
    with pytest.raises(RecordingError, match="another program lie there"):
        Parts(tmp_path / "x.parts", {"program": "two", "mode": "full"}, resume=False)
    assert parts.load(0) == {}
    Parts(tmp_path / "x.parts", {"program": "one", "mode": "counts"}, resume=False)
    assert not (tmp_path / "x.parts").exists()
