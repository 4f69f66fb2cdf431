"""Placed networks in SANA-FE: every spike and potential, and its counts against our own."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import spikeport
from exports.sanafe import run_folder, runner, write_sanafe
from spikeport.chips import cut_chip
from tests.audit.test_placement import connections
from tests.command_line import here
from tests.networks import branched_program, per_step, random_inputs, random_program
from toolchain.audit.chip_fit import Chip, ChipLimit
from toolchain.audit.placement import place
from toolchain.errors import (
    BackendRunError,
    MissingDependencyError,
    OutputError,
    TargetError,
    UsageError,
)
from toolchain.program.int_program import Schedule
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.program.synops import fan_out

LOIHI = cut_chip("loihi1")


def check(program, inputs, folder, chip=LOIHI):
    """Every spike and potential of every step, and the readouts."""
    write_sanafe(program, place(program, chip).homes(), inputs, folder)
    found = run_folder(folder, time_limit=120, potentials=True)["samples"]
    assert len(found) == len(inputs)
    recording = spikeport.Reference("stepwise").run(program, inputs)
    for index, sample in enumerate(found):
        for population in program.populations:
            shape = (program.schedule.num_steps, *population.shape)
            potentials = np.array(sample["potentials"][population.name]).reshape(shape)
            assert np.array_equal(potentials, recording.membrane[population.name][:, index])
            if population in program.readouts:
                sums = np.array(sample["outputs"][population.name]).reshape(population.shape)
                assert np.array_equal(sums, recording.outputs[population.name][index])
                continue
            spikes = np.zeros((shape[0], np.prod(population.shape)), np.int8)
            for step, fired in enumerate(sample["spikes"][population.name]):
                spikes[step, fired] = 1
            expected = recording.spikes[population.name][:, index]
            assert np.array_equal(spikes.reshape(shape), expected)
    return found, recording


@pytest.mark.parametrize("seed", range(3))
def test_every_spike_of_convolutions_and_dense_layers(seed, tmp_path):
    convs = (
        ((3, 3, 1, 1, 1, 1),),
        ((4, 3, 2, 0, 1, 2), (3, 2, 1, 1, 2, 1)),
        ((2, 2, 1, 0, 1, 1, 2, 1),),
    )
    program = random_program(seed, convs=convs[seed], signed_input=seed == 1)
    _, recording = check(program, random_inputs(program, 3), tmp_path)
    assert all(recording.spikes[p.name].any() for p in program.spiking)


def test_biases_and_sleep_steps(tmp_path):
    """Spikes that only biases make: nothing begins before its step or goes on after it."""
    program = random_program(3, schedule=Schedule(3, 2))
    check(program, np.zeros((1, *program.input.shape), np.int32), tmp_path / "nothing")
    check(program, random_inputs(program, 2), tmp_path / "some")


def test_potentials_that_begin_above_the_threshold(tmp_path):
    program = random_program(2)
    first = program.populations[0]
    high = replace(first.neuron, initial_potential=3 * first.neuron.threshold)
    program = replace(program, populations=(replace(first, neuron=high), *program.populations[1:]))
    check(program, random_inputs(program, 1), tmp_path)


@pytest.mark.parametrize("blocks", [("residual", "strided"), ("concat",)])
def test_branches_of_unequal_depth(blocks, tmp_path):
    program = branched_program(4, "if", blocks, heads=1)
    assert any(program.delay(p, s) for p in program.populations for s in p.synapses)
    check(program, random_inputs(program, 2), tmp_path)


def test_counts_against_ours(tmp_path):
    """Synops by fan-out; messages by the cores that each neuron reaches."""
    program = random_program(5, convs=((4, 3, 1, 1, 1, 2), (3, 3, 2, 1, 1, 1)))
    inputs = random_inputs(program, 2)
    chip = Chip("small", ChipLimit(128, ""), {"neurons": ChipLimit(25, "")}, shares_kernels=False)
    found, recording = check(program, inputs, tmp_path, chip)
    homes = place(program, chip).homes()
    assert max(len(np.unique(cores)) for cores in homes.values()) > 4
    reached, by_kind = Counter(), {}
    for population in program.populations:
        for synapse in population.synapses:
            met = connections(synapse, program.source_shape(synapse.source))
            pairs = {(s, int(homes[population.name].ravel()[t])) for t, s in np.argwhere(met)}
            reached.update((synapse.source, int(s)) for s, _ in pairs)
            key = type(synapse), synapse.source
            by_kind[key] = by_kind.get(key, 0) + met.sum(0)
    fans, steps = fan_out(program), program.schedule.num_steps
    neurons = sum(int(np.prod(p.shape)) for p in program.populations)
    for index, sample in enumerate(found):
        sent = {name: recording.spikes[name][:, index].sum(0) for name in fans if name != "input"}
        sent["input"] = (inputs[index] != 0) * steps
        assert sample["events"] == sum(int(spikes.sum()) for spikes in sent.values())
        assert sample["synops"] == sum(int((sent[name] * fans[name]).sum()) for name in fans)
        messages = sum(
            int(count) * reached[name, neuron]
            for name, spikes in sent.items()
            for neuron, count in enumerate(spikes.ravel())
        )
        assert sample["messages"] == messages
        # SANA-FE's loihi.yaml, in pJ: loihi_conv_synapse and loihi_dense_synapse.
        cost = {ConvSynapse: 24.0, DenseSynapse: 35.5}
        picojoules = sum(
            cost[kind] * (sent[name].ravel() * fan).sum() for (kind, name), fan in by_kind.items()
        )
        assert sample["energy"]["synapse"] == pytest.approx(1e-12 * picojoules)
        assert neurons * steps <= sample["updates"] - sent["input"].sum() <= neurons * (steps + 4)


def test_what_it_cannot_hold_is_refused(tmp_path):
    def refused(told, program, **options):
        with pytest.raises(TargetError, match=told):
            spikeport.export(program, tmp_path / "net", "sanafe", **options)
        assert not (tmp_path / "net").exists()

    refused("no such neuron", random_program(1, "cif"))
    refused("no such neuron", branched_program(1, "if", ("max",)))
    refused("no such neuron", branched_program(1, "if", ("graded",)))
    refused("changes over time", per_step(random_program(1)))
    refused("cannot watch", replace(random_program(1), watch_ranges=True))
    refused("float32", replace(random_program(1), state_bits=32))
    wide = random_program(1, shape=(2, 9, 9), convs=((20, 3, 1, 1, 1, 1),))
    refused("fewer neurons", wide, target="loihi2")
    refused("one chip", random_program(1, shape=(1, 400, 400), convs=(), hidden=()))


def test_a_run_that_fails(tmp_path, monkeypatch):
    program = random_program(1)
    spikeport.export(program, tmp_path, "sanafe", samples=np.zeros((1, *program.input.shape)))
    with pytest.raises(BackendRunError, match="time limit"):
        run_folder(tmp_path, time_limit=0.01)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["layers"][0]["depth"] += 1  # so that a layer fires at a step that is not its own
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with (tmp_path / "sample0.net").open("a") as net:
        net.write("n 2.0 threshold=0 bias=1\n")
    with pytest.raises(BackendRunError, match="outside its steps"):
        run_folder(tmp_path, time_limit=60)
    monkeypatch.setattr(runner, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError):
        run_folder(tmp_path, time_limit=60)


def test_the_command(tmp_path):
    spikeport.save(random_program(2, signed_input=True), tmp_path / "a.net")
    command = ("export", str(tmp_path / "a.net"), "--to", "sanafe", "-o", str(tmp_path / "net"))
    for _ in range(2):
        result = here(*command)
        assert result.exit_code == 0, result.output
    written = sorted(p.name for p in (tmp_path / "net").iterdir())
    assert written == ["plan.json", "run.py", "sample0.net", "sample1.net"]
    entries = spikeport.export(tmp_path / "a.net", tmp_path / "net", "sanafe")
    assert {"graded spikes", "input from the host"} <= {entry.what for entry in entries}
    (tmp_path / "net" / "sample1.net").write_text("mine")
    with pytest.raises(OutputError):
        spikeport.export(tmp_path / "a.net", tmp_path / "net", "sanafe")


def test_in_the_audit(tmp_path):
    """Beside our own counts, on the same samples."""
    program = random_program(4)
    samples = random_inputs(program, 3).astype(float)
    told = []
    found = spikeport.audit(
        program,
        samples,
        lava_samples=0,
        energy="sanafe",
        progress=lambda what, *_: told.append(what),
    )
    energy = found.document["energy"]
    simulated = energy["simulated"]
    assert simulated["simulator"] == "SANA-FE 2.2.9, Loihi"
    assert (simulated["samples"], simulated["mismatches"]) == (3, 0)
    neurons = sum(int(np.prod(p.shape)) for p in program.populations)
    outputs = int(np.prod(program.readout.shape))
    assert simulated["compared"] == 3 * (4 * (neurons - outputs) + outputs)
    assert simulated["synops"] == pytest.approx(energy["synops"])
    assert simulated["events"] == pytest.approx(sum(row["events"] for row in energy["layers"]))
    assert any(what.startswith("SANA-FE") for what in told)
    found.save(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    total = f"{simulated['nanojoules']['total']:,.1f}"
    assert f"<td>nJ, total</td><td>{total}</td>" in page
    with pytest.raises(UsageError, match="no such simulator"):
        spikeport.audit(program, samples, energy="joules")


def test_the_audit_command(tmp_path):
    program = random_program(4)
    spikeport.save(program, tmp_path / "a.net")
    samples, labels = random_inputs(program, 2).astype(float), np.array([0, 3])
    np.savez(tmp_path / "x.npz", test_samples=samples, test_labels=labels)
    result = here(
        "audit",
        str(tmp_path / "a.net"),
        *("--data", f"npz:{tmp_path / 'x.npz'}@test", "--lava", "0", "--energy", "sanafe"),
    )
    assert result.exit_code == 0, result.output
    assert "SANA-FE 2.2.9, Loihi" in result.output
