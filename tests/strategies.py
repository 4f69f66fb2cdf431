"""Programs and planes that hypothesis draws, for the tests of simulators and backends."""

from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from toolchain.engine import dispatch, synaptic_sum
from toolchain.engine.events import EventSum
from toolchain.program.int_program import Schedule


def convolutions(channels=(2, 4, 6), least=0, most=2):
    """Channels, kernel, stride, padding, dilation and groups of each, for `random_program`."""
    return st.lists(
        st.tuples(
            st.sampled_from(channels),
            st.integers(1, 3),
            st.integers(1, 2),
            st.integers(0, 2),
            st.integers(1, 2),
            st.sampled_from([1, 2]),
        ),
        min_size=least,
        max_size=most,
    )


CONVS = convolutions(least=1, most=3)


SCHEDULES = {
    "if": st.builds(Schedule, st.integers(1, 20)),
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
