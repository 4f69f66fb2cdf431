"""The audit's certificate, chip fit, operations, gates and agreements, against counting by hand."""

from dataclasses import replace

import numpy as np
import pytest

from hw_models.energy import load_costs
from hw_models.profile import load_profile
from tests.command_line import ROOT, ok
from tests.networks import BLOCKS, branched_program, random_inputs, random_program
from tests.oracles.numpy_loop import current
from toolchain.audit.activity import LayerExtremes, count_spikes, quicker_engine
from toolchain.audit.agreement import describe_versions
from toolchain.audit.certificate import certify
from toolchain.audit.chip_fit import Chip, ChipLimit, fit
from toolchain.audit.energy import Cost, Operations
from toolchain.audit.gates import METRICS, Gate
from toolchain.audit.rasters import record_raster
from toolchain.audit.scorers import Classifier
from toolchain.engine.engine import Engine
from toolchain.errors import DataError, TargetError
from toolchain.int_range import IntRange, TargetLimits
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout, Relay
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.recording import Mode
from toolchain.simulator import reference


def counted(program, inputs, *, stepwise=False):
    extremes = {p.name: LayerExtremes() for p in program.populations}
    engine = None if stepwise else Engine(program)
    return count_spikes(engine, program, inputs, extremes), extremes


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("kind", ["if", "cif"])
def test_counts_are_the_reference_simulators(kind, stepwise):
    schedule = Schedule(3, 5) if kind == "cif" else Schedule(6)
    program = branched_program(4, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
    inputs = random_inputs(program, 4)
    found, extremes = counted(program, inputs, stepwise=stepwise)
    full = reference.simulate(program, inputs, mode=Mode.FULL)
    for name, spikes in full.spikes.items():
        assert np.array_equal(found.counts[name], spikes.sum(0, dtype=np.int64))
        assert np.array_equal(found.events[name], (spikes != 0).sum(0))
        assert np.array_equal(found.magnitude[name], np.abs(spikes.astype(int)).sum(0))
    for name, membrane in full.membrane.items():
        assert np.array_equal(found.potential[name], membrane[-1])
        assert extremes[name].state.low <= membrane.min()
    for step, readout in enumerate(full.membrane[program.readout.name]):
        assert np.array_equal(found.readout[step], readout)


@pytest.mark.parametrize("kind", ["if", "cif"])
@pytest.mark.parametrize("blocks", [[], ["residual", "strided"]])
def test_extremes_are_the_same_step_by_step(kind, blocks):
    schedule = Schedule(3, 9) if kind == "cif" else Schedule(6)
    program = branched_program(5, kind, blocks, schedule=schedule, low=-9, high=9)
    inputs = random_inputs(program, 5, 3)
    assert counted(program, inputs)[1] == counted(program, inputs, stepwise=True)[1]


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("blocks", "samples", "small"), [([], 5, True), (["max"], 5, False), ([], 10**9, False)]
)
def test_a_small_run_needs_no_engine_until_its_loops_are_compiled(
    monkeypatch, kept, blocks, samples, small
):
    monkeypatch.setattr("toolchain.engine.simulate.is_kept", lambda _: kept)
    program = branched_program(5, "if", blocks, low=-9, high=9)
    assert (quicker_engine(program, samples) is None) == (small and not kept)


@pytest.mark.parametrize("stepwise", [False, True])
def test_extremes_by_hand(stepwise):
    # theta 10, v0 5, current 7 per step: before firing 12 9 16 13; v after 2 9 6 3.
    cell = Population(
        "cell", (1,), (DenseSynapse("input", [[3]]),), [1], IntegrateAndFire([10], [5])
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[4]]),), [0], Readout(1.0))
    program = IntProgram("one", InputQuantizer((1,), 1.0), (cell, readout), Schedule(4))
    _, extremes = counted(program, np.array([[2]]), stepwise=stepwise)
    assert extremes["cell"].current == IntRange(0, 6)
    assert extremes["cell"].state == IntRange(0, 16)
    assert extremes["readout"].state == IntRange(0, 12)


def test_the_bound_of_a_first_layer_is_attained():
    """Every weight drives the largest channel at once, found by brute force over the signs."""
    program = random_program(3, convs=((4, 3, 1, 1, 1, 1),), schedule=Schedule(1))
    rows = {
        row.bound.name: row
        for row in certify(program, counted(program, random_inputs(program, 2))[1])
    }
    row = rows["conv0"].describe(program.state_range)
    weight = program.populations[0].synapses[0].weight
    span = program.input.range
    highest = max(int(np.where(w > 0, w * span.high, w * span.low).sum()) for w in weight)
    lowest = min(int(np.where(w > 0, w * span.low, w * span.high).sum()) for w in weight)
    assert row["current"]["bound"] == [lowest, highest]
    assert row["current"]["attained"]
    assert row["current"]["share"] == 1.0
    best = row["current"]["reached"]
    assert max(best[1], -best[0]) == max(highest, -lowest)


@pytest.mark.parametrize("kind", ["if", "cif"])
def test_no_input_passes_a_bound(kind):
    schedule = Schedule(3, 4) if kind == "cif" else Schedule(5)
    program = branched_program(7, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
    observed = counted(program, random_inputs(program, 6))[1]
    for row in certify(program, observed):
        described = row.describe(program.state_range)
        for what in ("current", "state"):
            low, high = described[what]["bound"]
            for seen in (described[what]["observed"], described[what]["reached"]):
                assert low <= seen[0] <= seen[1] <= high
        assert 0 <= described["current"]["share"] <= 1


def pooled_program():
    """4 x 4 pixels, a sum pool (relay) over 2 x 2, then a dense readout."""
    ones = np.ones((1, 1, 2, 2), int)
    cell = Population(
        "cell",
        (1, 4, 4),
        (ConvSynapse("input", np.ones((1, 1, 1, 1), int)),),
        [0],
        IntegrateAndFire([4], [2]),
    )
    pool = Population("pool", (1, 2, 2), (ConvSynapse("cell", ones, (2, 2)),), [0], Relay())
    readout = Population(
        "readout", (3,), (DenseSynapse("pool", np.ones((3, 4), int)),), [0] * 3, Readout(1.0)
    )
    return IntProgram(
        "pooled", InputQuantizer((1, 4, 4), 1.0, bits=4), (cell, pool, readout), Schedule(2)
    )


def test_operations_by_hand():
    program = pooled_program()
    pixels = np.zeros((1, 1, 4, 4), int)
    pixels[0, 0, 0, :2] = 4, 2
    pixels[0, 0, 3, 3] = 15
    operations = Operations(program)
    found, _ = counted(program, pixels)
    operations.add(pixels, found)
    # Input: 3 pixels per step, 2 steps, one synapse each. v: 2+4=6 fires, 2+4 fires; 2+2=4 fires,
    # 0+2; 17 and 28 fire: 5 spikes, one pool each. Pools: 2 and 1 at step 1; 1 and 1 at step 2:
    # 4 spikes of sizes 5, three targets each.
    assert operations.counted.events == {"input": 6, "cell": 5, "pool": 4}
    assert operations.counted.synops == {"input": 6, "cell": 5, "pool": 12}
    assert operations.counted.magnitude == {"input": 2 * (4 + 2 + 15), "cell": 5, "pool": 15}
    costs = {"synop": Cost(2.0, "a"), "neuron_update": Cost(1.0, "b"), "mac": Cost(10.0, "c")}
    described = operations.describe(costs)
    assert described["synops"] == 23
    assert described["neuron_updates"] == 2 * (16 + 4 + 3)
    assert described["ann_macs"] == 16 + 16 + 12
    assert described["estimate"]["nanojoules"] == {
        "synop": 0.046,
        "neuron_update": 0.046,
        "mac": 0.44,
    }
    assert "nothing was measured" in described["estimate"]["note"]


def test_synops_are_those_of_recordings():
    program = branched_program(5, "cif", sorted(BLOCKS), schedule=Schedule(3, 4), low=-9, high=9)
    inputs = random_inputs(program, 3)
    operations = Operations(program)
    operations.add(inputs, counted(program, inputs)[0])
    expected = reference.simulate(program, inputs, mode=Mode.COUNTS).meta["synops"]
    assert operations.counted.synops == expected


def test_costs_have_sources():
    assert {*load_costs()} == {"synop", "neuron_update", "mac"}
    assert all(c.picojoules > 0 and c.source for c in load_costs().values())


def chip(**limits):
    found = {name: ChipLimit(value, "hand") for name, value in limits.items()}
    return Chip("hand", ChipLimit(4, "hand"), found, shares_kernels=True)


def wide_program():
    """(2, 8, 6) through a 3 x 3 convolution to (4, 8, 6), then 10 dense outputs."""
    conv = Population(
        "conv",
        (4, 8, 6),
        (ConvSynapse("input", np.ones((4, 2, 3, 3), int), padding=(1, 1)),),
        [0] * 4,
        IntegrateAndFire([9] * 4, [4] * 4),
    )
    readout = Population(
        "readout", (10,), (DenseSynapse("conv", np.ones((10, 192), int)),), [0] * 10, Readout(1.0)
    )
    return IntProgram("wide", InputQuantizer((2, 8, 6), 1.0), (conv, readout), Schedule(2))


def test_a_layer_in_one_core():
    found = fit(wide_program(), chip(neurons=192, in_axons=192, synapse_bits=15360))
    conv, readout = found.layers
    assert conv.chosen.pieces == readout.chosen.pieces == 1
    assert conv.chosen.use == {
        "neurons": 192,
        "in_axons": 2 * 8 * 6,
        "synapse_bits": 4 * 18 * 8,
        "out_axons": 192,
    }
    assert readout.chosen.use["synapse_bits"] == 1920 * 8
    assert (found.cores, found.chips, found.problems()) == (2, 1, [])
    # The readout's weights fill a core; 192 of 193 inputs are the most of the others.
    roomy = fit(wide_program(), chip(neurons=400, in_axons=193, synapse_bits=15360))
    assert [layer["fullest"] for layer in roomy.describe()["layers"]] == [
        {"limit": "in_axons", "share": 96 / 193},
        {"limit": "synapse_bits", "share": 1.0},
    ]
    assert fit(wide_program(), chip()).describe()["layers"][0]["fullest"] is None


def test_cuts_by_channel_and_by_area():
    # 96 neurons: two channels (96 inputs each) or four rows (6 rows of input: 72) a core.
    found = fit(wide_program(), chip(neurons=96)).layers[0]
    assert (found.chosen.split, found.chosen.pieces) == ("area", 2)
    assert found.chosen.use["in_axons"] == 2 * 6 * 6
    assert (found.other.split, found.other.pieces) == ("channel", 2)
    assert found.other.use["in_axons"] == 2 * 8 * 6
    # 40 inputs: no cut by channel; by area one row of neurons sees three of the input: 36.
    found = fit(wide_program(), chip(in_axons=40)).layers[0]
    assert (found.chosen.split, found.chosen.pieces, found.other) == ("area", 8, None)
    # Memory for two channels: by area every piece holds all four.
    found = fit(wide_program(), chip(synapse_bits=2 * 18 * 8)).layers[0]
    assert (found.chosen.split, found.chosen.pieces, found.other) == ("channel", 2, None)


def test_area_is_cut_into_parts_of_rows():
    # 30 inputs: a row of 6 sees 3 rows of 6, two channels: 36. Parts of 3 columns see 5: 30.
    conv = fit(wide_program(), chip(in_axons=30)).layers[0].chosen
    assert (conv.split, conv.pieces, conv.tile) == ("area", 16, (4, 1, 3))
    assert conv.use["in_axons"] == 2 * 3 * 5
    assert conv.use["neurons"] == 12


def test_an_upsampled_source_has_fewer_axons_and_weights():
    up = ConvSynapse("input", np.ones((4, 2, 4, 4), int), padding=(2, 2), upsample=(2, 2))
    conv, readout = wide_program().populations
    dense = DenseSynapse("conv", np.ones((10, 768), int))
    populations = (
        replace(conv, shape=(4, 16, 12), synapses=(up,)),
        replace(readout, synapses=(dense,)),
    )
    program = replace(wide_program(), populations=populations)
    # 8 rows of neurons see 11 rows, of which 6 hold the source's; all 6 columns.
    found = fit(program, chip(neurons=384)).layers[0].chosen
    assert (found.split, found.tile) == ("area", (4, 8, 12))
    assert found.use["in_axons"] == 2 * 6 * 6
    assert found.use["synapse_bits"] == 4 * 32 * 8
    # Kept once per synapse, a neuron has 2 x 2 of the 4 x 4 weights of each channel.
    alone = replace(chip(neurons=768), shares_kernels=False)
    assert fit(program, alone).layers[0].chosen.use["synapse_bits"] == 768 * 2 * 4 * 8


def test_synapses_of_one_source_share_its_axons():
    program = wide_program()
    conv, readout = program.populations
    twice = replace(conv, synapses=(*conv.synapses, conv.synapses[0]))
    doubled = replace(program, populations=(twice, readout))
    once, both = (fit(p, chip(neurons=192)).layers[0].chosen.use for p in (program, doubled))
    assert both["in_axons"] == once["in_axons"]
    assert both["synapse_bits"] == 2 * once["synapse_bits"]


def test_out_axons_follow_the_next_layer():
    # The readout is cut into five pieces: each of the 192 neurons reaches all of them.
    found = fit(wide_program(), chip(neurons=192, synapse_bits=2 * 192 * 8, out_axons=500))
    conv, readout = found.layers
    assert readout.chosen.pieces == 5
    assert conv.chosen.use["out_axons"] == 192 * 5
    (problem,) = found.problems()
    assert problem == {
        "level": "error",
        "layer": "conv",
        "limit": "out_axons",
        "used": 960,
        "allowed": 500,
        "told": "960 out_axons per core, of 500",
        "source": "hand",
    }
    assert (found.cores, found.chips) == (6, 2)


def test_what_no_cut_can_keep_to_is_reported():
    limits = {"in_axons": ChipLimit(100, ""), "neurons": ChipLimit(1000, "hand")}
    found = fit(wide_program(), Chip("hand", ChipLimit(4, ""), limits, shares_kernels=True))
    assert found.layers[1].chosen.pieces == 1
    assert [(p["level"], p["layer"], p["used"]) for p in found.problems()] == [
        ("warning", "readout", 192)
    ]


def test_numbers_that_registers_do_not_hold():
    """Against a target of 4-bit weights, thresholds up to 8 and binary input."""
    narrow = TargetLimits("narrow", 4, 0, 16, 8, 1, 1)
    known = replace(chip(neurons=192), numbers=narrow, sources={"threshold_max": "hand"})
    program = wide_program()
    conv, readout = program.populations
    heavy = replace(
        conv,
        synapses=(
            replace(conv.synapses[0], weight=conv.synapses[0].weight * 9, weight_exponent=2),
        ),
        bias=[0, -2, 0, 0],
    )
    found = fit(replace(program, populations=(heavy, readout)), known).problems()
    assert [(p["layer"], p["limit"], p["level"], p["used"], p["allowed"]) for p in found] == [
        ("program", "state_bits", "warning", [24, 24], [1, 16]),
        ("input", "max_input_bits", "warning", [8, 8], [1, 1]),
        ("conv", "weight_bits", "warning", [9, 9], [-8, 7]),
        ("conv", "max_weight_exponent", "warning", [2, 2], [0, 0]),
        ("conv", "bias_max", "warning", [-2, 0], [-1, 1]),
        ("conv", "threshold_max", "error", [9, 9], [1, 8]),
    ]
    assert found[2]["told"] == "weights 9 .. 9, of -8 .. 7"


def test_kernels_that_are_not_shared():
    alone = replace(chip(neurons=192), shares_kernels=False)
    conv = fit(wide_program(), alone).layers[0].chosen
    assert conv.use["synapse_bits"] == 192 * 18 * 8


def test_profiles_of_chips(tmp_path):
    for name in ("loihi1", "loihi2"):
        profile = load_profile(name)
        assert {"cores", "neurons", "in_axons", "out_axons", "synapse_bits"} == set(profile.chip)
    assert all(limit.source for limit in load_profile("loihi1").chip.values())
    own = tmp_path / "mine.toml"
    text = (
        "description = 'mine'\n[limits]\n"
        + "".join(
            f"{k} = {{value = {v}, source = 'x'}}\n"
            for k, v in {
                "weight_bits": 4,
                "max_weight_exponent": 0,
                "state_bits": 16,
                "threshold_max": 99,
                "bias_max": 99,
                "max_input_bits": 8,
            }.items()
        )
        + "[chip]\nshares_kernels = true\ncores = {value = 7, source = ''}\n"
    )
    own.write_text(text)
    profile = load_profile(str(own))
    assert (profile.name, profile.chip["cores"].value, profile.shares_kernels) == ("mine", 7, True)
    assert profile.as_target_limits().weight_bits == 4
    for broken, words in (
        (text.replace("cores", "tables"), "does not describe a chip"),
        (text.replace("weight_bits = ", "widths = "), "is not a profile"),
        ("x = [", "is not a profile"),
    ):
        own.write_text(broken)
        with pytest.raises(TargetError, match=words):
            load_profile(str(own))
    with pytest.raises(TargetError, match="no such target"):
        load_profile(str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    ("text", "found", "passed"),
    [
        ("mismatches=0", 0, True),
        ("mismatches=0", 1, False),
        ("drop<=0.5", 0.5, True),
        ("drop <= 0.5", 0.51, False),
        ("accuracy>=9.1e1", 91.0, True),
        ("headroom>1", 1.0, False),
        ("chips<2", 1, True),
        ("drop<-1", -2.0, True),
        ("drop<=0.5", None, False),
    ],
)
def test_gates(text, found, passed):
    gate = Gate.parse(text)
    checked = gate.check({gate.metric: found})
    assert (checked["passed"], checked["found"]) == (passed, found)
    assert checked["meaning"] == METRICS[gate.metric]


@pytest.mark.parametrize("text", ["", "drop", "drop<=", "drop=<1", "tastes>3", "drop<=1.2.3"])
def test_what_is_no_gate(text):
    with pytest.raises(DataError):
        Gate.parse(text)


def test_agreement_by_hand():
    first = np.array([[1, 0], [0, 1], [3, 1], [0, 2]])
    second = np.array([[1, 0], [1, 0]])
    found = describe_versions({"a": first, "b": second}, Classifier(np.array([0, 1, 1, 1])))
    assert found["agreement"]["a"]["b"] == {"same": 1, "samples": 2}
    assert found["agreement"]["a"]["a"] == {"same": 4, "samples": 4}
    assert found["accuracy"]["a"]["correct"] == 3
    assert found["accuracy"]["b"]["total"] == 2
    assert describe_versions({"a": first}, Classifier(None))["accuracy"] == {}


def test_rasters_are_of_the_recording():
    program = random_program(1, "cif", schedule=Schedule(4, 3))
    inputs = random_inputs(program, 1)
    full = reference.simulate(program, inputs, mode=Mode.FULL)
    for layer in record_raster(program, inputs).layers:
        spikes = full.spikes[layer.name].reshape(7, -1)
        assert np.array_equal(layer.spikes, spikes[:, layer.neurons])
        assert np.abs(layer.spikes).sum(0).all() or not spikes.any()
        population = program.population(layer.name)
        theta = np.repeat(population.neuron.threshold, np.prod(population.shape[1:], dtype=int))
        membrane = full.membrane[layer.name].reshape(7, -1)
        assert np.allclose(layer.potential, membrane[:, layer.traced] / theta[layer.traced])


def test_bounds_hold_against_the_plain_loop():
    """The current that the certificate constructs, summed up by definition."""
    program = random_program(3, convs=((2, 3, 1, 1, 1, 1),), schedule=Schedule(1))
    inputs = random_inputs(program, 1)
    _, extremes = counted(program, inputs)
    summed = current(program.populations[0].synapses[0], inputs[0])
    assert extremes["conv0"].current.high == max(int(summed.max()), 0)
    assert extremes["conv0"].current.low == min(int(summed.min()), 0)


def test_metrics_are_named_before_anything_fails():
    told = " ".join(ok("audit", "--help").stdout.split())
    manual = (ROOT / "docs/AUDIT.md").read_text()
    for name, meaning in METRICS.items():
        assert f"{name} = {meaning}" in told
        assert f"`{name}`" in manual
