"""An interpreter of its own, in which nothing was compiled before."""

import os
import subprocess
import sys

from tests.command_line import ROOT

SMALL_LOOPS = """
import sys
import numpy as np
from toolchain.cli.output import Output
from toolchain.conversion.quantization.distinct_columns import distinct_columns

Output(as_json=sys.argv[1] == "json")
print(distinct_columns(np.array([[1.0, 2.0, 1.0]])))
"""


def python(script, *arguments, where=ROOT, kept=None):
    environment = dict(os.environ)
    environment.pop("NUMBA_CACHE_DIR", None)
    if kept is not None:
        environment["NUMBA_CACHE_DIR"] = str(kept)
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=where,
        env={**environment, "PYTHONPATH": str(where)},
    )
    return result.stdout, result.stderr
