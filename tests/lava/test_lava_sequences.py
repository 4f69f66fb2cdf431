"""Inputs that change over time on Lava: stock synapses, fast models and ATRLIF, to the bit."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exports.lava import LavaModels, run_on_lava, runner
from exports.lava.axes import to_lava
from spikeport.backends import Lava, Reference
from spikeport.running import run_inputs
from tests.comparing import assert_recording_is
from tests.networks import BLOCKS, branched_program, per_step, random_inputs, random_program
from tests.oracles import numpy_loop
from toolchain.errors import ProgramError, RecordingError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate
from toolchain.workers import open_workers

MODELS = {
    "stock": LavaModels(),
    "fast": LavaModels.fast(blocks=1, batch=2),
    "blocks": LavaModels.fast(blocks=2, batch=3),
}


def test_only_the_axes_of_an_image_are_turned():
    frames = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    turned = to_lava(frames, 2)
    assert turned.shape == (2, 3, 6, 5, 4)
    assert turned[1, 2, 5, 3, 2] == frames[1, 2, 2, 3, 5]
    assert np.array_equal(to_lava(frames[:, 0]), turned[:, 0])
    assert np.array_equal(to_lava(frames[..., 0, 0], 2), frames[..., 0, 0])


# Shrinking would start hundreds of Lava runs; a failing example is small as it is.
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 999),
    kind=st.sampled_from(["if", "cif"]),
    wake=st.integers(1, 4),
    sleep=st.integers(0, 3),
    models=st.sampled_from(sorted(MODELS)),
)
def test_chains(seed, kind, wake, sleep, models):
    schedule = Schedule(wake, sleep if kind == "cif" else 0)
    program = per_step(random_program(seed, kind, schedule=schedule, signed_input=True))
    inputs = random_inputs(program, 4, seed)
    lava = run_on_lava(program, inputs, models=MODELS[models], time_limit=120)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


@pytest.mark.parametrize("models", MODELS)
@pytest.mark.parametrize("kind", ["if", "cif"])
def test_branches(kind, models):
    """Layers at unequal depths, which work on other steps of a sequence at the same time."""
    schedule = Schedule(3, 2 if kind == "cif" else 0)
    blocks = sorted(BLOCKS)
    program = branched_program(5, kind, blocks, schedule=schedule, low=-9, high=9)
    program = per_step(program)
    inputs = random_inputs(program, 5)
    lava = run_on_lava(program, inputs, models=MODELS[models], time_limit=120)
    comparison = compare(simulate(program, inputs), lava)
    assert comparison.equal, comparison.first


def test_atrlif():
    program = per_step(random_program(2, hidden=(6,), schedule=Schedule(5)))
    inputs = random_inputs(program, 3)
    lava = run_on_lava(program, inputs, models=LavaModels.atrlif(), time_limit=120)
    assert_recording_is(lava, *numpy_loop.run(program, inputs))


def test_a_run_in_parts_and_by_several_workers(tmp_path, monkeypatch):
    program = per_step(random_program(6, schedule=Schedule(4)))
    inputs = random_inputs(program, 7)
    expected = simulate(program, inputs, mode=Mode.DIGEST)
    how = {"models": MODELS["fast"], "mode": Mode.DIGEST, "parts": tmp_path / "parts"}
    monkeypatch.setattr(runner, "CHUNK_SAMPLES", 4)
    assert compare(expected, run_on_lava(program, inputs, **how)).equal
    (tmp_path / "parts" / "1.npz").unlink()
    assert compare(expected, run_on_lava(program, inputs, resume=True, **how)).equal
    with pytest.raises(RecordingError, match="of another run"):
        run_on_lava(program, inputs[:, ::-1], resume=True, **how)
    with open_workers(2) as workers:
        for backend in (Lava("fast", batch=2), Reference("fast")):
            found = run_inputs(program, inputs, backend, Mode.DIGEST, workers=workers)
            assert compare(expected, found).equal


def test_long_inputs_are_split_into_several_runs(tmp_path, monkeypatch):
    """The file of inputs counts in the size of a run: here one sample fits."""
    program = per_step(random_program(6, hidden=(), schedule=Schedule(40)))
    inputs = random_inputs(program, 2)
    monkeypatch.setattr(runner, "CHUNK_BYTES", 4 * 40 * 2 * 6 * 5 + 500)
    how = {"models": LavaModels.fast(batch=1), "mode": Mode.DIGEST, "parts": tmp_path / "parts"}
    lava = run_on_lava(program, inputs, **how)
    assert sorted(p.name for p in (tmp_path / "parts").glob("*.npz")) == ["0.npz", "1.npz"]
    assert compare(simulate(program, inputs, mode=Mode.DIGEST), lava).equal


def test_wrong_sequences_start_no_run():
    program = per_step(random_program(1))
    inputs = random_inputs(program, 2)
    for wrong in (inputs[:, :3], inputs[:, 0]):
        with pytest.raises(ProgramError, match=r"for each wake step|do not fit"):
            run_on_lava(program, wrong)
