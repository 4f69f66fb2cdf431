"""A result of another program, checkpoint or configuration is not replaced; one of the same is."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from exports.netx import write_net
from tests.networks import random_inputs, random_program
from tests.test_reader_fuzz import CONFIG, DETECTOR, classifier, detector
from tests.voc_files import write_voc
from toolchain.cli.app import app
from toolchain.detection.checkpoint import load_detector
from toolchain.errors import CheckpointError, OutputError, RecordingError
from toolchain.program.int_program import Schedule
from toolchain.recording.parts import Parts
from toolchain.training.checkpoint import load_checkpoint
from toolchain.training.run_folder import open_run_folder

DATA = "--data npz:data.npz@test"
AUDIT = f"{DATA} --lava 0 --budget-samples 1"


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


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (f"run {{}}.net {DATA} -o x.npz", "x.npz"),
        (f"audit {{}}.net {AUDIT} -o x.json", "x.json"),
        (f"audit {{}}.net {AUDIT} --html x.html", "x.html"),
    ],
)
def test_of_another_program(folder, command, out):
    passes(command.format("one"))
    passes(command.format("one"))
    refused(command.format("two"), folder / out, "of another program stands there")
    (folder / out).unlink()
    passes(command.format("two"))


def test_of_an_unknown_program(folder):
    with (folder / "x.npz").open("wb") as file:
        np.savez(file, meta=np.array("{}"))
    (folder / "x.json").write_text('{"audit_version": 1}')
    (folder / "x.html").write_text("<!doctype html><title>somebody's</title>")
    refused(f"run one.net {DATA} -o x.npz", folder / "x.npz", "of an unknown program")
    refused(f"audit one.net {AUDIT} -o x.json", folder / "x.json", "of an unknown program")
    refused(f"audit one.net {AUDIT} --html x.html", folder / "x.html", "of an unknown program")
    (folder / "x.npz").write_bytes(b"")
    passes(f"run one.net {DATA} -o x.npz")


@pytest.mark.parametrize(
    ("make", "command", "document", "version"),
    [
        (classifier, "evaluate . --data digits@test[:4]", "evaluation.json", "evaluation_version"),
        (detector, "detector evaluate . --data voc:set", "detection.json", "detection_version"),
    ],
)
def test_of_another_checkpoint(tmp_path, monkeypatch, make, command, document, version):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    write_voc(tmp_path / "set", {"test": 1})
    command = f"{command} --steps 1"
    load = load_checkpoint if make is classifier else load_detector
    other, own = (
        {version: 1, "run": {"checkpoint_sha256": sha}}
        for sha in ("0" * 64, load(tmp_path).tensors_sha256)
    )
    out = tmp_path / "x.json"
    out.write_text(json.dumps(other))
    refused(f"{command} -o x.json", out, "of another checkpoint stands there")
    out.write_text(json.dumps({version: 1}))
    refused(f"{command} -o x.json", out, "of an unknown checkpoint stands there")
    out.write_text(json.dumps(own))
    passes(f"{command} -o x.json")
    # A run's own evaluation is of whatever the run has become.
    (tmp_path / document).write_text(json.dumps(other))
    passes(command)
    assert (tmp_path / document).read_bytes() != json.dumps(other).encode()


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
