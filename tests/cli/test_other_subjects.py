"""A result of another program or configuration is not replaced; one of the same is."""

import numpy as np
import pytest
from typer.testing import CliRunner

from exports.netx import write_net
from tests.checkpoints import CONFIG, DETECTOR, classifier, detector
from tests.networks import random_inputs, random_program
from toolchain.cli.app import app
from toolchain.errors import CheckpointError, OutputError, RecordingError
from toolchain.learning.training.run_folder import open_run_folder
from toolchain.program.int_program import Schedule
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


def refused(command, file, message):
    """The command ends before it begins, and the file stays."""
    before = file.read_bytes()
    error = called(command).exception
    assert isinstance(error, OutputError), error
    assert message in error.message
    assert error.remedy == "give another name, or delete it"
    assert error.exit_code == 2
    assert file.read_bytes() == before


def passes(command):
    result = called(command)
    assert result.exit_code == 0, result.output


def test_a_recording_of_another_program(folder):
    for _ in range(2):
        passes(f"run one.net {DATA} -o x.npz")
    refused(f"run two.net {DATA} -o x.npz", folder / "x.npz", "of another program stands there")
    (folder / "x.npz").unlink()
    passes(f"run two.net {DATA} -o x.npz")


def test_a_recording_of_an_unknown_program(folder):
    with (folder / "x.npz").open("wb") as file:
        np.savez(file, meta=np.array("{}"))
    refused(f"run one.net {DATA} -o x.npz", folder / "x.npz", "of an unknown program")
    (folder / "x.npz").write_bytes(b"")
    passes(f"run one.net {DATA} -o x.npz")


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
