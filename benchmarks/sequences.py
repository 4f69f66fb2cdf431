"""Accuracy over time, latency, events and synops of small networks on recordings of events.

    nice -n 10 python benchmarks/sequences.py --digits ../shared/data/mnist10k.npz [--runs DIR]

The digits (an npz source of uint8 images, 28x28) become events as `saccades` says, in files of
N-MNIST's format, which the source `nmnist` reads. All networks are an `eventnet`; runs that are
finished in DIR are not done again. One thread, seed 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.sequences import COLUMNS, cost_cells  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.saccades import write_nmnist  # noqa: E402
from toolchain.learning.data import open_split  # noqa: E402
from toolchain.learning.evaluation.results import Evaluation  # noqa: E402
from toolchain.learning.training.config import TrainConfig  # noqa: E402

TITLE = "Sequences of events"
TEXT = (
    "A small network (`eventnet`) on two kinds of recordings in 8 frames: `moving-shapes` (2,000 "
    "for training, 400 for the test, four directions), and {digits} digits of MNIST ({tests} for "
    "the test) that move over 34x34 pixels along three saccades as those of N-MNIST did, their "
    "events made by `benchmarks/saccades.py`. Trained on means; 8 levels, 8-bit integers; each "
    "spiking network gets one frame in each step. ANN is the trained network in float, on the "
    "mean of all frames; CIF answers after its sleep steps, when it has settled. A sample is right "
    "for the first time when its class has the largest output alone, and for good if that stays "
    "so: medians over all samples, in steps. Events are those of the camera, spikes those of all "
    "layers. One run each, seed 0."
)
FRAMES = LEVELS = 8
NQ = "NQ, IF"
OWN = "NQ, own errors, IF"
WAYS: dict[str, dict[str, Any]] = {
    NQ: {"activation": "nq"},
    OWN: {"activation": "nq", "errors": "own", "init": NQ, "learning_rate": 0.01},
    "QCFS, IF": {"activation": "qcfs"},
    "CQReLU, CIF": {"activation": "cqrelu"},
}
EPOCHS = {"moving-shapes": (12, 8), "digits": (6, 3)}
"""Of a run from random weights, and of own errors."""
TESTS = 2000


def digit_files(source: Path, folder: Path) -> int:
    """Write N-MNIST's folders `Train` and `Test`; the last digits are for the test."""
    splits = [open_split(f"npz:{source}@{split}") for split in ("train", "test")]
    images = np.concatenate([split.samples[:, 0] for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    rest = slice(0, len(images) - TESTS)
    write_nmnist(folder / "Train", images[rest], labels[rest])
    write_nmnist(folder / "Test", images[len(images) - TESTS :], labels[len(images) - TESTS :])
    return len(images)


def evaluated(name: str, data: str, folder: Path) -> dict[str, Evaluation]:
    """Train and measure every network of one kind of recordings."""
    found = {}
    for way, settings in WAYS.items():
        run = folder / name / way
        own = settings.get("errors") == "own"
        chosen = dict(settings)
        if own:
            chosen["init"] = str(folder / name / settings["init"])
        config = TrainConfig(
            data=data,
            model="eventnet",
            levels=LEVELS,
            initial_threshold=2.0,
            epochs=EPOCHS[name][own],
            device="cpu",
            precision="float32",
            **chosen,
        )
        spikeport.train(config, run)
        if not (run / "evaluation.json").is_file():
            spikeport.evaluate(run, f"{data}@test").write(run / "evaluation.json")
        found[way] = Evaluation.read(run / "evaluation.json")
        print(name, way, found[way].sequences[0]["correct"], flush=True)
    return found


def over_time(name: str, found: dict[str, Evaluation]) -> Table:
    """Accuracies after each step."""
    rows = []
    for way, evaluation in found.items():
        ann = evaluation.find(network="ANN", arithmetic="float")
        (run,) = evaluation.sequences
        assert ann is not None
        correct, wake = run["correct"], run["wake_steps"]
        cells = [f"{100 * number / run['samples']:.1f}" for number in correct]
        settled = f"{cells[-1]} ({len(correct)} steps)" if len(correct) > wake else "-"
        rows.append((way, f"{100 * ann.accuracy['accuracy']:.1f}", *cells[:wake], settled))
    head = ("", "ANN", *(str(t) for t in range(1, FRAMES + 1)), "settled")
    return Table(f"Accuracy after each step on {name}, %", head, tuple(rows))


def costs(name: str, found: dict[str, Evaluation]) -> Table:
    """When a network is right, and what that takes."""
    rows = tuple((way, *cost_cells(evaluation.sequences[0])) for way, evaluation in found.items())
    return Table(f"Latency and cost of a sample of {name}", ("", *COLUMNS), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", metavar="FILE.npz", type=Path, required=True)
    parser.add_argument("--runs", metavar="DIR", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        runs = given.runs or Path(temporary)
        count = digit_files(given.digits, runs / "nmnist")
        sources = {
            "moving-shapes": "moving-shapes",
            "digits": f"nmnist:{runs / 'nmnist'},frames={FRAMES}",
        }
        tables = []
        for name, data in sources.items():
            found = evaluated(name, data, runs)
            tables += [over_time(name, found), costs(name, found)]
    Measurement.publish(
        "sequences",
        TITLE,
        TEXT.format(digits=f"{count:,}", tests=f"{TESTS:,}"),
        tables,
        f"python benchmarks/sequences.py --digits {given.digits}",
        time.perf_counter() - started,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
