"""Programs with several outputs, images among them, through every backend and file."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exports.lava import STOCK, LavaModels, run_on_lava
from exports.netx import read_net, write_net
from exports.nir import read_nir, write_nir
from hw_models.profile import load_profile
from tests.command_line import ROOT
from tests.comparing import assert_recording_is
from tests.networks import BLOCKS, branched_program, random_inputs
from tests.oracles import closed_form, numpy_loop
from tests.strategies import KINDS
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.engine.simulate import Way, simulate
from toolchain.errors import ProgramError, RecordingError
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import Readout
from toolchain.program.prefix import prefix
from toolchain.program.synapse import ConvSynapse
from toolchain.recording import Mode, Recording
from toolchain.recording.compare import compare
from toolchain.recording.replay import Replay
from toolchain.simulator.quantized_network import quantized_counts

LIMITS = load_profile("loihi2").as_target_limits()
SHAPE = (2, 8, 8)


def heads(seed=0, kind="if", schedule=None, blocks=("residual", "graded"), count=2):
    return branched_program(
        seed, kind, blocks, (2, 6, 5), schedule or Schedule(3), low=-30, high=30, heads=count
    )


@pytest.mark.parametrize("kind", ["if", "cif"])
@pytest.mark.parametrize("way", list(Way))
def test_the_simulator_is_the_plain_loop(kind, way):
    program = heads(1, kind, Schedule(3, 2))
    inputs = random_inputs(program, 3)
    spikes, membrane = numpy_loop.run(program, inputs)
    recording = simulate(program, inputs, way=way)
    assert list(recording.outputs) == ["head0", "head1", "readout"]
    assert recording.outputs["head1"].shape == (3, 3, 6, 5)
    assert_recording_is(recording, spikes, membrane)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=KINDS,
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), max_size=3),
    count=st.integers(0, 3),
    steps=st.tuples(st.integers(1, 5), st.integers(0, 4)),
)
def test_the_engine_is_the_oracle(seed, kind, blocks, count, steps):
    schedule = Schedule(steps[0], steps[1] if kind == "cif" else 0)
    program = branched_program(seed, kind, tuple(blocks), schedule=schedule, heads=count)
    inputs = random_inputs(program, 3, seed)
    outcome = compare(simulate(program, inputs, way=Way.STEPWISE), simulate(program, inputs))
    assert outcome.equal, outcome.first


@pytest.mark.parametrize("seed", range(4))
def test_settled_outputs_are_the_closed_form(seed):
    program = heads(seed, "cif", Schedule(3, 40), ("graded", "max"))
    inputs = random_inputs(program, 3, seed)
    found = simulate(program, inputs)
    assert sum(found.meta["unsettled"].values()) == 0
    _, outputs = quantized_counts(program, inputs)
    for index, sample in enumerate(inputs):
        _, expected = closed_form.counts_and_outputs(program, sample)
        assert set(expected) == set(outputs) == set(found.outputs)
        for name, value in expected.items():
            assert np.array_equal(outputs[name][index], value)
            assert np.array_equal(found.outputs[name][index], value)


@pytest.mark.parametrize("models", [STOCK, LavaModels.fast(2, 2)], ids=["stock", "fast"])
@pytest.mark.parametrize("kind", ["if", "cif"])
def test_lava_gives_the_same_outputs(kind, models):
    program = heads(3, kind, Schedule(3, 2 if kind == "cif" else 0), ("graded", "max"))
    inputs = random_inputs(program, 3)
    found = run_on_lava(program, inputs, models=models)
    spikes, membrane = numpy_loop.run(program, inputs)
    assert_recording_is(found, spikes, membrane)
    assert compare(simulate(program, inputs), found).equal


def test_files_hold_them(tmp_path):
    program = heads()
    write_net(program, tmp_path / "x.net")
    back = read_net(tmp_path / "x.net")
    assert back.hash == program.hash
    assert [p.name for p in back.readouts] == ["head0", "head1", "readout"]


@pytest.mark.parametrize("mode", list(Mode))
def test_recordings_hold_them(tmp_path, mode):
    program = heads()
    recording = simulate(program, random_inputs(program, 3), mode=mode)
    recording.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        assert "logits" not in file.files
        assert file["output/head1"].dtype == np.int64
    back = Recording.load(tmp_path / "x.npz")
    assert compare(recording, back).equal
    assert not back.is_classifier
    with pytest.raises(RecordingError, match=r"(?s)classifiers.*head0 \(2, 6, 5\)"):
        _ = back.predictions


def test_a_vector_alone_is_called_logits(tmp_path):
    program = branched_program(0)
    recording = simulate(program, random_inputs(program, 2))
    recording.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        assert np.array_equal(file["logits"], recording.logits)
        assert not any(name.startswith("output/") for name in file.files)


def test_a_changed_output_is_found():
    program = heads()
    recording = simulate(program, random_inputs(program, 3), mode=Mode.COUNTS)
    other = {name: array.copy() for name, array in recording.outputs.items()}
    other["head1"][2, 1, 4, 3] += 1
    outcome = compare(recording, replace(recording, outputs=other))
    assert outcome.mismatches == {"head1": 1}
    assert outcome.first is not None
    assert (outcome.first.layer, outcome.first.sample, outcome.first.neuron) == (
        "head1",
        2,
        (1, 4, 3),
    )


def test_a_nir_graph_has_an_output_node_for_each(tmp_path):
    import nir

    program = heads(blocks=("residual",), schedule=Schedule(1))
    write_nir(program, tmp_path / "x.nir")
    graph = nir.read(tmp_path / "x.nir")
    ends = {name: node for name, node in graph.nodes.items() if isinstance(node, nir.Output)}
    assert {k: tuple(v.output_type["output"]) for k, v in ends.items()} == {
        p.name: p.shape for p in program.readouts
    }
    for readout in program.readouts:
        feeding = [a for a, b in graph.edges if b == readout.name]
        assert len(feeding) == len(readout.synapses)
    assert read_nir(tmp_path / "x.nir").hash == program.hash


def test_a_replay_names_the_output_that_differs():
    program = heads()
    recording = simulate(program, random_inputs(program, 3), mode=Mode.DIGEST)
    other = {**recording.outputs, "head0": recording.outputs["head0"] + 1}
    first = Replay.of(recording, "noise", "0")
    second = Replay.of(replace(recording, outputs=other), "noise", "0")
    assert first.differences(second) == ["output/head0"]


def test_other_outputs_cannot_be_compared():
    program = heads()
    recording = simulate(program, random_inputs(program, 3))
    fewer = {name: recording.outputs[name] for name in ("head0", "readout")}
    with pytest.raises(RecordingError, match="counts/head1"):
        compare(recording, replace(recording, outputs=fewer))


def test_readouts_come_last_and_are_vectors_or_images():
    quantizer = InputQuantizer((1, 2, 2), 1.0)
    conv = ConvSynapse("input", np.ones((1, 1, 1, 1), int))
    image = Population("a", (1, 2, 2), (conv,), [0], Readout(1.0))
    program = IntProgram("x", quantizer, (image, replace(image, name="b")), Schedule(1))
    with pytest.raises(ProgramError, match=r"(?s)one vector of logits.*a \(1, 2, 2\), b"):
        _ = program.readout
    whole = heads()
    with pytest.raises(ProgramError, match="needs a readout"):
        replace(whole, populations=whole.populations[:2])


def test_a_prefix_ends_in_the_output_asked_for():
    program = heads()
    part = prefix(program, "head0")
    assert [p.name for p in part.populations] == ["stem", "head0"]
    inputs = random_inputs(program, 2)
    whole = simulate(program, inputs).outputs["head0"]
    assert np.array_equal(simulate(part, inputs).outputs["head0"], whole)


def test_a_lava_network_process_has_one_output(tmp_path):
    write_net(heads(), tmp_path / "x.net")
    code = (
        "from hw_models.lava_compat import prepare; prepare();"
        "from exports.network import Network; Network('x.net')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TargetError" in ran.stderr
    assert "cannot send several outputs" in ran.stderr
    assert "run_on_lava" in ran.stderr


class Heads(nn.Module):
    """Two outputs, behind residual sums that have no activation of their own."""

    def __init__(self, make):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.first_act = nn.Conv2d(2, 4, 3, padding=1), make(0)
        self.inner, self.inner_act = nn.Conv2d(4, 4, 3, padding=1), make(1)
        self.again, self.again_act = nn.Conv2d(4, 4, 1), make(2)
        self.a, self.b = nn.Conv2d(4, 3, 1), nn.Linear(4 * 64, 5)

    def forward(self, x):
        x = self.first_act(self.first(x))
        x = x + self.inner_act(self.inner(x))
        x = x + self.again_act(self.again(x))
        return {"a": self.a(x), "b": self.b(x.flatten(1))}


def converted(model, neuron="cif", schedule=None):
    options = ConversionOptions(neuron, schedule or Schedule(4, 30))
    quantizer = InputQuantizer.for_interval(SHAPE, 0.0, 1.0, levels=255)
    return convert(model.eval(), quantizer, options, LIMITS, name="heads").program


def test_sums_of_equal_spikes_are_relays():
    program = converted(Heads(lambda _: CQReLU(4)))
    relays = [p for p in program.populations if p.neuron.kind == "RELAY"]
    assert [len(p.synapses) for p in relays] == [2, 2]
    assert [p.shape for p in program.readouts] == [(3, 8, 8), (5,)]


def test_sums_of_unequal_spikes_are_spread_over_the_layers_behind_them():
    program = converted(Heads(lambda i: QCFS(4, 1.0 + i)), "if", Schedule(4))
    assert "RELAY" not in {p.neuron.kind for p in program.populations}
    # The two skips and the branch; a branch worth more has its weights split over two synapses.
    for name in ("a", "b"):
        assert {s.source for s in program.population(name).synapses} == {"first", "inner", "again"}


@pytest.mark.parametrize("make", [lambda _: CQReLU(4), lambda i: QCFS(4, 1.0 + i)])
def test_outputs_are_those_of_the_module(make):
    """With many weight bits rounding is small: every output is near the quantized module's."""
    model = Heads(make)
    cif = isinstance(model.first_act, CQReLU)
    program = converted(model, *(("cif", Schedule(4, 30)) if cif else ("if", Schedule(4))))
    inputs = random_inputs(program, 16)
    x = torch.from_numpy(inputs * program.input.scale).float()
    with torch.no_grad():
        expected = list(model(x).values())
    _, outputs = quantized_counts(program, inputs)
    for population, wanted in zip(program.readouts, expected, strict=True):
        real = outputs[population.name] * population.neuron.scale / 4
        assert np.abs(real - wanted.numpy()).mean() < 0.05 * wanted.abs().mean()
