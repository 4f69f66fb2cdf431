"""Programs and planes that hypothesis draws, for the tests of simulators and backends."""

from contextlib import contextmanager

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.networks import Branches
from toolchain.engine import dispatch, synaptic_sum
from toolchain.engine.events import EventSum
from toolchain.errors import ProgramError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import LIPool, Readout
from toolchain.program.synapse import WindowSynapse


def convolutions(channels=(2, 4, 6), least=0, most=2, upsampled=True):
    """Channels, kernel, stride, padding, dilation and groups of each, for `random_program`.

    Also upsample and overhang, unless `upsampled` is false.
    """
    geometry = (
        st.sampled_from(channels),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 2),
        st.integers(1, 2),
        st.sampled_from([1, 2]),
    )
    more = (st.sampled_from([1, 1, 2, 3]), st.integers(-2, 2)) if upsampled else ()
    possible = st.tuples(*geometry, *more).filter(lambda c: not c[6:] or c[3] + c[7] >= 0)
    return st.lists(possible, min_size=least, max_size=most)


CONVS = convolutions(least=1, most=3)
PLAIN_CONVS = convolutions(least=1, most=3, upsampled=False)


KINDS = st.sampled_from(["if", "cif", "graded"])
SCHEDULES = {
    "if": st.builds(Schedule, st.integers(1, 20)),
    "graded": st.builds(Schedule, st.integers(1, 20)),
    "cif": st.builds(Schedule, st.integers(1, 9), st.integers(0, 12)),
}


SHARES = {"events": 1e9, "mixed": 10.0, "picked": 0.0}


@contextmanager
def choosing(limit):
    """No layer is too small to have its planes chosen; with more spikes than this they are busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventSum, "limit", lambda *_: limit)
        patch.setattr(dispatch, "WORTH_CHOOSING", 2)
        patch.setattr(dispatch, "TOGETHER", 2)
        patch.setattr(synaptic_sum, "FEW_WEIGHTS", 0)
        yield


@st.composite
def pooled_programs(draw):
    """A LIPool of any geometry that has no window of padding alone, behind a 1x1 convolution."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    size, kernel, stride, dilation = pair(1, 7), pair(1, 4), pair(1, 4), pair(1, 2)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    overhang = tuple(draw(st.integers(-p, r)) for p, r in zip(padding, reach, strict=True))
    kind = draw(KINDS)
    net = Branches(draw(st.integers(0, 99)), kind, (2, *size))
    net.add("stem", [net.conv("input", 3, 1)])
    try:
        windows = WindowSynapse("stem", kernel, stride, padding, dilation, overhang)
        net.add("pool", [windows], LIPool())
    except ProgramError:
        assume(False)
    net.add("readout", [net.dense("pool", 2)], Readout(1.0))
    schedule = Schedule(2, 3) if kind == "cif" else Schedule(4)
    return net.program(InputQuantizer((2, *size), 1.0, bits=4, signed=True), schedule)
