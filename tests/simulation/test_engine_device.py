"""Layers as tensors, as they run on a GPU: here on the processor, with the same operations.

Where CUDA is there, every test runs on it as well.
"""

import logging

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.comparing import assert_same
from tests.networks import (
    BLOCKS,
    branched_program,
    fits,
    one_convolution,
    random_inputs,
    random_program,
)
from tests.oracles.numpy_loop import convolve
from tests.strategies import CONVS, KINDS, SCHEDULES
from toolchain.engine import device_sums
from toolchain.engine.device_layers import open_device
from toolchain.engine.device_sums import DeviceSum, byte_shift
from toolchain.engine.engine import Engine
from toolchain.engine.simulate import simulate
from toolchain.errors import BackendRunError, TargetError, ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.recording import Mode, compare
from toolchain.simulator.reference import simulate as simulate_stepwise

DEVICES = [torch.device(d) for d in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_chains(device, data):
    kind = data.draw(KINDS)
    convs, seed = data.draw(CONVS), data.draw(st.integers(0, 999))
    assume(fits((2, 7, 6), convs))
    schedule, signed = data.draw(SCHEDULES[kind]), data.draw(st.booleans())
    program = random_program(seed, kind, (2, 7, 6), convs, schedule=schedule, signed_input=signed)
    inputs = random_inputs(program, data.draw(st.integers(1, 5)), seed)
    assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)), device)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_branches(device, data):
    kind, seed = data.draw(KINDS), data.draw(st.integers(0, 999))
    blocks = data.draw(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3))
    schedule = data.draw(SCHEDULES[kind])
    program = branched_program(seed, kind, blocks, schedule=schedule, low=-9, high=9)
    inputs = random_inputs(program, data.draw(st.integers(1, 4)), seed)
    assert_same(program, inputs, data.draw(st.none() | st.integers(1, 6)), device)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    channels=st.sampled_from([(1, 3, 1), (8, 8, 1), (6, 4, 2), (4, 4, 4)]),
    reach=st.sampled_from([(0, 1), (-1, 1), (0, 255), (-100, 155), (-300, 300)]),
    most=st.sampled_from([127, 3000]),
)
def test_sums_by_definition(device, seed, kernel, stride, padding, dilation, channels, reach, most):
    plane = (5, 6)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= s for n, p, s in zip(plane, padding, spans, strict=True)))
    rng = np.random.default_rng(seed)
    c_in, c_out, groups = channels
    weight = rng.integers(-most - 1, most + 1, (c_out, c_in // groups, *kernel))
    synapse = ConvSynapse("input", weight, stride, padding, dilation, groups)
    total = DeviceSum("conv", synapse, (c_in, *plane), IntRange(*reach), device)
    assert total._int8 == (groups == 1 and most == 127 and reach != (-300, 300))
    spikes = rng.integers(reach[0], reach[1] + 1, (3, *plane, c_in))
    found = total(torch.from_numpy(spikes.astype(np.int32)).to(device)).cpu().numpy()
    for sample, plain in zip(found, spikes.transpose(0, 3, 1, 2), strict=True):
        expected = convolve(plain, weight, stride, padding, dilation, groups)
        assert np.array_equal(sample.transpose(2, 0, 1), expected.astype(np.int64))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_windows_a_few_at_a_time(device, monkeypatch):
    monkeypatch.setattr(device_sums, "WINDOWS", 500)
    program = branched_program(4, "cif", sorted(BLOCKS), schedule=Schedule(3, 4), low=-9, high=9)
    assert_same(program, random_inputs(program, 7), device=device)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (8, True), (12, False), (12, True)])
def test_largest_inputs_and_weights(device, bits, signed):
    program = one_convolution(np.full((1, 1, 3, 3), -128), bits, signed)
    low, high = program.input.range.low, program.input.range.high
    inputs = np.stack([np.full((1, 3, 3), low), np.full((1, 3, 3), high)]).astype(np.int32)
    assert_same(program, inputs, device=device)


@pytest.mark.parametrize(
    ("spikes", "shift"),
    [((0, 1), 0), ((-128, 127), 0), ((0, 255), 128), ((-100, 155), 28), ((0, 128), 1)],
)
def test_spikes_become_signed_bytes(spikes, shift):
    assert byte_shift(IntRange(*spikes)) == shift
    assert spikes[1] - shift <= 127
    assert min(spikes[0], 0) - shift >= -128


@pytest.mark.parametrize("spikes", [(0, 256), (-1, 255), (-129, 127)])
def test_spikes_that_do_not_fit(spikes):
    assert byte_shift(IntRange(*spikes)) is None


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_states_out_of_range_are_named(device):
    cell = Population(
        "cell",
        (1,),
        (DenseSynapse("input", [[1 << 12]], weight_exponent=12),),
        [0],
        IntegrateAndFire([1 << 30], [0]),
    )
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    program = IntProgram(
        "far", InputQuantizer((1,), 1.0), (cell, readout), Schedule(9), 16, state_bits=32
    )
    with pytest.raises(ValueRangeError, match="left its range") as found:
        list(Engine(program, device=device).run(np.array([[255]])))
    assert found.value.node == "cell"


def raises(*_):
    raise RuntimeError("no kernel image\nis available")


def off_where_it_sums(honest):
    return lambda a, b: (total := honest(a, b)) + (total != 0).to(total.dtype)


@pytest.mark.parametrize("first", [0, 1], ids=["silent", "spiking"])
@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(
    ("wrong", "told"),
    [(off_where_it_sums(device_sums._int_product), "are not exact here"), (raises, "fail here")],
    ids=["inexact", "raises"],
)
def test_products_that_are_wrong_become_float64(device, wrong, told, first, monkeypatch, caplog):
    monkeypatch.setattr(device_sums, "_int_product", wrong)
    program = one_convolution(np.full((1, 1, 3, 3), 100))
    inputs = np.repeat([first, 7], 2).reshape(-1, 1, 1, 1) * np.ones((1, 1, 3, 3), int)
    with caplog.at_level(logging.WARNING):
        assert_same(program, inputs.astype(np.int32), device=device)
    messages = [r.getMessage() for r in caplog.records]
    assert [m.partition(" sums")[0] for m in messages] == [
        f"{p.name}: int8" for p in program.populations
    ]
    assert all(told in m for m in messages)


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(
    ("wrong", "told"), [(off_where_it_sums(torch.bmm), "are not exact"), (raises, "no other way")]
)
def test_no_way_is_left_where_float64_is_wrong_too(device, wrong, told, monkeypatch):
    monkeypatch.setattr(device_sums, "_int_product", raises)
    monkeypatch.setattr(torch, "bmm", wrong)
    program = one_convolution(np.full((1, 1, 3, 3), 100))
    with pytest.raises(BackendRunError, match=rf"(?s){told}.*leave out device="):
        list(Engine(program, device=device).run(np.ones((1, 1, 3, 3), int)))


def test_missing_memory_is_not_another_way(monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(device_sums, "_int_product", full)
    program = one_convolution(np.full((1, 1, 3, 3), 100))
    with pytest.raises(RuntimeError, match="allocate memory"):
        list(Engine(program, device=DEVICES[0]).run(np.ones((1, 1, 3, 3), int)))


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_recordings(device, mode):
    program = branched_program(6, "cif", sorted(BLOCKS), schedule=Schedule(3, 5), low=-9, high=9)
    inputs = random_inputs(program, 5)
    found = simulate(program, inputs, mode=mode, device=device)
    expected = simulate_stepwise(program, inputs, mode=mode)
    assert compare(expected, found).equal
    assert found.meta["device"] == str(device)


def test_devices_that_are_not_there():
    for name in ("nonsense", "gpu", "meta", "cuda:-1"):
        with pytest.raises(TargetError, match="no such device"):
            open_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(BackendRunError, match="cannot be used") as error:
            open_device("cuda")
        assert "leave out device=" in str(error.value)
    assert open_device("cpu") == torch.device("cpu")
