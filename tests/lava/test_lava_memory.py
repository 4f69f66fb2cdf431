"""A Lava run of many images needs no more memory than one of few."""

import json
import subprocess
import sys

import numpy as np
import pytest

from exports.netx import write_net
from tests.command_line import ROOT
from tests.networks import random_program
from toolchain.program.int_program import Schedule

pytestmark = pytest.mark.alone
PROGRAM = """
import json, resource, sys
from pathlib import Path
import numpy as np
from exports.lava import LavaModels, run_on_lava, runner
from exports.netx import read_net
from toolchain.recording import Mode

program = read_net(Path(sys.argv[1]))
runner.CHUNK_SAMPLES = 32
peaks = []
for count in (32, 640):
    inputs = np.random.default_rng(0).integers(0, 8, (count, *program.input.shape), np.int32)
    found = run_on_lava(program, inputs, models=LavaModels.fast(2, 16), mode=Mode.DIGEST)
    assert len(found.logits) == count
    # Of this program alone; what getrusage says of it begins with its parent's.
    own = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    of_lava = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peaks.append([int(own) / 1024, of_lava / 1024])
print("RESULT" + json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_images(tmp_path):
    program = random_program(
        0, shape=(2, 24, 24), convs=((16, 3, 1, 1, 1, 1),), low=-9, high=9, schedule=Schedule(8)
    )
    neurons = sum(np.prod(p.shape) for p in program.populations)
    write_net(program, tmp_path / "a.net")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "a.net")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert "RESULT" in result.stdout, result.stderr
    (caller, lava), (caller_after, lava_after) = json.loads(result.stdout.split("RESULT")[1])
    # In MiB: the spikes and potentials of 608 more images, had they been kept.
    traces = 608 * neurons * 8 * 5 / 2**20
    assert traces > 200
    assert lava_after < lava + 20
    # The images themselves, and a logit each.
    assert caller_after < caller + 20
