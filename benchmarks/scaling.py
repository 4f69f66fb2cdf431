"""One run shared among processes and the workers of a cluster: time, traffic, and 100 workers.

    python benchmarks/scaling.py [--samples 96]

A seeded ResNet18 at 64x64 with digests of every spike and potential, on this machine: one process
of one thread, one and two workers of a Dask cluster (processes of one thread), two processes
without it. Ways take turns; recordings are compared. From the traffic of a sample follows what more
workers would bring.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import images, make_program  # noqa: E402
from spikeport.backends import Reference  # noqa: E402
from spikeport.running import run_inputs  # noqa: E402
from toolchain.recording import Mode  # noqa: E402
from toolchain.workers import Workers, open_workers  # noqa: E402

MODEL, SIDE, ROUNDS = "resnet18", 64, 2
TEXT = (
    "{model} at {side}x{side}, T = 4, {samples} images of noise, digests of every spike and "
    "potential; medians of {rounds} rounds on {cores} cores. Workers have one thread each. All "
    "recordings are the same, value for value.\n\n"
    "A worker gets the network once ({network:.1f} MB) and {sent:.1f} KB per image (one byte a "
    "pixel and channel); it takes {each:.0f} ms per image and sends {back:.1f} KB per image back. "
    "On paper, 50,000 images of 224x224 (150 KB each) on 100 workers: the caller sends 7.5 GB, "
    "60 s of a link of 1 Gbit/s, which is the bound for any network that takes a worker less than "
    "120 ms per image; slower ones take 500 images' time per worker. The network (of ResNet50 "
    "27 MB) goes from the scheduler to some workers, and from these to the others. A worker holds "
    "two parts of at most 4 MB and the memory of one process; the caller the images as they were "
    "read, and the results. A part that is lost costs the time of some 27 images."
)


def main() -> None:
    """Measure, and write the table."""
    from distributed import LocalCluster

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=96)
    given = parser.parse_args()
    started = time.perf_counter()
    program = make_program(MODEL, (3, SIDE, SIDE), weight_bits=8, target="loihi2", steps=4)
    inputs = images(program, given.samples).astype(np.int32)
    ways: dict[str, Workers] = {"one process": Workers()}
    times: dict[str, list[float]] = {}
    recordings = {}
    with ExitStack() as stack:
        for count in (1, 2):
            how = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": ":0"}
            cluster = stack.enter_context(LocalCluster(**how))
            address = cluster.scheduler_address
            ways[f"cluster, {count} worker" + "s" * (count > 1)] = stack.enter_context(
                open_workers(scheduler=address)
            )
        ways["2 processes"] = stack.enter_context(open_workers(2))
        for _ in range(ROUNDS):
            for name, workers in ways.items():
                began = time.perf_counter()
                recording = run_inputs(program, inputs, Reference(), Mode.DIGEST, None, workers)
                times.setdefault(name, []).append(time.perf_counter() - began)
                recordings.setdefault(name, recording)
    first = recordings["one process"]
    assert all(spikeport.compare(first, other).equal for other in recordings.values())
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "a.npz")
        back = (Path(folder) / "a.npz").stat().st_size / given.samples
    alone = median(times["one process"])
    rows = tuple(
        (name, f"{median(t):.1f}", f"{alone / median(t):.2f}") for name, t in times.items()
    )
    text = TEXT.format(
        model=MODEL,
        side=SIDE,
        samples=given.samples,
        rounds=ROUNDS,
        cores=os.cpu_count(),
        network=len(pickle.dumps(program)) / 1e6,
        sent=inputs[0].size / 1e3,
        each=1e3 * alone / given.samples,
        back=back / 1e3,
    )
    Measurement.publish(
        "scaling",
        "Many processes and machines",
        text,
        [Table("One run of all images", ("", "s", "times one process"), rows)],
        f"python benchmarks/scaling.py --samples {given.samples}",
        time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
