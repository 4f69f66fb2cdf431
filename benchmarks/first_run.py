"""Processor time until a first result: commands where nothing was compiled before, and again.

    python benchmarks/first_run.py [--rounds 3]

A small network (digits, LeNet at half width) is converted and run, each command in an interpreter
of its own. Cold, NUMBA_CACHE_DIR is an empty folder; warm, it is the folder that the cold command
filled. Seconds are those of the processor, user and system, with one thread: the wall says more
about what else the machine does.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numba

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report.speed import Measurement, Table  # noqa: E402

TRAIN = "train --data digits --model lenet --width 0.5 --epochs 2 --initial-threshold 2 --out run"
COMMANDS = {
    "import spikeport": None,
    "convert": "convert run -o net.net --steps 4",
    "run, 20 samples": "run net.net --data digits@test[:20] -o one.npz",
    "audit, 20 samples": "audit net.net --data digits@test[:20] --checkpoint run --html a.html",
    "run, 20 samples, --engine fast": "run net.net --data digits@test[:20] -o two.npz "
    "--engine fast",
}
TEXT = (
    "Seconds of processor time of one command in an interpreter of its own: cold, where no loop "
    "was compiled on this machine before, and warm. Medians of {rounds} rounds. A small run takes "
    "the simulator that needs no compiling (`--engine auto`), so that nobody waits for the first."
)


def seconds(command: str | None, folder: Path, kept: Path) -> float:
    """Processor time of a command in `folder`, with compiled loops kept in `kept`."""
    module = ["-c", "import spikeport"] if command is None else ["-m", "toolchain.cli"]
    environment = {"NUMBA_CACHE_DIR": str(kept), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *module, *(command or "").split()],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int, folder: Path) -> Table:
    seconds(TRAIN, folder, folder / "training")
    found: dict[str, dict[str, list[float]]] = {n: {"cold": [], "warm": []} for n in COMMANDS}
    for number in range(rounds):
        for name, command in COMMANDS.items():
            kept = folder / f"kept-{number}-{len(name)}"
            for when in ("cold", "warm"):
                found[name][when].append(seconds(command, folder, kept))
    rows = (
        (name, *(f"{statistics.median(values):.2f}" for values in by.values()))
        for name, by in found.items()
    )
    return Table("Seconds of processor time", ("", "cold", "warm"), tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(rounds, Path(folder))
    Measurement.publish(
        "first-run",
        "Time to a first result",
        TEXT.format(rounds=rounds),
        [table],
        f"python benchmarks/first_run.py --rounds {rounds}",
        time.perf_counter() - started,
        numba=numba.__version__,
    )


if __name__ == "__main__":
    main()
