"""What graded spikes bring: IF neurons that send up to K spikes of a step as one, by steps.

    python benchmarks/graded.py --data imagefolder:../shared/data/cifar10-jpeg.zip --kept DIR \
        [--images 2000] [--only NAME ...]

The trained networks in benchmarks/papers. What is in DIR already is not measured again. What it
finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from toolchain.accuracy import Flips  # noqa: E402
from toolchain.engine.engine import Engine  # noqa: E402
from toolchain.learning.activations import ActivationMode  # noqa: E402
from toolchain.learning.data import open_split  # noqa: E402
from toolchain.learning.data.dataset import Dataset  # noqa: E402
from toolchain.learning.training.checkpoint import load_checkpoint  # noqa: E402
from toolchain.learning.training.inference import logits, normalised  # noqa: E402
from toolchain.program.synops import fan_out  # noqa: E402
from toolchain.recording import Mode, make_recorders  # noqa: E402

PAPERS = ROOT / "benchmarks" / "papers"
NETWORKS: Mapping[str, str] = {
    "NQ": "cifar-resnet20-nq",
    "NQ, taught": "cifar-resnet20-nq-taught",
    "QCFS, taught": "cifar-resnet20-qcfs-taught",
    "ReLU": "cifar-resnet20-relu",
}
STEPS, LARGEST = (1, 2, 4), (1, 2, 4)
SHORT = {"ReLU": (1, 2)}
"""Steps of networks whose thresholds and weights are fitted anew in each cell."""
TEXT = (
    "ResNet20 on {images} test images of CIFAR-10, 8-bit integers: graded IF neurons, which send "
    "up to K spikes of a step as one message; K = 1 are IF neurons. The quantized networks are "
    "trained with L = 4 levels; the ReLU network is fitted to 256 training images in each cell. "
    "ANN is the trained network itself, in float. Points to another network stand with the images "
    "that only this one, and only the other, has right, and p of McNemar's exact test. A message "
    "counts once, whatever its number, and so do its synops; those of the input are not included."
)


@dataclass(frozen=True)
class Found:
    """What one network gave: which images are right, messages and synops per image."""

    right: np.ndarray
    messages: float = 0.0
    synops: float = 0.0


def kept(path: Path, find: Callable[[], Found]) -> Found:
    """What is in the file, or what `find` finds, which is then put into it."""
    if not path.exists():
        found = find()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, right=found.right, sums=[found.messages, found.synops])
        print(path.stem, f"{100 * found.right.mean():.2f}", file=sys.stderr, flush=True)
    with np.load(path) as file:
        return Found(file["right"], *file["sums"].tolist())


def measure(run: Path, data: str, images: int, steps: int, most: int) -> Found:
    """Convert a trained network for T steps and spikes up to `most`, and run the test images."""
    calibrate = f"{data}@train" if run.name.endswith("relu") else None
    program = spikeport.convert(run, steps=steps, max_spike=most, calibrate=calibrate).program
    test = open_split(f"{data}@test[:{images}]", "test")
    assert isinstance(test, Dataset)
    engine, recorders = Engine(program), make_recorders(program, Mode.COUNTS)
    inputs = program.input.quantize(test.real())
    for start in range(0, images, engine.samples):
        engine.record(inputs[start : start + engine.samples], recorders)
    records = {name: recorder.finish() for name, recorder in recorders.items()}
    sent, fans = {p.name: records[p.name].activity for p in program.spiking}, fan_out(program)
    messages = sum(int(times.sum()) for times in sent.values()) / images
    synops = sum(int((times * fans[name]).sum()) for name, times in sent.items()) / images
    outputs = records[program.readout.name].output
    assert outputs is not None
    return Found(outputs.argmax(1) == test.labels, messages, synops)


def measure_float(run: Path, data: str, images: int) -> Found:
    """Run the test images on the trained network itself."""
    trained, test = load_checkpoint(run), open_split(f"{data}@test[:{images}]", "test")
    assert isinstance(test, Dataset)
    x = normalised(test, trained.config.mean, trained.config.std)
    plain = trained.config.activation == "relu"
    mode = ActivationMode.CLIPPED if plain else ActivationMode.QUANTIZED
    return Found(logits(trained.model, x, mode).argmax(1).numpy() == test.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kept", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    given = parser.parse_args()
    started = time.perf_counter()
    found: dict[tuple[str, int, int], Found] = {}
    own: dict[str, float] = {}
    for name in given.only:
        folder, of_data = PAPERS / NETWORKS[name], (given.data, given.images)
        path = given.kept / f"{folder.name}-{given.images}.npz"
        trained = kept(path, partial(measure_float, folder, *of_data))
        own[name] = float(trained.right.mean())
        for steps, most in itertools.product(SHORT.get(name, STEPS), LARGEST):
            path = given.kept / f"{folder.name}-{given.images}-T{steps}-K{most}.npz"
            find = partial(measure, folder, *of_data, steps, most)
            found[name, steps, most] = kept(path, find)

    def table(title: str, cell: Callable[[str, int, int], str], *, first: int = 0) -> Table:
        rows = tuple(
            (
                f"{name}: K = {most}",
                *(cell(name, t, most) if (name, t, most) in found else "" for t in STEPS),
            )
            for name in own
            for most in LARGEST[first:]
        )
        return Table(title, ("", *(f"T = {t}" for t in STEPS)), rows)

    def points(of: tuple[str, int, int], to: tuple[str, int, int]) -> str:
        return str(Flips.of(found[of].right, found[to].right))

    equal = tuple(
        (f"{name}: K = {k}, T = 1", points((name, 1, k), (name, k, 1)))
        for name in own
        for k in LARGEST[1:]
        if (name, k, 1) in found
    )
    Measurement.publish(
        "graded",
        "Graded spikes",
        TEXT.format(images=f"{given.images:,}"),
        [
            Table("ANN, %", ("", "accuracy"), tuple((n, f"{100 * a:.2f}") for n, a in own.items())),
            table("Accuracy, %", lambda *key: f"{100 * found[key].right.mean():.2f}"),
            table(
                "Points to IF with as many steps",
                lambda name, steps, most: points((name, steps, most), (name, steps, 1)),
                first=1,
            ),
            Table("Points of one step to IF over K steps", ("", "points"), equal),
            table("Messages per image, thousands", lambda *key: f"{found[key].messages / 1e3:.1f}"),
            table("Synops per image, millions", lambda *key: f"{found[key].synops / 1e6:.2f}"),
        ],
        f"python benchmarks/graded.py --data {given.data} --images {given.images} --kept DIR",
        time.perf_counter() - started,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
