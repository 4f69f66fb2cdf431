"""FORMAT.md says all: an interpreter written from it alone hashes, digests and replays files."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exports.netx import write_net
from exports.netx.replays import add_replay
from tests.command_line import ROOT
from tests.networks import branched_program, random_inputs, random_program, renamed
from tests.oracles import net_file
from toolchain.learning.data.dataset import Dataset
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import Readout
from toolchain.recording import Mode
from toolchain.recording.replay import Replay
from toolchain.simulator.reference import simulate

PACK = ROOT / "tests/conformance/pack"
NAMES = sorted(path.stem for path in PACK.glob("*.net"))
ALLOWED = {"dataclasses", "hashlib", "h5py", "json", "numpy", "xxhash"}


def frozen(name):
    """The network, its inputs, and the arrays of its recording as they lie in the file."""
    inputs = np.load(PACK / f"{name}-inputs.npy")
    return net_file.read(PACK / f"{name}.net"), inputs, np.load(PACK / f"{name}.npz")


def agrees(net, inputs, recording):
    """Whether a run gives every digest of the recording, of whichever version."""
    meta = json.loads(str(recording["meta"]))
    digests, _ = net_file.run(net, inputs, meta["recording_version"])
    return all(np.array_equal(d, recording[f"digest/{name}"]) for name, d in digests.items())


def test_the_interpreter_stands_alone():
    tree = ast.parse(Path(net_file.__file__).read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {getattr(n, "module", None) or n.names[0].name for n in imports}
    assert names == ALLOWED


@pytest.mark.parametrize("name", NAMES)
def test_hash_digests_and_outputs_of_the_pack(name):
    net, inputs, recording = frozen(name)
    assert net_file.program_hash(net) == net.stated_hash
    digests, outputs = net_file.run(net, inputs)
    stored = {key for key in recording.files if key.startswith("digest/")}
    assert stored == {f"digest/{layer}" for layer in digests}
    assert agrees(net, inputs, recording)
    for layer, output in outputs.items():
        key = "logits" if "logits" in recording.files else f"output/{layer}"
        assert np.array_equal(recording[key], output)


def awkward_program(kind="if"):
    """Names that need escapes and ours, floats with exponents, exponents, several synapses."""
    program = branched_program(
        3, kind, ("residual", "max", "sum"), schedule=Schedule(3, 2), heads=1
    )
    quantizer = InputQuantizer((2, 6, 5), 1e-5, 5, True, (0.1, 1e16), (1.0, 2.5e-7))
    populations = [
        replace(p, neuron=Readout(1 / 3 * 1e-7)) if isinstance(p.neuron, Readout) else p
        for p in program.populations
    ]
    names = ["logits", "labels", 'a"\\b', "total", "ä\x7f", "😀\t", "\x01", "meta", "x.npy", "x"]
    program = replace(program, input=quantizer, populations=tuple(populations))
    return renamed(program, names)


@pytest.mark.parametrize("kind", ["if", "cif", "graded"])
def test_files_made_today(kind, tmp_path):
    """What the frozen files lack: escapes, floats of every form, replays with several outputs."""
    program = replace(awkward_program(kind), provenance={"ü\\": [0.1, None, {"b": "\t😀"}]})
    write_net(program, tmp_path / "a.net")
    net = net_file.read(tmp_path / "a.net")
    assert net_file.program_hash(net) == net.stated_hash == program.hash
    before, stated = net_file.text_hash(tmp_path / "a.net")
    assert before == stated
    inputs = random_inputs(program, 3)
    samples = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = Dataset("d", samples, 255, np.arange(3), ("a", "b", "c"))
    recording = simulate(program, inputs, mode=Mode.DIGEST)
    add_replay(tmp_path / "a.net", Replay.of(recording, data.name, data.sha256))
    (kept,) = net_file.replays_in(tmp_path / "a.net")
    assert (kept["digests"], kept["outputs"]) == net_file.replay(net, inputs)
    assert kept["version"] == 3
    assert kept["data_sha256"] == net_file.data_sha256(data.samples, data.labels)
    assert kept["program_hash"] == net.stated_hash
    assert kept["samples"] == 3
    after, stated = net_file.text_hash(tmp_path / "a.net")
    assert after == stated != before


def test_a_classifier_has_logits(tmp_path):
    program = random_program(4)
    write_net(program, tmp_path / "a.net")
    inputs = random_inputs(program, 2)
    found = Replay.of(simulate(program, inputs, mode=Mode.DIGEST), "d", "x")
    assert (found.layers, found.outputs) == net_file.replay(
        net_file.read(tmp_path / "a.net"), inputs
    )
    assert list(found.outputs) == ["logits"]


@pytest.mark.parametrize("signed", [False, True])
def test_input_spikes(signed, tmp_path):
    """Ties to the even integer, mean and std by channel, both ends of the range and beyond."""
    quantizer = InputQuantizer((2, 6, 5), 0.25, 4, signed, (0.5, -1.0), (1.0, 2.0))
    program = replace(random_program(5), input=quantizer)
    write_net(program, tmp_path / "a.net")
    net = net_file.read(tmp_path / "a.net")
    levels = random_inputs(program, 20) + np.random.default_rng(0).choice(
        [-0.5, 0, 0.5], (20, 2, 6, 5)
    )
    levels = np.clip(levels, quantizer.range.low - 0.5 * signed, quantizer.range.high + 0.25)
    samples = levels * 0.25 * np.array([1.0, 2.0]).reshape(2, 1, 1)
    samples += np.array([0.5, -1.0]).reshape(2, 1, 1)
    assert np.array_equal(net_file.quantize(net, samples), quantizer.quantize(samples))
    with pytest.raises(ValueError, match="outside"):
        net_file.quantize(net, samples + 4.0)


def one_more(array):
    array.reshape(-1)[0] += 1


STRUCTURE_CHANGES = {
    "window as pool": lambda net: first_pool(net).synapses[0].update(kind="pool"),
    "no bias of a pool": lambda net: first_pool(net).arrays.pop("bias"),
    "bias of a pool by place": lambda net: first_pool(net).arrays.update(
        bias=np.zeros(first_pool(net).shape, np.int64)
    ),
    "a scale of 0": lambda net: setattr(net.layers[0], "scale", 0.0),
    "an integer for a truth value": lambda net: setattr(
        net, "header", {**net.header, "watch_ranges": int(net.header["watch_ranges"])}
    ),
    "order of layers": lambda net: net.layers.reverse(),
    "an exponent": lambda net: net.layers[0].synapses[0].update(weight_exponent=1),
    "a shape": lambda net: setattr(net.layers[-1], "shape", (4, 1)),
    "a weight": lambda net: one_more(net.layers[0].arrays["weight0"]),
    "a start": lambda net: one_more(net.layers[0].arrays["initial_potential"]),
}


def first_pool(net):
    return next(layer for layer in net.layers if layer.neuron == "LIPOOL")


@pytest.mark.parametrize("change", STRUCTURE_CHANGES)
def test_each_rule_of_the_hash_counts(change):
    net, _, _ = frozen("branched-if")
    STRUCTURE_CHANGES[change](net)
    assert net_file.program_hash(net) != net.stated_hash


def with_pools_potential_0(step):
    def changed(self, sent, awake):
        spikes, potential = step(self, sent, awake)
        return spikes, potential * (self.layer.neuron != "LIPOOL")

    return changed


def before_firing(step):
    def changed(self, sent, awake):
        spikes, potential = step(self, sent, awake)
        fires = self.layer.neuron in ("IF", "CIF")
        return spikes, potential + self.theta * spikes if fires else potential

    return changed


def always_awake(step):
    return lambda self, sent, awake: step(self, sent, True)


def shifting_the_bias(step):
    def changed(self, sent, awake):
        largest = max(s.get("weight_exponent", 0) for s in self.layer.synapses)
        kept, self.layer.arrays["bias"] = (
            self.layer.arrays["bias"],
            self.layer.arrays["bias"] << largest,
        )
        try:
            return step(self, sent, awake)
        finally:
            self.layer.arrays["bias"] = kept

    return changed


def unrestrained(step):
    def changed(self, sent, awake):
        self.sent, self.wake_steps = np.ones_like(self.v), 99
        return step(self, sent, awake)

    return changed


STEPS = [with_pools_potential_0, before_firing, always_awake, shifting_the_bias, unrestrained]


@pytest.mark.parametrize("wrong", STEPS)
def test_each_rule_of_a_step_counts(wrong, monkeypatch):
    net, inputs, recording = frozen("branched-cif")
    assert agrees(net, inputs, recording)
    monkeypatch.setattr(net_file.Neurons, "step", wrong(net_file.Neurons.step))
    assert not agrees(net, inputs, recording)


CHAINS = {
    "channels first": lambda chain, values: net_file.chained(chain, np.moveaxis(values, -1, 1)),
    "big-endian": lambda chain, values: net_file.chained(
        chain, values.astype(values.dtype.newbyteorder(">"))
    ),
    "samples reversed": lambda chain, values: net_file.chained(chain, values[::-1]),
    "another start": lambda chain, values: net_file.chained(b"\1" * 16, values),
}


@pytest.mark.parametrize("wrong", CHAINS)
def test_each_rule_of_a_digest_counts(wrong, monkeypatch):
    net, inputs, recording = frozen("branched-if")
    original, changed = net_file.chained, CHAINS[wrong]

    def chained(chain, values):
        monkeypatch.setattr(net_file, "chained", original)
        try:
            return changed(chain, values)
        finally:
            monkeypatch.setattr(net_file, "chained", chained)

    monkeypatch.setattr(net_file, "chained", chained)
    assert not agrees(net, inputs, recording)
