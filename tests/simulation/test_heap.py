"""Freed memory stays with the process that asked for it."""

import os
import subprocess
import sys

import pytest

from tests.command_line import ROOT

RESIDENT = """
import sys
from pathlib import Path
import numpy as np
from toolchain.cli.heap import keep_heap

def resident():
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) >> 10

if sys.argv[1] == "kept":
    keep_heap()
before = resident()
array = np.ones(12_500_000)
del array
print(resident() - before)
"""


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="looks at glibc's heap")
@pytest.mark.parametrize(("how", "kept"), [("kept", True), ("plain", False)])
def test_a_freed_array_stays(how, kept):
    result = subprocess.run(
        [sys.executable, "-c", RESIDENT, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    )
    assert (int(result.stdout) > 90) is kept
