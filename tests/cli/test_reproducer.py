"""Reproducers of mismatches: made from real runs of a Lava model that is made to err."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava
from exports.netx import read_net, write_net
from spikeport.backends import Lava
from spikeport.reproducer import locate, write_reproducer
from tests.command_line import ROOT, fails, spikeport
from tests.networks import branched_program, random_inputs, random_program
from toolchain.errors import RecordingError
from toolchain.program.int_program import Schedule
from toolchain.program.prefix import prefix
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate

FAULT = """
import sys
from importlib.machinery import PathFinder

def patch(stages):
    # One neuron of conv1 starts one unit too low.
    honest = stages._IntegrateAndFireStage.start
    def start(self):
        honest(self)
        if self.population.name == "conv1":
            self.v.reshape(-1)[3] -= 1
    stages._IntegrateAndFireStage.start = start

class Fault:
    @staticmethod
    def find_spec(name, path, target=None):
        if name != "hw_models.fast.stages":
            return None
        spec = PathFinder.find_spec(name, path)
        honest = spec.loader.exec_module
        def exec_module(module):
            honest(module)
            patch(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Fault)
"""


@pytest.fixture(scope="module")
def program():
    convs = ((4, 3, 1, 1, 1, 1), (3, 3, 1, 1, 1, 1))
    return random_program(11, convs=convs, shape=(2, 6, 5), schedule=Schedule(4))


def test_a_prefix_computes_the_same_layer(program):
    inputs = random_inputs(program, 3)
    whole = simulate(program, inputs)
    small = prefix(program, "conv1", 5)
    assert [p.name for p in small.populations] == ["conv0", "conv1", "readout"]
    found = simulate(small, inputs)
    for layer in ("conv0", "conv1"):
        assert np.array_equal(found.membrane[layer], whole.membrane[layer])
    assert np.array_equal(found.logits[:, 0], whole.counts["conv1"].reshape(3, -1)[:, 5])


def test_a_prefix_leaves_out_other_branches():
    program = branched_program(3, blocks=["concat", "max"])
    small = prefix(program, "concat0s")
    assert [p.name for p in small.populations] == ["stem", "concat0s", "readout"]
    whole = prefix(program, "readout")
    assert [p.name for p in whole.populations] == [p.name for p in program.populations]
    with pytest.raises(KeyError):
        prefix(program, "nowhere")


@pytest.fixture
def erring(tmp_path):
    """An environment in which the fast Lava models err."""
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


def run_both(folder, program, env, mode="full"):
    """Recordings of the honest reference and the erring Lava models, by the command line."""
    write_net(program, folder / "net.net")
    samples = random_inputs(program, 9, 4).astype(np.float32)
    np.savez(folder / "data.npz", test_samples=samples, test_labels=np.zeros(9, int))
    common = ["--data", f"npz:{folder / 'data.npz'}@test", "--record", mode]
    fast = ["--backend", "lava", "--models", "fast", "--batch", "4"]
    for out, options in (("a.npz", []), ("b.npz", fast)):
        result = spikeport("run", "net.net", *common, *options, "-o", out, cwd=folder, env=env)
        assert result.returncode == 0, result.stderr


def replay(script, env):
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **env},
    )


@pytest.mark.parametrize("mode", ["full", "digest"])
def test_a_mismatch_becomes_a_script_that_shows_it(program, tmp_path, erring, mode):
    run_both(tmp_path, program, erring, mode)
    arguments = ["compare", "a.npz", "b.npz", "--net", "net.net", "--reproduce", "small"]
    shown = spikeport(*arguments, "--json", cwd=tmp_path, env=erring)
    assert shown.returncode == 1, shown.stderr
    answer = json.loads(shown.stdout)
    assert answer["first"]["layer"] == "conv1"
    small = read_net(tmp_path / "small" / "net.net")
    assert [p.name for p in small.populations] == ["conv0", "conv1", "readout"]
    assert np.load(tmp_path / "small" / "sample.npy").shape == (1, 2, 6, 5)
    again = replay(tmp_path / answer["reproducer"], erring)
    assert again.returncode == 1, again.stderr
    assert "first divergence: layer conv1, membrane, step 1, sample 0" in again.stdout
    # Without the error the same script finds nothing.
    honest = replay(tmp_path / answer["reproducer"], {"PYTHONPATH": str(ROOT)})
    assert honest.returncode == 0, honest.stderr
    assert "0 mismatches" in honest.stdout


def test_the_first_sample_that_differs_is_found(program, monkeypatch):
    inputs = random_inputs(program, 40)
    honest = simulate(program, inputs, mode=Mode.DIGEST)

    def run(self, small, chunk):
        recording = simulate(small, chunk)
        if np.array_equal(chunk[-1], inputs[31]):
            membrane = {k: v.copy() for k, v in recording.membrane.items()}
            membrane["conv0"][2, 5, 1, 2, 3] += 1
            recording = replace(recording, membrane=membrane)
        return recording

    monkeypatch.setattr(Lava, "run", run)
    digests = {k: v.copy() for k, v in honest.digests.items()}
    digests["conv0"][2, 1, 0] ^= 1
    erring = replace(honest, digests=digests, meta={**honest.meta, "backend": "lava"})
    first = compare(honest, erring).first
    assert first.sample is None
    found = locate(program, inputs, first, (honest.meta, erring.meta))
    assert (found.sample, found.neuron, found.step) == (21, (1, 2, 3), 3)


def test_what_does_not_recur_is_said(program, tmp_path):
    inputs = random_inputs(program, 3)
    recording = simulate(program, inputs, mode=Mode.DIGEST)
    digests = {k: v.copy() for k, v in recording.digests.items()}
    digests["conv0"][0, 0, 0] ^= 1
    first = compare(recording, replace(recording, digests=digests)).first
    runs = (recording.meta, recording.meta)
    with pytest.raises(RecordingError, match="does not recur"):
        locate(program, inputs, first, runs)
    with pytest.raises(RecordingError, match="no reproducer"):
        write_reproducer(program, inputs, first, runs, tmp_path)


def test_lava_recordings_name_their_models(program):
    recording = run_on_lava(
        program, random_inputs(program, 2), models=LavaModels.fast(batch=2), time_limit=120
    )
    assert recording.meta["models"] == asdict(LavaModels.fast(batch=2))


def test_wrong_use(work):
    fails(
        2, "--reproduce, --net and --data go together", "compare", "a", "b", "--net", "n", cwd=work
    )
