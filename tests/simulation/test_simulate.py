"""The fast engine behind `simulate`: the oracle's recordings, in every mode and any memory."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exports.netx import write_net
from tests.command_line import ROOT, fails, ok
from tests.comparing import assert_recording_is
from tests.networks import BLOCKS, branched_program, fits, random_inputs, random_program
from tests.oracles import numpy_loop
from tests.strategies import KINDS, convolutions
from toolchain.cli.param_types import parse_size
from toolchain.engine import synaptic_sum
from toolchain.engine.dense_sums import Arithmetic
from toolchain.engine.memory_plan import samples_and_steps
from toolchain.engine.simulate import Way, simulate
from toolchain.errors import ProgramError, TargetError, ValueRangeError
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode, Recording, compare
from toolchain.simulator import reference

CONVS = convolutions()
SCHEDULES = {
    "if": st.builds(Schedule, st.integers(1, 64)),
    "graded": st.builds(Schedule, st.integers(1, 64)),
    "cif": st.builds(Schedule, st.integers(1, 12), st.integers(0, 20)),
}


def assert_same_recording(found, expected):
    """Arrays, types and everything in `meta` but what names the way."""
    for group in ("spikes", "membrane", "counts", "digests", "spike_times"):
        a, b = getattr(found, group), getattr(expected, group)
        assert a.keys() == b.keys()
        for name, values in b.items():
            assert a[name].dtype == values.dtype
            assert np.array_equal(a[name], values), (group, name)
    assert np.array_equal(found.logits, expected.logits)
    assert {**found.meta, "way": 0} == {**expected.meta, "way": 0}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_recordings_of_chains(data):
    kind = data.draw(KINDS)
    convs, seed = data.draw(CONVS), data.draw(st.integers(0, 999))
    assume(fits((2, 6, 5), convs))
    schedule = data.draw(SCHEDULES[kind])
    program = random_program(
        seed, kind, (2, 6, 5), convs, schedule=schedule, signed_input=data.draw(st.booleans())
    )
    inputs = random_inputs(program, data.draw(st.integers(1, 9)), seed)
    mode = data.draw(st.sampled_from(Mode))
    assert_same_recording(
        simulate(program, inputs, mode=mode),
        reference.simulate(program, inputs, mode=mode, batch=data.draw(st.integers(1, 4))),
    )


def needed_memory(program, inputs, mode=Mode.FULL):
    """The least memory that one sample needs, as the refusal of less says."""
    with pytest.raises(TargetError, match="one sample needs more memory") as error:
        simulate(program, inputs, mode=mode, memory=1)
    return int(error.value.allowed.split()[1].replace(",", ""))  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_recordings_of_branches(data):
    kind, seed = data.draw(KINDS), data.draw(st.integers(0, 999))
    parts = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    schedule = data.draw(SCHEDULES[kind])
    program = branched_program(seed, kind, parts, schedule=schedule, low=-9, high=9)
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    mode = data.draw(st.sampled_from(Mode))
    times = data.draw(st.none() | st.sampled_from([1, 2, 8]))
    memory = None if times is None else times * needed_memory(program, inputs, mode)
    assert_same_recording(
        simulate(program, inputs, mode=mode, memory=memory),
        reference.simulate(program, inputs, mode=mode),
    )


@pytest.mark.parametrize("forced", list(Arithmetic))
def test_every_arithmetic(forced, monkeypatch):
    """Also against the plain loop, which shares nothing with either."""
    if forced is not Arithmetic.INT8:
        monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: forced)
    for kind, schedule in (("if", Schedule(5)), ("cif", Schedule(3, 4))):
        program = branched_program(5, kind, sorted(BLOCKS), schedule=schedule, low=-9, high=9)
        inputs = random_inputs(program, 3)
        assert_recording_is(simulate(program, inputs), *numpy_loop.run(program, inputs))


def test_more_spikes_than_a_byte_counts():
    """300 samples and 150 steps: both ways of counting in bytes reach their end."""
    program = random_program(1, convs=(), hidden=(6,), schedule=Schedule(150))
    inputs = random_inputs(program, 300)
    for mode in (Mode.COUNTS, Mode.FULL):
        found = simulate(program, inputs, mode=mode)
        assert_same_recording(found, reference.simulate(program, inputs, mode=mode, batch=7))
    counts = found.counts["dense0"]
    assert counts.max() > 127
    assert np.array_equal(counts, found.spikes["dense0"].sum(0, np.int64))


def test_the_step_by_step_way_is_the_oracle():
    program = random_program(1)
    inputs = random_inputs(program, 2)
    assert_same_recording(
        simulate(program, inputs, way=Way.STEPWISE), reference.simulate(program, inputs)
    )


def test_refusals():
    program = random_program(1)
    inputs = random_inputs(program, 2)
    with pytest.raises(ProgramError):
        simulate(program, inputs[:, :1])
    with pytest.raises(ValueRangeError):
        simulate(program, inputs + 1000)
    needed = needed_memory(program, inputs)
    assert compare(simulate(program, inputs, memory=needed), simulate(program, inputs)).equal
    with pytest.raises(TargetError):
        simulate(program, inputs, memory=needed - 1)


def test_memory_decides_on_samples_and_steps():
    program = random_program(
        0, shape=(2, 24, 24), convs=((16, 3, 1, 1, 1, 1),), low=-9, high=9, schedule=Schedule(32)
    )
    sizes = [samples_and_steps(program, 32, memory=m) for m in (10**7, 10**8, 10**9)]
    assert sizes == sorted(sizes)
    assert samples_and_steps(program, 32)[1] == 32
    few = samples_and_steps(program, 32, memory=3_000_000)
    assert few[1] < 32
    untraced, traced = (
        samples_and_steps(program, 32, memory=10**8, traced=t)[0] for t in (False, True)
    )
    assert traced < untraced


PEAK = """
import sys
from pathlib import Path
import numpy as np
from exports.netx import read_net
from toolchain.recording import Mode
from toolchain.engine.simulate import simulate

program = read_net(Path(sys.argv[1]))
rng = np.random.default_rng(0)
inputs = rng.integers(0, 8, (int(sys.argv[3]), *program.input.shape), np.int32)
def peak():
    # Of this program alone; what getrusage says begins with the parent's.
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
simulate(program, inputs[:1], mode=Mode.DIGEST, memory=int(sys.argv[2]))
before = peak()
simulate(program, inputs, mode=Mode.DIGEST, memory=int(sys.argv[2]))
print(1024 * (peak() - before))
"""


@pytest.mark.parametrize("megabytes", [30, 120])
def test_memory_is_kept_to(tmp_path, megabytes):
    """Peak growth of a process that runs ten times what would fit at once."""
    program = random_program(
        0,
        shape=(2, 32, 32),
        convs=((32, 3, 1, 1, 1, 1), (32, 3, 1, 1, 1, 1)),
        low=-9,
        high=9,
        schedule=Schedule(8),
    )
    write_net(program, tmp_path / "a.net")
    size = megabytes * 10**6
    fit, _ = samples_and_steps(program, 8, memory=size, traced=True)
    result = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "a.net"), str(size), str(10 * fit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=ROOT,
    )
    # 10 MB for what allocators keep.
    assert int(result.stdout) < size + 10e6


def test_sizes():
    assert [parse_size("--memory", t) for t in ("2GB", "1.5g", "512MiB", "7", "3 kB")] == [
        2_000_000_000,
        1_500_000_000,
        512 * 2**20,
        7,
        3000,
    ]


def test_from_the_command_line(tmp_path):
    program = random_program(4, shape=(2, 6, 5))
    write_net(program, tmp_path / "a.net")
    samples = random_inputs(program, 9).astype(np.float32)
    np.savez(tmp_path / "data.npz", test_samples=samples, test_labels=np.zeros(9, int))
    run = ("run", "a.net", "--data", "npz:data.npz@test")
    ok(*run, "-o", "fast.npz", "--memory", "1MB", cwd=tmp_path)
    ok(*run, "-o", "slow.npz", "--engine", "stepwise", cwd=tmp_path)
    ok("compare", "fast.npz", "slow.npz", cwd=tmp_path)
    assert Recording.load(tmp_path / "fast.npz").meta["way"] == "fast"
    sized = (*run, "-o", "x.npz", "--memory")
    for words, how in (
        ("is not a size", ["lots"]),
        ("needs more memory", ["1kB"]),
        ("--engine fast", ["1GB", "--engine", "stepwise"]),
        ("--memory says nothing to the backend lava", ["1GB", "--backend", "lava"]),
    ):
        fails(2, words, *sized, *how, cwd=tmp_path)
    placed = (*run, "-o", "x.npz", "--device", "nonsense")
    fails(2, "no such device", *placed, cwd=tmp_path)
    fails(2, "--engine fast", *placed, "--engine", "stepwise", cwd=tmp_path)
    ok(*run, "-o", "named.npz", "--device", "cpu", cwd=tmp_path)
    ok("compare", "fast.npz", "named.npz", cwd=tmp_path)
