"""All 10,000 test images of CIFAR-10 on Lava, compared with the reference simulator by digest.

    python benchmarks/whole_test_set.py --data imagefolder:../shared/data/cifar10-jpeg.zip

The trained ResNet20 of `papers/cifar-resnet20-nq`, and a VGG16 with seeded weights; 8-bit weights,
T = 4. Digests cover every spike and membrane potential of every layer and step. The exit code is 1
if one value differs.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import make_program  # noqa: E402
from hw_models.lava_compat import LAVA_NC  # noqa: E402
from spikeport.backends import Lava  # noqa: E402

RUN = ROOT / "benchmarks" / "papers" / "cifar-resnet20-nq"
STEPS = 4
TEXT = (
    "{samples} test images, 8-bit weights, T = 4: Lava's processor simulation (the fast models of "
    "this project) against the reference simulator, by digests of every spike and membrane "
    "potential of every layer and step. ResNet20 is trained (NQ), VGG16 has seeded weights and its "
    "pools have neurons. "
    "Seconds of one run each, on {cores} cores that did other work besides."
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, metavar="SOURCE")
    given = parser.parse_args()
    started = time.perf_counter()
    data = f"{given.data}@test"
    programs = {
        "ResNet20, trained": spikeport.convert(RUN, steps=STEPS, calibrate=f"{given.data}@train"),
        "VGG16, seeded": make_program(
            "vgg16", (3, 32, 32), weight_bits=8, target="loihi2", steps=STEPS, pooling="stage"
        ),
    }
    rows, differing, samples = [], 0, 0
    for name, program in programs.items():
        seconds, found = [], []
        for backend in ("reference", Lava("fast", time_limit=36_000)):
            began = time.perf_counter()
            found.append(spikeport.run(program, data, backend=backend, record="digest"))
            seconds.append(time.perf_counter() - began)
            print(name, backend, f"{seconds[-1]:.0f} s", file=sys.stderr, flush=True)
        compared, samples = spikeport.compare(*found), found[0].num_samples
        differing += compared.total
        rows.append(
            (
                name,
                *(f"{s:.0f}" for s in seconds),
                f"{1e3 * seconds[1] / samples:.1f}",
                f"{compared.compared:,}",
                f"{compared.total:,}",
            )
        )
    head = ("", "reference, s", "Lava, s", "Lava, ms per image", "digests compared", "mismatches")
    text = TEXT.format(samples=f"{samples:,}", cores=os.cpu_count())
    Measurement.publish(
        "whole-test-set",
        "A whole test set on Lava",
        text,
        [Table("CIFAR-10", head, tuple(rows))],
        f"python benchmarks/whole_test_set.py --data {given.data}",
        time.perf_counter() - started,
        torch=torch.__version__,
        lava=LAVA_NC,
    )
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
