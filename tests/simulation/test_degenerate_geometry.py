"""Convolutions of odd shape, each way of summing them, against plain loops.

One wide or one high, seeing mostly or only padding, several outputs for each depthwise channel,
strides beyond the kernel: libraries choose other code for these than for common layers.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.networks import spiking
from tests.oracles.numpy_loop import convolve, run
from tests.strategies import KINDS, SHARES, choosing
from toolchain.engine import dense_sums, synaptic_sum
from toolchain.engine.dense_sums import Arithmetic
from toolchain.engine.events import EventSum
from toolchain.engine.simulate import Way, simulate
from toolchain.engine.spike_encoding import CodedSpikes
from toolchain.engine.synaptic_sum import SynapticSum
from toolchain.errors import BackendRunError, ProgramError
from toolchain.int_range import IntRange
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import Readout
from toolchain.program.spike_ranges import sums_by_place, weight_sums
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.program.synops import synapse_fan_out
from toolchain.recording import Mode
from toolchain.simulator import currents
from toolchain.simulator.currents import WITHOUT_NNPACK, ExactCurrent

PAIRS = {
    "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
    "upsample": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "overhang": st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    "plane": st.tuples(st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 2, 3, 8])),
}
GROUPS = st.sampled_from([(1, 6, 1), (2, 4, 2), (3, 6, 3), (4, 4, 4), (2, 3, 1), (4, 8, 2)])
"""Channels in, channels out, groups."""
ONLY_PADDING = {
    "kernel": (2, 2),
    "stride": (1, 1),
    "padding": (1, 1),
    "dilation": (2, 2),
    "upsample": (1, 1),
    "overhang": (0, 0),
    "plane": (1, 1),
    "groups": (1, 6, 1),
}
ONE_WIDE = {
    "kernel": (2, 2),
    "stride": (1, 2),
    "padding": (0, 0),
    "dilation": (1, 1),
    "upsample": (1, 1),
    "overhang": (0, 0),
    "plane": (8, 3),
    "groups": (1, 6, 1),
}


def odd_synapse(seed, kernel, plane, groups, **geometry):
    """A convolution of random 8-bit weights from the input; rejects what has no output."""
    c_in, c_out, parts = groups
    weight = np.random.default_rng(seed).integers(-128, 128, (c_out, c_in // parts, *kernel))
    try:
        synapse = ConvSynapse("input", weight, groups=parts, **geometry)
        synapse.output_shape((c_in, *plane))
    except ProgramError:
        assume(False)
    return synapse


def assert_sums(synapse, plane, reach, arithmetic, seed=0):
    """The sums of two steps of two samples are those of the definition."""
    channels = synapse.weight.shape[1] * synapse.groups
    shape = (2, 2, *plane, channels)
    spikes = np.random.default_rng(seed).integers(reach[0], reach[1] + 1, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: arithmetic)
        total = SynapticSum("conv", synapse, (channels, *plane), IntRange(*reach))
    found = total(CodedSpikes((spikes - reach[0]).astype(np.uint8), -reach[0], ()), slice(0, 2))
    assert np.array_equal(found, of_definition(synapse, spikes))
    return total


def of_definition(synapse, spikes):
    """Sums of spikes (T, n, H, W, C) by the plain loop."""
    return np.array(
        [
            [by_definition(synapse, synapse.weight, x.transpose(2, 0, 1)) for x in step]
            for step in spikes
        ]
    ).transpose(0, 1, 3, 4, 2)


@settings(max_examples=100, deadline=None)
@example(seed=0, **ONLY_PADDING, reach=(-1, 1), limit=1e9, arithmetic=Arithmetic.INT8)
@example(seed=0, **ONE_WIDE, reach=(0, 1), limit=0.0, arithmetic=Arithmetic.INT8)
@given(
    seed=st.integers(0, 999),
    **PAIRS,
    groups=GROUPS,
    reach=st.sampled_from([(0, 1), (-1, 1), (0, 9)]),
    limit=st.sampled_from([*SHARES.values(), None]),
    arithmetic=st.sampled_from(list(Arithmetic)),
)
def test_every_way_sums_odd_convolutions(seed, reach, limit, arithmetic, **geometry):
    """int8 too, where the processor may give other sums: those are found out and not used."""
    synapse = odd_synapse(seed, **geometry)
    if limit is None:
        assert_sums(synapse, geometry["plane"], reach, arithmetic, seed)
        return
    with choosing(limit):
        assert_sums(synapse, geometry["plane"], reach, arithmetic, seed)


@settings(max_examples=25, deadline=None)
@example(seed=0, kind="if", **ONLY_PADDING)
@example(seed=0, kind="cif", **ONE_WIDE)
@given(seed=st.integers(0, 999), kind=KINDS, **PAIRS, groups=GROUPS)
def test_both_simulators_run_odd_networks(seed, kind, **geometry):
    synapse = odd_synapse(seed, **geometry)
    rng = np.random.default_rng(seed)
    shape = (geometry["groups"][0], *geometry["plane"])
    here = synapse.output_shape(shape)
    conv = Population(
        "conv", here, (synapse,), rng.integers(-50, 51, here[0]), spiking(rng, kind, here[0], 900)
    )
    dense = DenseSynapse("conv", rng.integers(-128, 128, (3, int(np.prod(here)))))
    readout = Population("readout", (3,), (dense,), [1, 2, 3], Readout(1.0))
    schedule = Schedule(3, 2) if kind == "cif" else Schedule(4)
    program = IntProgram("odd", InputQuantizer(shape, 1.0, bits=3), (conv, readout), schedule)
    inputs = rng.integers(0, 8, (2, *shape)).astype(np.int32)
    spikes, membrane = run(program, inputs)
    for way in Way:
        found = simulate(program, inputs, mode=Mode.FULL, way=way)
        assert np.array_equal(found.spikes["conv"], spikes["conv"]), way
        for name, expected in membrane.items():
            assert np.array_equal(found.membrane[name], expected), (way, name)


CONV = ConvSynapse("input", np.arange(108).reshape(3, 4, 3, 3) - 50, padding=(1, 1))


def off_by_one_where_it_fires(honest):
    """Sums that are right only where nothing arrives, as a kernel's wrong part may be."""

    def wrong(self, coded, offset):
        total = honest(self, coded, offset)
        return total + (total != 0)

    return wrong


def raises_always(*_):
    raise RuntimeError("could not create a primitive")


WRONG = {
    "inexact": (off_by_one_where_it_fires, "are not exact here"),
    "raises": (lambda _: raises_always, "fail here (could not create a primitive)"),
}


@pytest.mark.parametrize("silent", [0, 2], ids=["first", "later"])
@pytest.mark.parametrize("way", ["int8", "float32"])
@pytest.mark.parametrize(("make_wrong", "told"), WRONG.values(), ids=WRONG)
def test_products_that_are_wrong_are_made_in_another_way(
    way, silent, make_wrong, told, monkeypatch, caplog
):
    """Also where the first planes of a run, which are compared, are silent."""
    kind = {"int8": dense_sums._Int8Convolution, "float32": dense_sums._FloatConvolution}[way]
    wrong = make_wrong(kind.__call__)

    def of_way(self, coded, offset):
        exact = way == "float32" and self._weight.dtype is torch.float64
        return kind.honest(self, coded, offset) if exact else wrong(self, coded, offset)  # type: ignore[attr-defined]

    monkeypatch.setattr(kind, "honest", kind.__call__, raising=False)
    monkeypatch.setattr(kind, "__call__", of_way)
    monkeypatch.setattr(synaptic_sum, "choose_arithmetic", lambda *_: Arithmetic(way))
    spikes = np.random.default_rng(0).integers(0, 2, (4, 1, 5, 5, 4))
    spikes[:silent] = 0
    total = SynapticSum("conv", CONV, (4, 5, 5), IntRange(0, 1))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            coded = CodedSpikes(spikes.astype(np.uint8), 0, (4, 5, 5))
            assert np.array_equal(total(coded, slice(0, 1)), of_definition(CONV, spikes))
    (record,) = caplog.records
    assert record.getMessage().startswith(f"conv: {way} sums")
    assert told in record.getMessage()


def test_products_that_cannot_be_made(monkeypatch, caplog):
    """Of the operators of another version, say: the next arithmetic is taken at once."""
    monkeypatch.setattr(dense_sums._Int8Convolution, "__init__", raises_always)
    with caplog.at_level(logging.WARNING):
        total = assert_sums(CONV, (5, 5), (-1, 1), Arithmetic.INT8)
    assert total.arithmetic is Arithmetic.FLOAT32
    assert [r.getMessage().partition(" sums")[0] for r in caplog.records] == ["conv: int8"]


@pytest.mark.parametrize("kind", ["__init__", "__call__"])
def test_no_way_is_left(kind, monkeypatch, caplog):
    for products_of in (dense_sums._Int8Convolution, dense_sums._FloatConvolution):
        monkeypatch.setattr(products_of, kind, raises_always)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(BackendRunError, match=r"(?s)conv: .*no other way.*another torch"),
    ):
        assert_sums(CONV, (5, 5), (-1, 1), Arithmetic.INT8)
    ways = [r.getMessage().partition(" sums")[0] for r in caplog.records]
    assert ways == ["conv: int8", "conv: float32"]


def test_nothing_is_left_to_compare_with(monkeypatch):
    monkeypatch.setattr(currents, "synaptic_current", raises_always)
    with pytest.raises(BackendRunError, match="no other way"):
        assert_sums(CONV, (5, 5), (-1, 1), Arithmetic.FLOAT32)
    with pytest.raises(BackendRunError, match="no other way"):
        ExactCurrent("conv", CONV, IntRange(0, 1))(torch.zeros(1, 4, 5, 5, dtype=torch.int64))


def test_missing_memory_is_not_another_way(monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(dense_sums._FloatConvolution, "__call__", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        assert_sums(CONV, (5, 5), (-1, 1), Arithmetic.FLOAT32)


@pytest.mark.parametrize("fails", [False, True])
def test_events_that_are_wrong_become_products(fails, monkeypatch, caplog):
    def wrong(self, arriving, numbers, which, counts, total):
        honest(self, arriving, numbers, which, counts, total)
        total += 1
        if fails:
            raises_always()

    honest = EventSum.put
    monkeypatch.setattr(EventSum, "put", wrong)
    with choosing(1e9), caplog.at_level(logging.WARNING):
        assert_sums(CONV, (5, 5), (-1, 1), Arithmetic.FLOAT32)
    assert [r.getMessage().partition(" sums")[0] for r in caplog.records] == ["conv: event"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_stepwise_simulator_takes_float64_where_float32_is_wrong(fails, monkeypatch, caplog):
    honest = currents.synaptic_current

    def wrong(synapse, spikes, dtype):
        if fails and dtype is torch.float32:
            raises_always()
        total = honest(synapse, spikes, dtype)
        return total + (total != 0) * int(dtype is torch.float32)

    monkeypatch.setattr(currents, "synaptic_current", wrong)
    current = ExactCurrent("conv", CONV, IntRange(0, 1))
    spikes = np.random.default_rng(0).integers(0, 2, (2, 4, 5, 5))
    expected = of_definition(CONV, spikes.transpose(0, 2, 3, 1)[None])[0]
    silence = torch.zeros(3, 4, 5, 5, dtype=torch.int64)
    with caplog.at_level(logging.WARNING):
        assert not current(silence).any()
        found = current(torch.from_numpy(spikes)).numpy().transpose(0, 2, 3, 1)
    assert np.array_equal(found, expected.astype(np.int64))
    assert len(caplog.records) == 1


def by_definition(synapse, weight, x):
    """The convolution of one sample (C, H, W) with other weights of the same shape."""
    geometry = (synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
    return convolve(x, weight, *geometry, synapse.upsample, synapse.overhang)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), **PAIRS, groups=GROUPS)
def test_fan_outs_and_bounds_of_odd_convolutions(seed, **geometry):
    """A spike reaches as many outputs as weights of one make of it; no sum passes its bound."""
    synapse = odd_synapse(seed, **geometry)
    shape = (geometry["groups"][0], *geometry["plane"])
    ones, spike = np.ones_like(synapse.weight), np.zeros(shape, int)
    site = tuple(np.random.default_rng(seed).integers(0, shape))
    spike[site] = 1
    assert synapse_fan_out(synapse, shape)[site] == by_definition(synapse, ones, spike).sum()
    positive, negative = weight_sums(synapse)
    all_on = np.ones(shape, int)
    highest = by_definition(synapse, np.maximum(synapse.weight, 0), all_on).max((1, 2))
    lowest = by_definition(synapse, np.minimum(synapse.weight, 0), all_on).min((1, 2))
    assert (highest <= positive).all()
    assert (lowest >= negative).all()
    above, below = sums_by_place(synapse, shape)
    assert (above == by_definition(synapse, np.maximum(synapse.weight, 0), all_on)).all()
    assert (below == by_definition(synapse, np.minimum(synapse.weight, 0), all_on)).all()


@given(seed=st.integers(0, 999), apart=st.integers(1, 4), dilation=st.integers(1, 4))
def test_the_bound_of_an_upsampled_source_is_reached(seed, apart, dilation):
    """By some output, on a plane that is large enough."""
    weight = np.random.default_rng(seed).integers(-128, 128, (2, 1, 3, 1))
    how = {"upsample": (apart, 1), "dilation": (dilation, 1)}
    synapse = ConvSynapse("input", weight, **how)
    positive, negative = weight_sums(synapse)
    all_on = np.ones((1, 24, 1), int)
    highest = by_definition(synapse, np.maximum(weight, 0), all_on).max((1, 2))
    lowest = by_definition(synapse, np.minimum(weight, 0), all_on).min((1, 2))
    assert (highest == positive).all()
    assert (lowest == negative).all()


def test_nnpack_is_off_until_the_last_thread_has_left():
    """One thread enters in the block of another, and leaves it later."""
    enabled = torch._C._get_nnpack_enabled
    entered, leave = Event(), Event()

    def other():
        with WITHOUT_NNPACK:
            entered.set()
            assert leave.wait(60)
            return enabled()

    before = torch.backends.nnpack.set_flags(True)
    try:
        with ThreadPoolExecutor(1) as pool:
            with WITHOUT_NNPACK:
                found = pool.submit(other)
                assert entered.wait(60)
            still = enabled()
            leave.set()
            assert (still, found.result()) == (False, False)
        assert enabled()
    finally:
        torch.backends.nnpack.set_flags(*before)
