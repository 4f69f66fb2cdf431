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
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

import spikeport
from spikeport import SpikeportError
from toolchain.program.int_program import IntProgram
from toolchain.recording.compare import Comparison

SAMPLES, STEPS, CLASSES = 32, 4, 10
COLUMNS = ("network", "way in", "layers", "weights", "convert", "lint", "Lava", "differing values")


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes
    ----------
    seconds:
        Time of the conversion.
    found:
        Names of lint's findings in its file.
    compared:
        The reference simulator's values against those of Lava.
    """

    program: IntProgram
    seconds: float
    found: set[str]
    compared: Comparison


def library(name: str) -> ModuleType:
    """torchvision.models or timm.

    Torchvision's compiled operators belong to one build of torch, and its package fails to load
    with any other. Its models do without them, so the package is put in place empty.
    """
    if "torchvision" not in sys.modules:
        spec = find_spec("torchvision")
        if spec is None:
            raise ImportError("torchvision is not installed")
        sys.modules["torchvision"] = module_from_spec(spec)
    return import_module("torchvision.models" if name == "torchvision" else name)


def seeded(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """A network with seeded weights and the statistics of random samples of `shape`."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        network.train()(torch.rand(SAMPLES, *shape))
    return network.eval()


def open_network(name: str, size: int) -> tuple[nn.Module | str, tuple[int, ...]]:
    """A seeded network, or the path of an ONNX file, and the shape of its samples."""
    home, _, model = name.partition(":")
    if not model:
        return name, spikeport.check(name).input_shape
    made = import_module("benchmarks.decoders") if home == "own" else library(home)
    make = made.create_model if home == "timm" else made.get_model
    shape = (3, size, size)
    return seeded(lambda: make(model, num_classes=CLASSES), shape), shape


def whole_way(network: nn.Module | str, shape: tuple[int, ...], folder: Path) -> Outcome:
    """Convert, write, lint, and run one sample on the reference simulator and on Lava.

    Raises
    ------
    SpikeportError
        If the network cannot be converted, or a range is not proved.
    """
    rng, began = np.random.default_rng(0), time.monotonic()
    samples = rng.uniform(0, 1, (SAMPLES, *shape)).astype(np.float32)
    conversion = spikeport.convert(
        network, input_shape=shape, calibrate=samples, relu_percentile=99.9, steps=STEPS
    )
    seconds, path = time.monotonic() - began, folder / "network.net"
    spikeport.save(conversion, path)
    found = {finding.rule_id for finding in spikeport.lint(path).found} - {"strange-name"}
    reference = spikeport.run(path, samples[:1])
    lava = spikeport.run(path, samples[:1], backend="lava", models="fast")
    return Outcome(conversion.program, seconds, found, spikeport.compare(reference, lava))


def row(name: str, size: int, folder: Path) -> list[str]:
    """The line of one network."""
    way = "module" if ":" in name else "ONNX"
    try:
        outcome = whole_way(*open_network(name, size), folder)
    except SpikeportError as error:
        reason = " ".join(f"{error.node}: {error.message}".split())
        return [name, way, "-", "-", "-", "-", "-", reason[:160]]
    program, compared = outcome.program, outcome.compared
    weights = sum(
        a.size for p in program.populations for s in p.synapses for a in s.arrays().values()
    )
    return [
        name,
        way,
        str(len(program.populations)),
        f"{weights:,}",
        f"{outcome.seconds:.0f} s",
        ", ".join(outcome.found) or "clean",
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
