"""Where the engine's time goes, by kind of work, and how near each is to what the processor can do.

    python benchmarks/engine_profile.py [--rounds 7]

VGG16 and ResNet18 at 32x32, batch 32, T = 4, seeded random weights of 8 bits, one thread. The parts
of the engine that sum whole planes, sum event by event, and step the neurons are timed where they
are called. The roofs are measured in the same run: oneDNN's int8 product of two large matrices, and
the engine's own loop over weights that stay in the first cache, or in the second, as most layers'
weights do.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import peers  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import images, make_program  # noqa: E402
from toolchain.compiled import compiled  # noqa: E402
from toolchain.engine import layers, simd  # noqa: E402
from toolchain.engine.engine import Engine  # noqa: E402
from toolchain.engine.events import EventSum, in_widths  # noqa: E402
from toolchain.engine.synaptic_sum import SynapticSum  # noqa: E402

SHAPE, BATCH, STEPS = (3, 32, 32), 32, 4
SIDE = 2048
"""Rows and columns of the matrices of the roof of whole planes."""
WIDTH, EVENTS, SUMS, REPEATS = 128, 200, 40, 50
"""Outputs, spikes per sum, sums and repeats of the roofs of events."""
ROWS = {"L1": 128, "L2": 2048}
"""Rows of weights of the roofs of events, by the cache that contains them: 16 and 256 KB."""
KINDS = WHOLE, SPARSE, NEURONS = "sums of whole planes", "sums event by event", "neurons"
TEXT = (
    "Batch {batch} at 32x32, T = {steps}, seeded random weights of 8 bits, one thread: "
    "milliseconds of processor time of one pass, medians of {rounds} rounds. Work is in 10^9 "
    "weights: those multiplied in whole planes, and those added for spikes. The roof is oneDNN's "
    "int8 product of two large matrices, and the engine's loop over weights that stay in the first "
    "cache or in the second, with many spikes per sum; the weights of one kernel of 256 channels "
    "fill the second. The rest counts spikes, sorts planes, sums windows and "
    "copies. The float32 network is one forward of the source network with ReLUs, in turns with "
    "the engine."
)


class Book:
    """Seconds and weights by kind of work, of one pass."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.weights: Counter[str] = Counter()

    def timed(self, kind: str, call: Callable[..., Any], of: Callable[..., float]) -> Any:
        """`call`, whose time counts as `kind`, and whose arguments `of` turns into weights."""

        @wraps(call)
        def timed(*arguments: Any) -> Any:
            started = time.process_time()
            result = call(*arguments)
            self.seconds[kind] += time.process_time() - started
            self.weights[kind] += of(*arguments)
            return result

        return timed


def multiplied(sums: SynapticSum, values: np.ndarray, _: object) -> float:
    """Weights that the sums of encoded spikes, (..., H, W, C), multiply."""
    planes = values.size / np.prod(values.shape[-3:])
    return float(planes * np.prod(sums._out[:2]) * sums._synapse.weight.size)


def added(
    sums: EventSum, _: object, __: object, which: np.ndarray, counts: np.ndarray, *___: object
) -> float:
    """Weights that the planes `which` add, if their spikes are spread evenly."""
    return float(counts[which].sum() * sums.vectors_per_spike * simd.PAIRED)


def roof_of_planes() -> float:
    """10^9 weights per second of a product of large int8 matrices."""
    left, right = (torch.randint(-128, 128, (SIDE, SIDE), dtype=torch.int8) for _ in range(2))
    return SIDE**3 / best(lambda: torch._int_mm(left, right)) / 1e9


@compiled
def add_repeatedly(total, weight, rows, repeats):  # type: ignore[no-untyped-def]
    """The same sums of `EVENTS` rows each, again and again."""
    for _ in range(repeats):
        for first in range(0, len(rows), EVENTS):
            simd.add_weights(total, 0, weight, WIDTH, rows, first, first + EVENTS, 1, 1)


def roof_of_events(rows: int) -> float:
    """10^9 weights per second of the engine's loop; spikes take any of `rows` rows of weights."""
    rng = np.random.default_rng(0)
    weight = in_widths(rng.integers(-128, 128, (WIDTH, 1, 1, rows)), np.array([WIDTH]))
    taken = rng.integers(0, rows, SUMS * EVENTS).astype(np.uint32)
    total = np.zeros(WIDTH, np.int32)
    added = REPEATS * SUMS * EVENTS * WIDTH
    return added / best(lambda: add_repeatedly(total, weight, taken, REPEATS)) / 1e9


def best(call: Callable[[], Any]) -> float:
    """Least seconds of a call."""
    times = []
    for _ in range(8):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def one_pass(engine: Engine, inputs: np.ndarray) -> tuple[float, Book]:
    """Seconds of a pass, and where they went."""
    book = Book()
    kinds: tuple[tuple[Any, str, str, Callable[..., float]], ...] = (
        (SynapticSum, "_of_products", WHOLE, multiplied),
        (EventSum, "put", SPARSE, added),
        (layers, "in_threads", NEURONS, lambda *_: 0.0),
    )
    with ExitStack() as patches:
        for owner, name, kind, of in kinds:
            call = book.timed(kind, getattr(owner, name), of)
            patches.enter_context(patch.object(owner, name, call))
        started = time.process_time()
        for _, blocks in engine.passes(inputs):
            for _ in blocks:
                pass
        return time.process_time() - started, book


def table(model: str, rounds: int, roofs: dict[str, str]) -> Table:
    """One network."""
    program = make_program(
        model, SHAPE, weight_bits=8, target="loihi2", pooling="stage", steps=STEPS
    )
    engine, inputs, ann = Engine(program), images(program, BATCH), peers.ann(model, BATCH)
    found = []
    for _ in range(rounds + 2):  # the first two warm up
        started = time.process_time()
        ann()
        found.append((time.process_time() - started, *one_pass(engine, inputs)))
    of_ann, whole, books = zip(*found[2:], strict=True)
    middle = statistics.median(whole)
    by_kind = {k: statistics.median(book.seconds[k] for book in books) for k in KINDS}
    by_kind["the rest"] = middle - sum(by_kind.values())
    rows = []
    for kind, seconds in by_kind.items():
        weights = books[0].weights[kind] / 1e9
        rates = ("-", "-", "-")
        if weights:
            rates = (f"{weights:.2f}", f"{weights / seconds:.0f}", roofs[kind])
        rows.append((kind, f"{seconds * 1e3:.1f}", f"{100 * seconds / middle:.0f} %", *rates))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(whole, of_ann, strict=True))
    title = (
        f"{model}, T = {STEPS}: {middle * 1e3:.0f} ms, "
        f"{ratio:.2f} times the float32 network's {statistics.median(of_ann) * 1e3:.0f}"
    )
    return Table(title, ("", "ms", "share", "10^9 weights", "10^9 per s", "roof"), tuple(rows))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    of_events = ", ".join(f"{roof_of_events(n):.0f} in {cache}" for cache, n in ROWS.items())
    roofs = {WHOLE: f"{roof_of_planes():.0f}", SPARSE: of_events}
    tables = [table(model, asked.rounds, roofs) for model in ("vgg16", "resnet18")]
    Measurement.publish(
        "engine-profile",
        "Where the engine's time goes",
        TEXT.format(batch=BATCH, steps=STEPS, rounds=asked.rounds),
        tables,
        f"python benchmarks/engine_profile.py --rounds {asked.rounds}",
        time.perf_counter() - started,
        torch=torch.__version__,
        numpy=np.__version__,
    )


if __name__ == "__main__":
    main()
