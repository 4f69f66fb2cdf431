"""Compiling is announced once, and kept code is not used for what has changed."""

import shutil

import pytest

from tests.command_line import ROOT
from tests.fresh_python import SMALL_LOOPS, python

NOTICE = "compiling loops for this processor: once, for up to half a minute"
EVENTS = """
import numpy as np
from toolchain.int_range import IntRange
from toolchain.engine.event_loops import put_sums
from toolchain.engine.events import EventSum

weight = np.arange(1, 65).reshape(64, 1, 1, 1)
total = np.zeros((1, 1, 1, 64), np.int32)
sums = EventSum(weight, ((1, 1), (0, 0), (1, 1)), (1, 1, 1), IntRange(0, 1))
sums.put(np.ones((1, 1, 1, 1), np.uint8), np.arange(1), np.arange(1), np.ones(1, int), total)
print(total.sum(), sum(put_sums.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("how", ["text", "json"])
def test_compiling_is_announced_once_and_not_with_json(tmp_path, how):
    out, err = python(SMALL_LOOPS, how, kept=tmp_path)
    assert "array([0, 1])" in out
    assert err.count(NOTICE) == (how == "text")
    again, err = python(SMALL_LOOPS, how, kept=tmp_path)
    assert again == out
    assert NOTICE not in err


def test_code_is_compiled_again_when_the_vectors_in_it_change(tmp_path):
    shutil.copytree(
        ROOT / "toolchain", tmp_path / "toolchain", ignore=shutil.ignore_patterns("*.nb?")
    )
    assert python(EVENTS, where=tmp_path)[0].split() == ["2080", "0"]
    assert python(EVENTS, where=tmp_path)[0].split() == ["2080", "1"]
    vectors = tmp_path / "toolchain/engine/simd.py"
    text = vectors.read_text()
    assert "added.append(builder.add(" in text
    vectors.write_text(text.replace("added.append(builder.add(", "added.append(builder.sub("))
    found, hits = python(EVENTS, where=tmp_path)[0].split()
    assert found != "2080"
    assert hits == "0"
