"""Networks of torchvision and timm, and ONNX files, all the way: what converts, and what Lava says.

    python -m benchmarks.networks torchvision:mobilenet_v2 timm:dla34 NET.onnx --size 64

Weights are seeded, not trained; BatchNorm's statistics are those of random samples. Each network is
converted with plain ReLUs measured on random samples (T = 4), its ranges are proved, its file is
written, read back and linted, and one sample runs on the reference simulator and on Lava. A line of
the table per network; torchvision and timm are used where they are installed, and own:unet,
own:unet_nearest and own:yolov3_tiny are those of `benchmarks/decoders.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import spikeport
from spikeport import SpikeportError

SAMPLES, STEPS, CLASSES = 32, 4, 10
COLUMNS = ("network", "way in", "layers", "weights", "convert", "lint", "Lava", "differing values")


def open_network(name: str, size: int) -> tuple[nn.Module | str, tuple[int, ...]]:
    """A seeded network, or the path of an ONNX file, and the shape of its samples."""
    library, _, model = name.partition(":")
    if not model:
        check = spikeport.check(name)
        return name, check.input_shape
    torch.manual_seed(0)
    if library == "timm":
        made = import_module("timm").create_model(model, num_classes=CLASSES)
    else:
        home = {"torchvision": "torchvision.models", "own": "benchmarks.decoders"}[library]
        made = import_module(home).get_model(model, num_classes=CLASSES)
    network: nn.Module = made
    with torch.no_grad():
        network.train()(torch.rand(SAMPLES, 3, size, size))
    return network.eval(), (3, size, size)


def row(name: str, size: int, folder: Path) -> list[str]:
    """The line of one network."""
    way = "module" if ":" in name else "ONNX"
    began = time.monotonic()
    try:
        network, shape = open_network(name, size)
        rng = np.random.default_rng(0)
        samples = rng.uniform(0, 1, (SAMPLES, *shape)).astype(np.float32)
        conversion = spikeport.convert(
            network, input_shape=shape, calibrate=samples, relu_percentile=99.9, steps=STEPS
        )
        seconds = f"{time.monotonic() - began:.0f} s"
        path = folder / "network.net"
        spikeport.save(conversion, path)
        found = {finding.rule_id for finding in spikeport.lint(path).found} - {"strange-name"}
        reference = spikeport.run(path, samples[:1])
        lava = spikeport.run(path, samples[:1], backend="lava", models="fast")
        compared = spikeport.compare(reference, lava)
    except SpikeportError as error:
        reason = " ".join(f"{error.node}: {error.message}".split())
        return [name, way, "-", "-", "-", "-", "-", reason[:160]]
    program = conversion.program
    weights = sum(
        a.size for p in program.populations for s in p.synapses for a in s.arrays().values()
    )
    return [
        name,
        way,
        str(len(program.populations)),
        f"{weights:,}",
        seconds,
        ", ".join(found) or "clean",
        "equal" if compared.equal else "differs",
        f"{compared.total:,} of {compared.compared:,}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of an image")
    given: Any = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.networks:
            print(f"| {' | '.join(row(name, given.size, Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
