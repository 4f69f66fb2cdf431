"""Time per image of Lava's fast models, beside that of the engine.

    python benchmarks/lava_and_engine.py [--rounds 5]

VGG11, VGG16 and ResNet18 at 32x32 with seeded random weights of 8 bits, T = 4, batches of 16 images
of noise, without recordings. Each way is an interpreter of its own, warmed up, and ways take turns;
steps in which Lava's pipeline fills are not counted. Wall time is with as many threads or processes
as there are cores, processor time with one thread and one process. Ratios are medians of those of
each round.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.lava_speed import run_child  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import images, make_program  # noqa: E402
from hw_models.lava_compat import LAVA_NC  # noqa: E402

NETWORKS = ("vgg11", "vgg16", "resnet18")
STEPS, BATCH, BATCHES = 4, 16, 10
TEXT = (
    "Seeded random weights of 8 bits, 3x32x32, T = 4, batches of 16 images, without recordings: "
    "milliseconds per image of the engine and of Lava's processor simulation with the fast models. "
    "The wall with {cores} threads and {cores} Lava blocks, on {cores} cores that may have done "
    "other work besides; processor time, which says more, with one of each. Medians of {rounds} "
    "rounds in which both take turns, as do the networks; ratios are medians of those of each "
    "round."
)


def engine(path: Path) -> dict[str, float]:
    """Seconds per image of the engine: of the wall, and of the processor."""
    from exports.netx import read_net
    from toolchain.engine.engine import Engine

    program = read_net(path)
    runs, inputs = Engine(program), images(program, BATCH)
    for number in range(BATCHES + 2):
        if number == 2:
            started, busy = time.perf_counter(), time.process_time()
        for _, blocks in runs.passes(inputs):
            for _ in blocks:
                pass
    count = BATCH * BATCHES
    return {
        "image": (time.perf_counter() - started) / count,
        "processor": (time.process_time() - busy) / count,
    }


def in_a_process(path: Path, threads: int) -> dict[str, float]:
    """`engine` in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, __file__, "--engine", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(result.stdout.rpartition("RESULT")[2]))


def one_round(path: Path, cores: int) -> tuple[float, ...]:
    """Milliseconds per image: wall of engine and Lava, processor time of engine and Lava."""
    measured = STEPS * BATCHES

    def lava(blocks: int) -> dict[str, float]:
        return run_child(path, "fast", {"blocks": blocks, "batch": BATCH, "measured": measured})

    wall = [in_a_process(path, cores)["image"], lava(cores)["image"]]
    busy = [in_a_process(path, 1)["processor"], lava(1)["processor"]]
    return tuple(1e3 * seconds for seconds in (*wall, *busy))


def row(name: str, rounds: list[tuple[float, ...]]) -> tuple[str, ...]:
    """A line of the table."""
    found = np.array(rounds)
    wall, lava_wall, busy, lava_busy = np.median(found, axis=0)
    ratios = np.median(found[:, 1::2] / found[:, ::2], axis=0)
    cells = (wall, lava_wall, ratios[0], busy, lava_busy, ratios[1])
    return (name, *(f"{value:.2f}" for value in cells))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        print("RESULT" + json.dumps(engine(given.engine)))
        return
    from exports.netx import write_net

    started, cores = time.perf_counter(), len(os.sched_getaffinity(0))
    found: dict[str, Any] = {name: [] for name in NETWORKS}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.net" for name in NETWORKS}
        for name, path in files.items():
            program = make_program(name, (3, 32, 32), weight_bits=8, target="loihi2", steps=STEPS)
            write_net(program, path)
        for number in range(given.rounds):
            for name, path in files.items():
                found[name].append(one_round(path, cores))
                print(f"round {number + 1}: {name}, {found[name][-1]}", file=sys.stderr)
    head = (
        "",
        "engine, wall",
        "Lava, wall",
        "ratio",
        "engine, processor",
        "Lava, processor",
        "ratio",
    )
    rows = tuple(row(name, rounds) for name, rounds in found.items())
    Measurement.publish(
        "lava-and-engine",
        "Lava beside the engine",
        TEXT.format(cores=cores, rounds=given.rounds),
        [Table("ms per image", head, rows)],
        f"python benchmarks/lava_and_engine.py --rounds {given.rounds}",
        time.perf_counter() - started,
        numpy=np.__version__,
        **{"lava-nc": LAVA_NC},
    )


if __name__ == "__main__":
    main()
