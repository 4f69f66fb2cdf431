"""verify: manifests, runs kept in a file, and what it says when something is not as it was."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

import spikeport as library
from exports.netx import read_net, write_net
from exports.netx.lint import lint_file
from exports.netx.replays import add_replay, read_replays
from spikeport import verifying
from tests.command_line import FACTORIES, fails, ok, spikeport
from tests.networks import random_inputs, random_program
from tests.oracles import net_file
from toolchain.errors import FormatError, RecordingError
from toolchain.learning.data.dataset import Dataset
from toolchain.recording import Mode
from toolchain.recording.replay import Replay
from toolchain.simulator.reference import simulate


def replay_of(program, inputs, data="d"):
    return Replay.of(simulate(program, inputs, mode=Mode.DIGEST), data, data * 8)


def test_one_spike_more_is_told_apart():
    program = random_program(1)
    inputs = random_inputs(program, 3)
    recording = simulate(program, inputs, mode=Mode.DIGEST)
    first = Replay.of(recording, "d", "x")
    assert list(first.layers) == list(recording.digests)
    assert list(first.outputs) == ["logits"]
    assert first.differences(Replay.of(recording, "other name", "x")) == []
    recording.digests["dense0"][2, 0, 5] ^= 1
    assert first.differences(Replay.of(recording, "d", "x")) == ["dense0"]
    recording.logits[1, 0] += 1
    assert first.differences(Replay.of(recording, "d", "x")) == ["dense0", "output/logits"]
    with pytest.raises(RecordingError):
        Replay.of(simulate(program, inputs, mode=Mode.COUNTS), "d", "x")


def test_replays_are_kept_beside_the_program(tmp_path):
    program = random_program(1)
    path = tmp_path / "a.net"
    write_net(program, path)
    assert read_replays(path) == []
    one = replay_of(program, random_inputs(program, 2), "a")
    other = replay_of(program, random_inputs(program, 3), "b")
    add_replay(path, one)
    add_replay(path, other)
    assert read_replays(path) == [one, other]
    again = replay_of(program, random_inputs(program, 2, seed=5), "a")
    add_replay(path, again)
    assert read_replays(path) == [other, again]
    assert read_net(path).hash == program.hash
    assert lint_file(path).found == []
    with h5py.File(path, "r+") as file:
        del file["spikeport/replays"]
        file["spikeport/replays"] = json.dumps({"runs": [{"data": "a"}]})
    with pytest.raises(FormatError, match="changed since it was written"):
        read_replays(path)
    net_file.write_text_hash(path)
    with pytest.raises(FormatError, match="does not describe replays"):
        read_replays(path)


def test_data_are_told_apart_by_what_they_hold():
    samples, labels = np.zeros((3, 2), np.uint8), np.arange(3)
    names = ("a", "b", "c")
    data = Dataset("d", samples, 255, labels, names)
    assert data.sha256 == Dataset("renamed", samples.copy(), 255, labels, names).sha256
    others = [
        Dataset("d", samples + np.uint8(1), 255, labels, names),
        Dataset("d", samples, 255, labels[::-1].copy(), names),
        Dataset("d", samples.astype(np.float32), None, labels, names),
        Dataset("d", samples.reshape(3, 2, 1, 1), 255, labels, names),
    ]
    assert len({data.sha256, *(d.sha256 for d in others)}) == 5


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 28])
def test_runs_kept_by_older_versions(tmp_path, monkeypatch, chunk_bytes):
    """Their hashes are of chains, which runs of a few samples in full give again."""
    monkeypatch.setattr(verifying, "FULL_BYTES", chunk_bytes)
    program = random_program(1)
    write_net(program, tmp_path / "a.net")
    samples = random_inputs(program, 5) * program.input.scale
    data = Dataset("d", samples, None, np.arange(5) % 3, ("a", "b", "c"))
    net = net_file.read(tmp_path / "a.net")
    layers, outputs = net_file.replay(net, program.input.quantize(samples), 2)
    kept = Replay("d", data.sha256, 5, program.hash, layers, outputs, 2)
    add_replay(tmp_path / "a.net", kept)
    assert set(net_file.replays_in(tmp_path / "a.net")[0]) == {
        *("data", "data_sha256", "samples", "program_hash", "layers", "outputs")
    }
    assert library.verify(tmp_path / "a.net", data).verified
    first, *_ = layers
    add_replay(tmp_path / "a.net", replace(kept, layers={**layers, first: "0" * 64}))
    assert library.verify(tmp_path / "a.net", data).differences == (first,)
    with pytest.raises(RecordingError, match="its version differ"):
        Replay.of(simulate(program, random_inputs(program, 5)), "d", "x").differences(kept)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    (folder / "nets.py").write_text(FACTORIES)
    ok("convert", "nets.py:good", "--input-shape", "1,8,8", "-o", "a.net", cwd=folder)
    return folder


def test_the_command(folder):
    shown = ok("verify", "a.net", cwd=folder).stdout
    assert "spikeport convert nets.py:good --input-shape 1,8,8 -o a.net" in shown
    assert "proved for every input" in shown
    verify = ("verify", "a.net", "--data", "digits@test[:30]")
    fails(2, "no run of these data is kept", *verify, cwd=folder)
    ok(*verify, "--record", cwd=folder)
    assert "as it was" in ok(*verify, cwd=folder).stdout
    fails(2, "no run of these data", *verify[:3], "digits@test[:31]", cwd=folder)
    fails(2, "need --data", "verify", "a.net", "--record", cwd=folder)
    calibrated = ("--calibrate", "digits@train[:40]", "--neuron", "cif", "-o", "c.net")
    ok("convert", "nets.py:good", "--input-shape", "1,8,8", *calibrated, cwd=folder)
    integers = read_net(folder / "c.net").provenance["integers"]
    assert len(integers["calibration_sha256"]) == 64
    assert integers["calibration_sha256"][:50] in ok("verify", "c.net", cwd=folder).stdout
    report = json.loads(ok(*verify, "--backend", "lava", "--json", cwd=folder).stdout)
    assert report["verified"]
    assert report["differences"] == []
    assert report["manifest"]["versions"]["numpy"] == np.__version__


def test_what_is_not_as_it_was(folder):
    """A run that another network made is found out, with the first layer that differs."""
    program = read_net(folder / "a.net")
    write_net(program, folder / "b.net")
    ok("verify", "b.net", "--data", "digits@test[:30]", "--record", cwd=folder)
    (kept,) = read_replays(folder / "b.net")
    names = list(kept.layers)
    other = Replay(
        kept.data,
        kept.data_sha256,
        kept.samples,
        kept.program_hash,
        {**kept.layers, names[-1]: "0" * 64},
        kept.outputs,
    )
    add_replay(folder / "b.net", other)
    changed = spikeport("verify", "b.net", "--data", "digits@test[:30]", cwd=folder)
    assert changed.returncode == 1
    assert f"differs: {names[-1]}" in changed.stdout
