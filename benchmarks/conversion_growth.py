"""How time and memory of a conversion grow with the number of weights.

    python benchmarks/conversion_growth.py [--networks vgg16 resnet50] [--widths 0.125 0.25 0.5 1]

Networks at 224x224 pixels in several widths, seeded, converted by `spikeport convert` in a process
of its own with one thread: processor time without that of building the network alone, and peak
memory.
"""

from __future__ import annotations

import argparse
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

from benchmarks.large_networks import CLASSES, NOISE, SHAPE, STEPS  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import source_network  # noqa: E402

VARIABLES = ("GROWTH_NETWORK", "GROWTH_WIDTH")
LEAST = 2.0
"""Seconds from which on an exponent says something."""
TEXT = (
    "`spikeport convert` at 224x224 pixels, 1000 classes, T = {steps}, seeded random weights of 8 "
    "bits, average pools as layers; processor seconds of one thread in a process of its own, "
    "without those of building the network alone, and its peak memory. The exponent is the slope "
    "in logarithms from the row above, where both take {least:g} s or more (differences of two "
    "runs vary by about one): 1 is linear."
)


def network() -> Any:
    """The network that the environment names."""
    name, width = (os.environ[variable] for variable in VARIABLES)
    return source_network(name, SHAPE, float(width), classes=CLASSES, noise=NOISE)


def taken(command: list[str], name: str, width: float, folder: str) -> tuple[float, float]:
    """Processor seconds and peak memory in GB of `python COMMAND`."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    own |= dict(zip(VARIABLES, (name, str(width)), strict=True))
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def weights(path: Path) -> int:
    """Number of weights in a network file."""
    import spikeport

    arrays = [s.arrays() for p in spikeport.load(path).populations for s in p.synapses]
    return sum(of_one["weight"].size for of_one in arrays if "weight" in of_one)


def measure(name: str, widths: list[float], folder: str) -> Table:
    """One network in all widths."""
    shape = ",".join(map(str, SHAPE))
    convert = ["-m", "toolchain.cli", "convert", f"{Path(__file__).resolve()}:network"]
    convert += ["--input-shape", shape, "--steps", str(STEPS), "--pooling", "stage"]
    convert += ["-o", "net.net"]
    build = ["-c", "import benchmarks.conversion_growth as growth; growth.network()"]
    rows: list[tuple[str, ...]] = []
    before: tuple[float, float] | None = None
    for width in widths:
        built, _ = taken(build, name, width, folder)
        whole, memory = taken(convert, name, width, folder)
        point = (float(weights(Path(folder) / "net.net")), whole - built)
        exponent = "-"
        if before is not None and min(point[1], before[1]) >= LEAST:
            more, longer = (np.log(now / then) for now, then in zip(point, before, strict=True))
            exponent = f"{longer / more:.2f}"
        cells = (f"{point[0] / 1e6:.1f}", f"{point[1]:.1f}", exponent, f"{memory:.2f}")
        rows.append((f"width {width:g}", *cells))
        before = point
        print(name, *rows[-1], file=sys.stderr, flush=True)
    head = ("", "million weights", "seconds", "exponent", "GB")
    return Table(name, head, tuple(rows))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16", "resnet50"])
    parser.add_argument("--widths", nargs="+", type=float, default=[0.125, 0.25, 0.5, 1.0])
    given = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tables = [measure(name, given.widths, folder) for name in given.networks]
    Measurement.publish(
        "conversion-growth",
        "Growth of a conversion",
        TEXT.format(steps=STEPS, least=LEAST),
        tables,
        " ".join(["python", "benchmarks/conversion_growth.py", *sys.argv[1:]]),
        time.perf_counter() - started,
        numpy=np.__version__,
    )


if __name__ == "__main__":
    main()
