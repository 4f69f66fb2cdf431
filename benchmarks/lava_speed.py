"""Speed of Lava runs: stock netx layers with LIF against the models of this project.

    python benchmarks/lava_speed.py [--rounds 3]

Networks have seeded random weights and BatchNorm statistics of seeded noise, so that spikes are
neither rare nor everywhere. Every measurement is a Lava run in an interpreter of its own, warmed up
by a few steps; networks and ways take turns, and medians over the rounds are printed. An image
takes T = 4 steps; steps in which the pipeline fills are not counted.

- stock: lava-dl's `netx.hdf5.Network`, one process per synapse and per neuron (CUBA layers of
  the same weights; a step costs the same whatever the neuron computes).
- fixed_pt: this project's processes on stock synapses.
- fast: blocks of layers, event by event, a batch of images at a time.

What it finds goes into benchmarks/speed; `benchmarks/papers.sh` puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report.speed import Measurement, Table  # noqa: E402
from benchmarks.seeded_networks import make_program  # noqa: E402
from hw_models.lava_compat import LAVA_DL, LAVA_NC  # noqa: E402

STEPS = 4
"""T of an image."""
WEIGHT_BITS = 4
"""Stock LIF saturates at 17 bits, which wide layers of more weight bits could reach."""
WARM_UP = 2
SEED = 0
NETWORKS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "lenet 1x28x28": ("lenet", (1, 28, 28), 1.0),
    "vgg11 3x32x32": ("vgg11", (3, 32, 32), 1.0),
    "vgg16 3x32x32": ("vgg16", (3, 32, 32), 1.0),
}
WITHOUT_STOCK = ("vgg16 3x32x32",)
"""Where stock synapses would take minutes per image."""
WAYS: dict[str, dict[str, Any]] = {
    "stock": {"measured": 4},
    "fixed_pt": {"measured": 4},
    "fast, 1 block, batch 1": {"blocks": 1, "batch": 1, "measured": 40},
    "fast, 1 block, batch 16": {"blocks": 1, "batch": 16, "measured": 12},
    "fast, 2 blocks, batch 16": {"blocks": 2, "batch": 16, "measured": 12},
}


def child(path: Path, way: str, measured: int, blocks: int | None, batch: int) -> dict[str, float]:
    """One Lava run: seconds per step, of the wall and of all its processes, and their memory."""
    from hw_models.lava_compat import import_stock_netx, prepare

    prepare()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    from exports.network import Network
    from hw_models.run_config import SimCfg

    if way == "stock":
        net = import_stock_netx().Network(net_config=str(path), input_message_bits=8)
        config: Any = Loihi2SimCfg(select_tag="fixed_pt")
        depth = len(net.layers)
    else:
        net = Network(path, batch=batch, blocks=blocks)
        config = SimCfg("fixed_pt" if way == "fixed_pt" else "fast")
        depth = net.depth
    steps = depth + WARM_UP + measured
    rng = np.random.default_rng(SEED)
    source = Source(data=rng.integers(0, 256, (*net.inp.shape, 1)).repeat(steps, -1))
    sink = Sink(shape=net.out.shape, buffer=steps)
    source.s_out.connect(net.inp)
    net.out.connect(sink.a_in)
    net.run(condition=RunSteps(num_steps=depth + WARM_UP), run_cfg=config)
    started, busy = time.perf_counter(), _busy()
    net.run(condition=RunSteps(num_steps=measured), run_cfg=config)
    seconds, busy = time.perf_counter() - started, _busy() - busy
    memory = _memory_of_children()
    net.stop()
    images = measured * batch / STEPS
    return {
        "step": seconds / measured,
        "image": seconds / images,
        "processor": busy / images,
        **memory,
    }


def _busy() -> float:
    """Processor time of this process and its children, seconds."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def _memory_of_children() -> dict[str, float]:
    """Proportional memory of this process and its children, MB."""
    import psutil

    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        "memory": sum(p.memory_full_info().pss for p in processes) / 2**20,
        "processes": float(len(processes)),
    }


def run_child(path: Path, way: str, options: dict[str, Any]) -> dict[str, float]:
    """`child` in a fresh interpreter."""
    arguments = [
        *("--child", str(path), "--way", way, "--measured", str(options["measured"])),
        *("--blocks", str(options.get("blocks", 0)), "--batch", str(options.get("batch", 1))),
    ]
    result = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if "RESULT" not in result.stdout:
        raise SystemExit(f"{way} on {path.name} failed:\n{result.stdout}{result.stderr}")
    return dict(json.loads(result.stdout.rpartition("RESULT")[2]))


def reference_image(program: Any) -> float:
    """Seconds per image of the reference simulator, T = 4, 16 images."""
    from toolchain.simulator.reference import run_steps

    rng = np.random.default_rng(SEED)
    inputs = rng.integers(0, 256, (16, *program.input.shape))
    for _ in run_steps(program, inputs[:1]):
        pass
    started = time.perf_counter()
    for _ in run_steps(program, inputs):
        pass
    return (time.perf_counter() - started) / len(inputs)


def activity(program: Any) -> str:
    """Spikes per neuron and step, and synaptic operations per image, on the reference simulator."""
    from toolchain.recording import Mode
    from toolchain.simulator.reference import simulate

    inputs = np.random.default_rng(SEED).integers(0, 256, (4, *program.input.shape))
    found = simulate(program, inputs, mode=Mode.EVENTS)
    spikes = sum(len(rows) for rows in found.spike_times.values()) / len(inputs)
    neurons = sum(np.prod(found.meta["shapes"][layer]) for layer in found.spike_times)
    synops = sum(found.meta["synops"].values()) / len(inputs)
    return (
        f"{100 * spikes / neurons / STEPS:.1f} % of neurons fire in a step, "
        f"{synops / 1e6:,.1f} M synops per image"
    )


def measure(networks: dict[str, Any], rounds: int, folder: Path) -> tuple[Table, ...]:
    """Medians over the rounds, a table a network."""
    from exports.netx import write_net, write_stock_net

    results: dict[str, Any] = {}
    files = {}
    for name, (model, shape, width) in networks.items():
        program = make_program(model, shape, width, weight_bits=WEIGHT_BITS, target="stock-netx")
        ours = replace(program, schedule=replace(program.schedule, wake_steps=STEPS))
        files[name] = (folder / f"{model}-stock.net", folder / f"{model}.net", ours)
        write_stock_net(program, files[name][0])
        write_net(ours, files[name][1])
    for turn in range(rounds):
        for name, (stock_file, our_file, ours) in files.items():
            found = results.setdefault(name, {})
            found.setdefault("reference simulator", []).append({"image": reference_image(ours)})
            for way, options in WAYS.items():
                if name in WITHOUT_STOCK and way in ("stock", "fixed_pt"):
                    continue
                path = stock_file if way == "stock" else our_file
                print(f"round {turn + 1}: {name}, {way}", file=sys.stderr)
                found.setdefault(way, []).append(run_child(path, way, options))
    return tuple(
        table(f"{name}, T = {STEPS}: {activity(files[name][2])}", ways)
        for name, ways in results.items()
    )


def table(title: str, ways: dict[str, list[dict[str, float]]]) -> Table:
    """Medians of the rounds; ratios against stock where there is one, and the reference."""
    medians = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for way, runs in ways.items()
    }
    rows = []
    for way, values in medians.items():
        ratios = [
            f"{medians[other]['image'] / values['image']:.2f}" if other in medians else "-"
            for other in ("stock", "reference simulator")
        ]
        step = f"{values['step'] * 1e3:.2f}" if "step" in values else "-"
        memory = [f"{values[k]:.0f}" if k in values else "-" for k in ("memory", "processes")]
        rows.append((way, step, f"{values['image'] * 1e3:.2f}", *ratios, *memory))
    head = (
        "",
        "ms per step",
        "ms per image",
        "stock / this",
        "reference / this",
        "MB",
        "processes",
    )
    return Table(title, head, tuple(rows))


TEXT = (
    "Networks with seeded random weights of 4 bits (stock LIF saturates at 17 bits, which wider "
    "ones could reach). Each way is a Lava run of its own, in turns; medians of {rounds} rounds. "
    "Steps in which the pipeline fills are not counted. Stock: lava-dl's `Network`, CUBA layers "
    "of the same weights. Memory is that of all processes together, shared pages counted once."
)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--measured", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        found = child(asked.child, asked.way, asked.measured, asked.blocks or None, asked.batch)
        print("RESULT" + json.dumps(found))
        return
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tables = measure(NETWORKS, asked.rounds, Path(folder))
    Measurement.publish(
        "lava",
        "Speed of Lava runs",
        TEXT.format(rounds=asked.rounds),
        tables,
        f"python benchmarks/lava_speed.py --rounds {asked.rounds}",
        time.perf_counter() - started,
        **{"lava-nc": LAVA_NC, "lava-dl": LAVA_DL, "numpy": np.__version__},
    )


if __name__ == "__main__":
    main()
