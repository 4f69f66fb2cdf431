"""Speed of the exact simulator, and of what a user would take instead.

    python benchmarks/simulator_speed.py [--rounds 5]

VGG16 and ResNet18 at 32x32, batch 32, T = 1, 2, 4, 8, and one image at T = 4, with seeded random
weights of 8 bits and noise for images. Ways take turns in one process, two calls each of which the
second counts; medians are given, and peak memory of a process that does nothing else. Simulators of
`peers.py` are measured at T = 4, where they are installed (`make .venv/.installed` does).

- ANN: one float32 forward of the source network with ReLUs, channels last; also under
  torch.compile, and in int8 by onnxruntime.
- fast: the engine, readout only; fast, digests: every spike and potential hashed as well.
- stepwise: the reference simulator's oracle.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import peers  # noqa: E402
from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import images, make_program, source_network  # noqa: E402

BATCH = 32
STEPS = (1, 2, 4, 8)
SHAPE = (3, 32, 32)
NETWORKS = ("vgg16", "resnet18")
CIF_STEPS = 4
PEERS_AT = 4
"""Number of steps at which other simulators are measured, and single images."""
ANN = "ANN, float32"
Way = Callable[[], Any]


def program_of(path: Path, steps: int) -> Any:
    """The program in a file with `steps` wake steps; 0 leaves it as it is."""
    from exports.netx import read_net

    program = read_net(path)
    if not steps:
        return program
    return replace(program, schedule=replace(program.schedule, wake_steps=steps))


def fast(path: Path, steps: int, batch: int = BATCH) -> Way:
    """The engine, readout only."""
    from toolchain.engine.engine import Engine

    program = program_of(path, steps)
    engine, inputs = Engine(program), images(program, batch)

    def run() -> None:
        for _, blocks in engine.passes(inputs):
            for _ in blocks:
                pass

    return run


def fast_digests(path: Path, steps: int) -> Way:
    """The engine, every spike and potential hashed."""
    from toolchain.engine.engine import Engine
    from toolchain.recording import Mode, make_recorders

    program = program_of(path, steps)
    engine, inputs = Engine(program, traced=True), images(program, BATCH)
    return lambda: engine.record(inputs, make_recorders(program, Mode.DIGEST))


def activity(path: Path, steps: int) -> str:
    """How many neurons send something in a step, of all that could."""
    from toolchain.engine.engine import Detail, Engine

    program = program_of(path, steps)
    sites = active = 0
    for block in Engine(program).run(images(program, BATCH), Detail.SPIKES):
        for spikes in block.spikes.values():
            sites += spikes.size
            active += int(np.count_nonzero(spikes))
    return f"{100 * active / sites:.1f} % of neurons fire in a step"


def stepwise(path: Path, steps: int) -> Way:
    """The oracle."""
    from toolchain.simulator.reference import run_steps

    program = program_of(path, steps)
    inputs = images(program, BATCH)

    def run() -> None:
        for _ in run_steps(program, inputs):
            pass

    return run


def makers_of(model: str, path: Path, steps: int, batch: int) -> dict[str, Callable[[], Way]]:
    """What is measured for a network and a number of steps, by the names of the rows."""
    makers: dict[str, Callable[[], Way]] = {
        ANN: lambda: peers.ann(model, batch),
        "ANN, torch.compile": lambda: peers.ann(model, batch, compiled=True),
        "ANN, onnxruntime int8": lambda: peers.ann_int8(model, batch),
        "fast": lambda: fast(path, steps, batch),
    }
    if batch == BATCH:
        makers |= {
            "fast, digests": lambda: fast_digests(path, steps),
            "stepwise": lambda: stepwise(path, steps),
        }
    if steps == PEERS_AT:
        for name, simulator in peers.simulators().items():
            makers[name] = partial(simulator, model, batch, steps)
    return makers


def in_turns(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Median seconds of each, after one turn to warm up.

    The second of two calls counts: threads of the way before spin for a while when it is done.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            way()
            started = time.perf_counter()
            way()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def peak_memory(name: str, model: str, path: Path, steps: int) -> float:
    """Peak resident MB of a process that runs one way twice."""
    arguments = ["--child", name, "--model", model, "--net", str(path), "--steps", str(steps)]
    result = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if "RESULT" not in result.stdout:
        raise SystemExit(f"{name} failed:\n{result.stdout}{result.stderr}")
    return float(json.loads(result.stdout.rpartition("RESULT")[2]))


def child(name: str, model: str, path: Path, steps: int) -> float:
    """Runs one way in this process."""
    way = makers_of(model, path, steps, BATCH)[name]()
    way()
    way()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def table(model: str, path: Path, steps: int, rounds: int, batch: int = BATCH) -> Table:
    """One network and number of steps."""
    print(f"{model}, T = {steps}, batch {batch}", file=sys.stderr)
    makers = makers_of(model, path, steps, batch)
    times = in_turns({name: make() for name, make in makers.items()}, rounds)
    rows = []
    for name, seconds in times.items():
        measured = steps == PEERS_AT and batch == BATCH
        memory = f"{peak_memory(name, model, path, steps):.0f}" if measured else "-"
        rows.append((name, f"{seconds * 1e3:.1f}", f"{seconds / times[ANN]:.2f}", memory))
    images = "one image" if batch == 1 else activity(path, steps)
    return Table(f"{model}, T = {steps}: {images}", ("", "ms", "/ ANN", "MB"), tuple(rows))


def cif_table(model: str, if_path: Path, cif_path: Path, rounds: int) -> Table:
    """CIF until settled, against IF of as many wake steps."""
    program = program_of(cif_path, 0)
    print(f"{model}, CIF", file=sys.stderr)
    schedule = program.schedule
    cif = f"CIF, Q = {schedule.wake_steps}, {schedule.sleep_steps} sleep steps"
    times = in_turns(
        {
            ANN: peers.ann(model, BATCH),
            f"IF, T = {CIF_STEPS}": fast(if_path, CIF_STEPS),
            cif: fast(cif_path, 0),
        },
        rounds,
    )
    of_if = times[f"IF, T = {CIF_STEPS}"]
    rows = tuple(
        (name, f"{s * 1e3:.1f}", f"{s / times[ANN]:.2f}", f"{s / of_if:.2f}")
        for name, s in times.items()
    )
    title = f"{model}, CIF until settled: {activity(cif_path, 0)}"
    return Table(title, ("", "ms per batch", "/ ANN", "/ IF"), rows)


def command_table() -> Table:
    """From a checkpoint to a verified file, and the shortest command, as processes of their own."""
    from safetensors.torch import save_file

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_file(source_network("vgg16", SHAPE).state_dict(), work / "vgg16.safetensors")
        (work / "nets.py").write_text(
            "from toolchain.learning.activations import QCFS\n"
            "from toolchain.learning.models import build_model\n\n\n"
            "def vgg16():\n    return build_model('vgg16', (3, 32, 32), 10, lambda: QCFS(4, 2.0))\n"
        )
        convert = "convert nets.py:vgg16 --weights vgg16.safetensors --input-shape 3,32,32 "
        convert += "--watch-ranges -o vgg16.net"
        for command in (convert, "--help"):
            times = []
            for _ in range(4):  # after the first, compiled code is there
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "toolchain.cli", *command.split()],
                    check=True,
                    capture_output=True,
                    cwd=work,
                    env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": folder},
                )
                times.append(time.perf_counter() - started)
            name, peak = f"spikeport {command}", "-"
            if command == convert:
                # Of the largest child so far: no other has run.
                peak = f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}"
                name = "spikeport convert (VGG16 to a verified .net)"
            rows.append((name, f"{statistics.median(times[1:]):.2f}", peak))
    return Table("Commands", ("", "s", "peak MB"), tuple(rows))


TEXT = (
    "Batch {batch} at 32x32, seeded random weights of 8 bits and noise for images; ways take turns "
    "in one process, two calls each of which the second counts, medians of {rounds} rounds. ANN: "
    "one float32 forward of the source network with ReLUs, also under torch.compile, and in int8 "
    "by onnxruntime (its static calibration, scales per channel). Fast: the engine behind "
    "`simulate`, readout only, or with digests of every spike and potential. Stepwise: its oracle. "
    "SpikingJelly, sinabs, snnTorch: their IF neurons with reset by subtraction in the same "
    "float32 network."
)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--net", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print("RESULT" + json.dumps(child(asked.child, asked.model, asked.net, asked.steps)))
        return
    import torch

    from exports.netx import write_net

    started = time.perf_counter()
    tables = [command_table()]
    with tempfile.TemporaryDirectory() as folder:
        for model in NETWORKS:
            path, cif_path = Path(folder) / f"{model}.net", Path(folder) / f"{model}-cif.net"
            common: dict[str, Any] = {"weight_bits": 8, "target": "loihi2", "pooling": "stage"}
            write_net(make_program(model, SHAPE, **common), path)
            cif = make_program(model, SHAPE, neuron="cif", steps=CIF_STEPS, **common)
            write_net(cif, cif_path)
            tables += [table(model, path, t, asked.rounds) for t in STEPS]
            tables.append(table(model, path, PEERS_AT, asked.rounds, batch=1))
            tables.append(cif_table(model, path, cif_path, asked.rounds))
    Measurement.publish(
        "simulator",
        "Speed of the exact simulator",
        TEXT.format(batch=BATCH, rounds=asked.rounds),
        tables,
        f"python benchmarks/simulator_speed.py --rounds {asked.rounds}",
        time.perf_counter() - started,
        torch=torch.__version__,
        numpy=np.__version__,
        **peers.versions(),
    )


if __name__ == "__main__":
    main()
