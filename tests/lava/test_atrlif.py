"""IF networks on Lava's own ATRLIF: the same bits within its registers, refused outside."""

from dataclasses import replace

import numpy as np
import pytest

from exports.lava import LavaModels, run_on_lava
from exports.netx import write_net
from hw_models.stock.atrlif_limits import check_atrlif
from tests.command_line import fails, ok
from tests.comparing import assert_recording_is
from tests.networks import branched_program, random_inputs, random_program
from tests.oracles import numpy_loop
from toolchain.errors import BackendRunError, SpikeportError, TargetError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import ConsistentIntegrateAndFire, IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse


def chain(weight, threshold, start, bias=0, steps=4, sleep=0, neuron=IntegrateAndFire):
    """One input of 0 .. 255 into a neuron, and on into a readout."""
    hidden = Population(
        "hidden",
        (1,),
        (DenseSynapse("input", np.array([[weight]])),),
        np.array([bias]),
        neuron(np.array([threshold]), np.array([start])),
    )
    readout = Population(
        "readout", (1,), (DenseSynapse("hidden", np.array([[3]])),), np.zeros(1, int), Readout(1.0)
    )
    quantizer = InputQuantizer(shape=(1,), bits=8, signed=False, scale=1.0)
    return IntProgram("chain", quantizer, (hidden, readout), Schedule(steps, sleep))


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_chains(steps):
    """Odd and even thresholds, a start and a bias per channel, samples back to back."""
    program = random_program(
        steps, convs=((5, 3, 1, 1, 1, 1), (4, 3, 2, 0, 1, 1)), schedule=Schedule(steps)
    )
    rng = np.random.default_rng(steps)
    *spiking, readout = program.populations
    anywhere = [
        replace(p, neuron=replace(p.neuron, initial_potential=rng.integers(-9, p.neuron.threshold)))
        for p in spiking
    ]
    program = replace(program, populations=(*anywhere, readout))
    assert any((p.neuron.threshold % 2).any() for p in spiking)
    inputs = random_inputs(program, 3, steps)
    recording = run_on_lava(
        program, inputs, models=LavaModels.atrlif(watch_ranges=True), time_limit=120
    )
    spikes, membrane = numpy_loop.run(program, inputs)
    assert any(values.any() for values in spikes.values())
    assert_recording_is(recording, spikes, membrane)


def test_branches_of_unequal_depth():
    program = branched_program(1, blocks=("residual", "concat"))
    inputs = random_inputs(program, 2, 1)
    recording = run_on_lava(
        program, inputs, models=LavaModels.atrlif(watch_ranges=True), time_limit=120
    )
    assert_recording_is(recording, *numpy_loop.run(program, inputs))


LARGEST_START = 131072 - 4 * 255 * 127
"""With threshold 1, ATRLIF's potential of at most 2^23 - 1 ends at 64 * 131072 - 32."""


def test_the_registers_to_the_last_unit():
    program = chain(127, 1, LARGEST_START)
    check_atrlif(program, watch=False)
    inputs = np.array([[255], [0], [254]])
    recording = run_on_lava(program, inputs, models=LavaModels.atrlif(), time_limit=120)
    assert_recording_is(recording, *numpy_loop.run(program, inputs))
    with pytest.raises(TargetError, match="hidden: ATRLIF's potential") as caught:
        check_atrlif(chain(127, 1, LARGEST_START + 1), watch=False)
    assert str(64 * 131073 - 32) in str(caught.value)


def test_a_watched_run_stops_where_a_register_is_left():
    program = chain(127, 1, LARGEST_START + 1)
    models = LavaModels.atrlif(watch_ranges=True)
    fits = np.array([[254]])
    recording = run_on_lava(program, fits, models=models, time_limit=120)
    assert_recording_is(recording, *numpy_loop.run(program, fits))
    with pytest.raises(BackendRunError, match="potential left its register at global step 5"):
        run_on_lava(program, np.array([[255]]), models=models, time_limit=120)


def test_the_refractory_state_may_leave_where_the_potential_does_not():
    """Twice 70,000 of 140,000: 64 of them are more than 2^23."""
    program = chain(127, 70000, 140000 - 4 * 255 * 127)
    with pytest.raises(TargetError, match="refractory state"):
        check_atrlif(program, watch=False)
    check_atrlif(chain(127, 70000, 139999 - 4 * 255 * 127), watch=False)
    models = LavaModels.atrlif(watch_ranges=True)
    with pytest.raises(BackendRunError, match="refractory state left its register"):
        run_on_lava(program, np.array([[255]]), models=models, time_limit=120)


def test_a_watched_run_stops_where_the_potential_is_held_below():
    """Down from the start, where reset by subtraction never helps."""
    program = chain(-127, 5000, 0, steps=5)
    with pytest.raises(TargetError, match="potential, which keeps all"):
        check_atrlif(program, watch=False)
    models = LavaModels.atrlif(watch_ranges=True)
    with pytest.raises(BackendRunError, match="potential left its register"):
        run_on_lava(program, np.array([[255]]), models=models, time_limit=120)


def test_a_current_that_would_wrap_is_noticed():
    """16 inputs of 255 * 127 are 4 times what ATRLIF's current holds."""
    program = chain(1, 40000, 0, steps=1)
    hidden = Population(
        "hidden",
        (1,),
        (DenseSynapse("input", np.full((1, 16), 127)),),
        np.array([0]),
        IntegrateAndFire(np.array([40000]), np.array([0])),
    )
    quantizer = InputQuantizer(shape=(16,), bits=8, signed=False, scale=1.0)
    program = IntProgram("wide", quantizer, (hidden, program.populations[1]), Schedule(1))
    models = LavaModels.atrlif(watch_ranges=True)
    with pytest.raises(BackendRunError, match="current left its register at global step 2"):
        run_on_lava(program, np.full((1, 16), 255), models=models, time_limit=120)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (chain(1, 50, 0, neuron=ConsistentIntegrateAndFire), "reset by subtraction, and nothing"),
        (chain(1, 50, 0, sleep=2, neuron=ConsistentIntegrateAndFire), "bias on every step"),
        (chain(1, 50, 0, bias=32768), "keeps its bias in 16 bits"),
        (chain(1, 262144, 0), "do not fit ATRLIF's registers"),
        (chain(1, 50, 140000), "do not fit ATRLIF's registers"),
        (branched_program(1), "reset by subtraction, and nothing"),
    ],
)
def test_refusals_name_the_layer_or_the_program(program, words):
    with pytest.raises(SpikeportError, match=words) as caught:
        check_atrlif(program, watch=True)
    assert caught.value.node.split()[0] in (
        "hidden",
        "chain",
        *(p.name for p in program.populations),
    )


def test_from_the_command_line(tmp_path):
    program = random_program(4, shape=(1, 8, 8), convs=(), classes=10)
    # The digits' pixels are 0 .. 16 sixteenths.
    quantizer = InputQuantizer((1, 8, 8), 1 / 16, bits=5)
    write_net(replace(program, input=quantizer), tmp_path / "net.net")
    common = ("run", tmp_path / "net.net", "--data", "digits@test[:3]")
    lava = ("--backend", "lava", "--neuron-impl", "atrlif")
    fails(2, "--watch-ranges runs it", *common, *lava, "-o", tmp_path / "no.npz")
    assert not (tmp_path / "no.npz").exists()
    ok(*common, *lava, "--watch-ranges", "-o", tmp_path / "atrlif.npz")
    ok(*common, "-o", tmp_path / "reference.npz")
    ok("compare", tmp_path / "reference.npz", tmp_path / "atrlif.npz")
    for words, how in (
        ("says nothing to the backend reference", lava[2:]),
        ("behind stock synapses", (*lava, "--models", "fast")),
        ("only ATRLIF neurons", (*lava[:2], "--watch-ranges")),
    ):
        fails(2, words, *common, *how, "-o", tmp_path / "no.npz")


def test_contradictions():
    with pytest.raises(TargetError, match="behind stock synapses"):
        LavaModels("fast", neurons="atrlif")
    with pytest.raises(TargetError, match="no such neurons"):
        LavaModels(neurons="lif")
    with pytest.raises(TargetError, match="watched on request"):
        LavaModels(watch_ranges=True)
