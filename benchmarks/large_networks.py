"""Networks of ImageNet's size through the whole toolchain: time and memory of each step.

    python benchmarks/large_networks.py [--networks vgg16 resnet34 resnet50]

224x224 pixels, 1000 classes, T = 4, seeded random weights of 8 bits, noise for images. Every step
is the command that a user types, in a process of its own; its peak memory is what the kernel says
of that process (on Lava: of the one that reads the results; its workers are not in it). Exit code 1
if a digest of the Lava run differs from the reference simulator's.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import source_network  # noqa: E402

SHAPE = (3, 224, 224)
CLASSES, STEPS, IMAGES = 1000, 4, 4
NOISE = (3, 2)
"""Batches that BatchNorm's statistics come from."""
MEMORY = {"vgg16": "4GB", "resnet34": "1GB", "resnet50": "1GB"}
"""What simulation may work in; one sample of VGG16 with its first dense layer needs 2.6 GB."""


def vgg16() -> Any:
    """VGG16 with BatchNorm."""
    return source_network("vgg16", SHAPE, classes=CLASSES, noise=NOISE)


def resnet34() -> Any:
    """ResNet34."""
    return source_network("resnet34", SHAPE, classes=CLASSES, noise=NOISE)


def resnet50() -> Any:
    """ResNet50."""
    return source_network("resnet50", SHAPE, classes=CLASSES, noise=NOISE)


@dataclass(frozen=True)
class Step:
    """One command: seconds, peak memory in bytes, and what it printed as JSON."""

    seconds: float
    memory: int
    found: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s, {self.memory / 1e9:.1f} GB"


def run(folder: Path, *arguments: object) -> Step:
    """A command of spikeport; ends the benchmark if it fails."""
    words = [sys.executable, "-m", "toolchain.cli", *map(str, arguments), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, env=environment
    )
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.stderr.write(f"failed: {' '.join(words)}\n{text.decode()}\n")
        sys.exit(1)
    return Step(seconds, usage.ru_maxrss * 1024, json.loads(text))


def measure(name: str, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Rows of both tables, and mismatches on Lava."""
    net, data = f"{name}.net", "npz:noise.npz@test"
    one = [net, "--data", f"{data}[:1]", "--record", "digest"]
    source = f"{Path(__file__).resolve()}:{name}"
    made = ["--input-shape", "3,224,224", "--neuron", "if", "--steps", STEPS]
    convert = run(folder, "convert", source, *made, "-o", net)
    lint = run(folder, "lint", net, "--target", "loihi2")
    audit = run(folder, "audit", net, "--data", f"{data}[:1]", "--lava", 0)
    memory = ["--memory", MEMORY[name]]
    simulate = run(folder, "run", net, "--data", data, *memory, "--record", "digest", "-o", "s.npz")
    run(folder, "run", *one, "-o", "r.npz")
    models = ["--backend", "lava", "--models", "fast", "--batch", 1]
    lava = run(folder, "run", *one, *models, "-o", "l.npz")
    compare = run(folder, "compare", "r.npz", "l.npz")
    needs = audit.found["metrics"]
    weights = sum(layer["weights"] for layer in convert.found["layers"])
    neurons = sum(int(np.prod(x["shape"])) for x in audit.found["program"]["layers"])
    errors = sum(len(file["findings"]) for file in lint.found["files"])
    described = (
        name,
        f"{weights / 1e6:.1f} M",
        f"{neurons / 1e6:.2f} M",
        f"{(folder / net).stat().st_size / 1e6:.0f} MB",
        f"{needs['headroom']:.1f} bits",
        str(errors),
        f"{needs['cores']:,} ({needs['chips']:,} chips)",
        f"{needs['synops'] / 1e9:.2f} G",
    )
    timed = (
        name,
        str(convert),
        str(lint),
        str(audit),
        f"{simulate} (--memory {MEMORY[name]})",
        str(lava),
        f"{compare.found['compared']:,}",
        str(compare.found["mismatches"]),
    )
    return described, timed, int(compare.found["mismatches"])


def main() -> int:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(MEMORY), default=list(MEMORY))
    arguments = parser.parse_args()
    started, described, timed, wrong = time.monotonic(), [], [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
        labels = np.arange(IMAGES) * (CLASSES - 1) // (IMAGES - 1)
        np.savez(folder / "noise.npz", test_samples=images, test_labels=labels)
        for network in arguments.networks:
            first, second, mismatches = measure(network, folder)
            described.append(first)
            timed.append(second)
            wrong += mismatches
            sys.stderr.write(f"{' | '.join(first)}\n{' | '.join(second)}\n")
    tables = (
        Table(
            "What they are",
            (
                *("network", "weights", "neurons", "file", "least headroom, proved"),
                *("lint findings", "Loihi 2 cores", "synops per image"),
            ),
            tuple(described),
        ),
        Table(
            "What each step takes",
            (
                *("network", "convert, prove, write, read back", "lint", "audit of 1 image"),
                *(f"simulate {IMAGES} images", "Lava, 1 image", "digests compared", "mismatches"),
            ),
            tuple(timed),
        ),
    )
    text = (
        f"224x224 pixels, 1000 classes, T = {STEPS}, IF neurons, 8-bit weights, seeded random. "
        "Each cell is one run of a command in a process of its own, with its peak memory; digests "
        "cover every spike and membrane potential of every layer and step. Cores are of the "
        "chip-fit (each layer cut on its own); of Loihi 2's axon and memory limits there is no "
        "public source."
    )
    import torch

    Measurement.publish(
        "large",
        "Networks of ImageNet's size",
        text,
        tables,
        " ".join(["python", "benchmarks/large_networks.py", *sys.argv[1:]]),
        time.monotonic() - started,
        torch=torch.__version__,
        numpy=np.__version__,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
