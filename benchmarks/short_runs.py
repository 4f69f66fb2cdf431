"""What each choice of a training recipe brings: short runs that differ in one setting.

    python benchmarks/short_runs.py --data imagefolder:../shared/data/cifar10-jpeg.zip \
        --relu RUN --runs DIR [--epochs 4] [--only NAME ...]

RUN is a ReLU ResNet20 (a folder of `spikeport train --activation relu`, with the same --data and
seed), from which the runs start. Each run has a folder in DIR; what is finished there is not done
again. The table of all finished runs goes into benchmarks/speed; `benchmarks/papers.sh` puts it
into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from toolchain.learning.activations import NQ, ActivationMode  # noqa: E402
from toolchain.learning.data import hold_out, open_split  # noqa: E402
from toolchain.learning.data.dataset import Dataset  # noqa: E402
from toolchain.learning.evaluation.float_network import spiking_logits  # noqa: E402
from toolchain.learning.training.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from toolchain.learning.training.inference import accuracy, logits, normalised  # noqa: E402

TITLE = "What each choice of a training recipe brings"
TEXT = (
    "{model}, {epochs} epochs from a ReLU network that reaches {relu:.1f} % (one run from random "
    "weights). Settings are those of the first row, except for what a row names. Accuracies in %, "
    "on the {held} held-out images of the training data on which the epoch was chosen: the "
    "quantized network (ANN), and its float IF network after T steps; half of the 95 % interval is "
    "about {error:.1f}. sigma, in thresholds, is the mean over the layers in the epoch kept."
)
STEPS = (1, 2, 4, 8)
RELU = "relu"
"""Stands for RUN in `init` and `teacher`; other names there are those of a row."""
OWN = {"errors": "own"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "NQ": {},
    "QCFS": {"activation": "qcfs"},
    "own errors": OWN,
    "own errors, from NQ": {**OWN, "init": "NQ"},
    "own errors, from QCFS": {**OWN, "init": "QCFS"},
    "own errors at T = 2, from NQ": {**OWN, "calibration_steps": 2, "init": "NQ"},
    "taught by the ReLU network": {"teacher": RELU},
    "from QCFS": {"init": "QCFS"},
    "from random weights": {"init": None, "initial_threshold": 2.0, "learning_rate": 0.05},
    "sigma 0.1 thresholds": {"fixed_noise": 0.1},
    "sigma 0.2 thresholds": {"fixed_noise": 0.2},
    "sigma 0.3 thresholds": {"fixed_noise": 0.3},
    "sigma on augmented images": {"calibration_augment": True},
    "noise from half of the run on": {"noise_start": 3},
    "weight decay 1e-4": {"weight_decay": 1e-4},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "L = 8": {"levels": 8},
}


def row(name: str, kept: Checkpoint, held: Dataset) -> tuple[str, ...]:
    """Name, accuracies, sigma and time of a finished run."""
    x = normalised(held, kept.config.mean, kept.config.std)
    outputs = [logits(kept.model, x, ActivationMode.QUANTIZED).numpy()]
    outputs += spiking_logits(kept.model, x, STEPS).values()
    layers = [m for m in kept.model.modules() if isinstance(m, NQ)]
    noise = [m.sigma.item() / m.threshold.item() for m in layers]
    own = kept.config.errors == "own"
    told = "" if own or not layers else f"{np.mean(noise):.2f}"
    return (name, *(f"{100 * accuracy(o, held.labels):.1f}" for o in outputs), told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, metavar="SOURCE")
    parser.add_argument("--relu", type=Path, required=True, metavar="RUN")
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    start = load_checkpoint(given.relu)
    first = replace(
        start.config,
        data=given.data,
        activation="nq",
        levels=4,
        epochs=given.epochs,
        learning_rate=0.02,
        schedule="cosine",
        weight_decay=5e-4,
        label_smoothing=0.0,
        init=str(given.relu),
    )
    folders = {name: given.runs / name.replace(" ", "-") for name in VARIANTS}
    places = {RELU: given.relu, **folders}
    finished = {}
    for name, changes in VARIANTS.items():
        named = {k: str(places[v]) if v in places else v for k, v in changes.items()}
        config = replace(first, **named)
        if name in given.only:
            spikeport.train(config, folders[name])
            print(name, flush=True)
        if folders[name].exists():
            finished[name] = load_checkpoint(folders[name])
    started = time.perf_counter()
    logs = ((folders[name] / "log.jsonl").read_text().splitlines() for name in finished)
    trained = sum(json.loads(line)["seconds"] for lines in logs for line in lines)
    held = hold_out(open_split(given.data, "train"), first.held_out, first.seed)[1]
    rows = tuple(row(name, kept, held) for name, kept in finished.items())
    found = accuracy(
        logits(start.model, normalised(held, first.mean, first.std), ActivationMode.CLIPPED),
        held.labels,
    )
    text = TEXT.format(
        model=first.model,
        epochs=given.epochs,
        relu=100 * found,
        held=len(held),
        error=196 * (found * (1 - found) / len(held)) ** 0.5,
    )
    head = ("", "ANN", *(f"T = {t}" for t in STEPS), "sigma")
    Measurement.publish(
        "short-runs",
        TITLE,
        text,
        [Table("Held out, %", head, rows)],
        f"python benchmarks/short_runs.py --data {given.data} --relu RUN --runs DIR",
        time.perf_counter() - started + trained,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
