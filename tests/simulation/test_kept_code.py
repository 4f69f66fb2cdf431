"""Kept code that is damaged, or cannot be kept, costs time and nothing else; so do forks."""

import json
import os
import shutil
import subprocess
import sys

from tests.command_line import ROOT
from tests.fresh_python import SMALL_LOOPS, python

DAMAGED = """
import importlib.util
import random
import sys
from pathlib import Path

folder = Path(sys.argv[1])
source = folder / "loops.py"
source.write_text("from toolchain.compiled import compiled\\n\\n"
                  "@compiled\\ndef twice(x):\\n    return 2 * x\\n")

def run():
    "A fresh import: the result, and whether its code was kept."
    spec = importlib.util.spec_from_file_location("loops", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.twice(21) == 42
    return sum(module.twice.stats.cache_hits.values())

def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 129]) + content[place + 1:]

DAMAGE = [
    lambda c: b"",
    lambda c: c[: len(c) // 2],
    lambda c: c[:-1],
    lambda c: c[32:],  # as numba itself writes it
    lambda c: flipped(c, 0),
    lambda c: flipped(c, len(c) // 2),
    lambda c: flipped(c, len(c) - 1),
    lambda c: bytes(len(c)),
    lambda c: c + bytes(1),
    lambda c: random.Random(0).randbytes(len(c)),
    lambda c: b"not what was kept",
]
for ending in ("nbi", "nbc"):
    for number, damage in enumerate(DAMAGE):
        run()
        assert run() == 1
        (file,) = folder.rglob(f"*.{ending}")
        file.write_bytes(damage(file.read_bytes()))
        assert run() == 0, (ending, number)
        file.unlink()
        assert run() == 0, (ending, number)
        file.unlink()
        file.mkdir()  # neither read nor written
        assert run() == 0, (ending, number)
        file.rmdir()
print("mended")
"""


def test_damaged_code_is_compiled_again(tmp_path):
    out, err = python(DAMAGED, str(tmp_path), kept=tmp_path / "kept")
    assert out == "mended\n", err


def test_without_a_folder_to_keep_code_in(tmp_path):
    """No home, and no right to write beside the source."""
    shutil.copytree(
        ROOT / "toolchain", tmp_path / "toolchain", ignore=shutil.ignore_patterns("__pycache__")
    )
    for folder in (tmp_path / "toolchain").rglob("*/"):
        if folder.is_dir():
            (folder / "__pycache__").touch()
    result = subprocess.run(
        [sys.executable, "-c", SMALL_LOOPS, "text"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/proc/nowhere",
            "PYTHONPATH": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        },
    )
    assert result.returncode == 0, result.stderr
    assert "array([0, 1])" in result.stdout
    assert "in every run: there is no folder to keep them in" in result.stderr
    assert "Traceback" not in result.stderr


FORKED = """
import multiprocessing
import numpy as np
import torch
from tests.networks import random_inputs, random_program
from toolchain.engine import engine, layers, neuron_layout
from toolchain.engine.simulate import Way, simulate

engine.WORTH_THREADS = layers.WORTH_A_THREAD = neuron_layout.WORTH_A_THREAD = 1
torch.set_num_threads(2)
program = random_program(1, shape=(2, 32, 32), convs=((32, 3, 1, 1, 1, 1),))
inputs = random_inputs(program, 8)
expected = simulate(program, inputs).logits

def child(way):
    assert np.array_equal(simulate(program, inputs, way=way).logits, expected)

context = multiprocessing.get_context("fork")
children = [context.Process(target=child, args=(way,)) for way in (*Way, *Way)]
for process in children:
    process.start()
for process in children:
    process.join(60)
    print(process.exitcode)
    process.kill()
"""
IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from toolchain.engine.dispatch import count_spikes

planes = np.ones((400, 64, 64, 8), np.uint8)
with ThreadPoolExecutor(4) as pool:
    counts = list(pool.map(lambda _: count_spikes(planes, 0).sum(), range(40)))
print(set(map(int, counts)))
"""


def test_both_simulators_run_in_forked_processes():
    """After they have run, in several threads, in the parent."""
    out, err = python(FORKED)
    assert out.split() == ["0"] * 4, err


def test_a_user_may_call_from_several_threads():
    assert python(IN_THREADS)[0].strip() == f"{{{400 * 64 * 64 * 8}}}"


SMALL_RUN = """
import json
import logging
import sys

import numpy as np

import spikeport
from tests.networks import random_inputs, random_program

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
program = random_program(0)
inputs = random_inputs(program, 2)
recording = spikeport.Reference(sys.argv[1]).run(program, inputs)
digests = {name: digest.tolist() for name, digest in recording.digests.items()}
print(json.dumps([recording.meta.get("way", "stepwise"), digests]))
"""


def test_a_small_run_waits_for_no_compiler(tmp_path):
    """Until loops were compiled for a larger run, or at the user's word."""
    results = []
    for engine, way, compiles in (
        ("auto", "stepwise", False),
        ("fast", "fast", True),
        ("auto", "fast", False),
    ):
        run = subprocess.run(
            [sys.executable, "-c", SMALL_RUN, engine],
            cwd=ROOT,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        found, digests = json.loads(run.stdout)
        assert found == way
        assert ("compiling loops" in run.stderr) == compiles
        results.append(digests)
    assert results[0] == results[1] == results[2]
