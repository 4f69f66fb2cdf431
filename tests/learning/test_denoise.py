"""Background activity taken out of recordings, by a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.event_files import FIELDS, dat_file, moving_square
from toolchain.errors import DataError
from toolchain.learning.data import open_split
from toolchain.learning.data.camera_events import Events
from toolchain.learning.data.denoise import supported
from toolchain.learning.data.event_files import read_events


def supported_by_hand(rows, window):
    """Whether an earlier event of one of the eight neighbours came at most `window` before."""
    return [
        any(
            (abs(x - a), abs(y - b)) in ((0, 1), (1, 0), (1, 1)) and t - s <= window
            for s, a, b, _ in rows[:index]
        )
        for index, (t, x, y, _) in enumerate(rows)
    ]


@settings(max_examples=100)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 6), st.integers(0, 4), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    window=st.integers(1, 20),
)
def test_denoising_is_the_plain_loop(rows, window):
    rows.sort(key=lambda row: row[0])
    t, x, y, on = (np.array(values) for values in zip(*rows, strict=True))
    found = supported(Events(t, x, y, on), window)
    assert found.tolist() == supported_by_hand(rows, window)


def test_denoised_recordings(tmp_path, caplog):
    folder = tmp_path / "d"
    for index, name in enumerate(("right", "up")):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "0.dat").write_bytes(dat_file(moving_square(3 * index)))
    kept = read = 0
    clean = open_split(f"events:{folder},frames=4,denoise=300@test")
    for file in sorted((folder / "test").rglob("*.dat")):
        found = read_events(file)
        rows = list(zip(found.t, found.x, found.y, found.on, strict=True))
        read += len(rows)
        kept += sum(supported_by_hand(rows, 300))
    assert 0 < kept < read
    assert clean.samples.sum() == kept
    assert f"denoise=300 takes out {read - kept} of {read} events" in caplog.text
    assert ",frames=4,denoise=300@" in clean.name
    lonely = np.array([(t, 3 * t, 1, 1) for t in range(9)], FIELDS)
    (folder / "test" / "up" / "a.dat").write_bytes(dat_file(lonely))
    with pytest.raises(DataError, match="denoise= takes out every event"):
        open_split(f"events:{folder},frames=4,denoise=1000")
