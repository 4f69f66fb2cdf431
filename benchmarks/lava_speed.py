"""Speed of Lava runs: stock netx layers with LIF against the models of this project.

    python benchmarks/lava_speed.py [--rounds 3] [--vgg16] [--json FILE]

Networks have seeded random weights and BatchNorm statistics of seeded noise, so that spikes are
neither rare nor everywhere. Every measurement is a Lava run in an interpreter of its own, warmed up
by a few steps; networks and ways take turns, and medians over the rounds are printed. An image
takes T = 4 steps; steps in which the pipeline fills are not counted.

- stock: lava-dl's `netx.hdf5.Network`, one process a synapse and a neuron (CUBA layers of the same
  weights; a step costs the same whatever the neuron computes).
- fixed_pt: this project's processes on stock synapses.
- fast: blocks of layers, event by event, a batch of images at a time.
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

STEPS = 4
"""T of an image."""
WEIGHT_BITS = 4
"""Stock LIF saturates at 17 bits, which wide layers of more weight bits could reach."""
WARM_UP = 2
SEED = 0
NETWORKS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "lenet 1x28x28": ("lenet", (1, 28, 28), 1.0),
    "vgg11 3x32x32": ("vgg11", (3, 32, 32), 1.0),
}
LARGE = {"vgg16 3x32x32": ("vgg16", (3, 32, 32), 1.0)}
WAYS: dict[str, dict[str, Any]] = {
    "stock": {"measured": 4},
    "fixed_pt": {"measured": 4},
    "fast, 1 block, batch 1": {"blocks": 1, "batch": 1, "measured": 40},
    "fast, 1 block, batch 16": {"blocks": 1, "batch": 16, "measured": 12},
    "fast, 2 blocks, batch 16": {"blocks": 2, "batch": 16, "measured": 12},
}


def make_program(model: str, shape: tuple[int, ...], width: float) -> Any:
    """A network with seeded weights, converted for the stock profile."""
    import torch

    from hw_models.profile import load_profile
    from toolchain.activations import QCFS
    from toolchain.conversion.pipeline import ConversionOptions, convert
    from toolchain.models import build_model
    from toolchain.program.input_quantizer import InputQuantizer
    from toolchain.program.int_program import Schedule

    torch.manual_seed(SEED)
    net = build_model(model, shape, 10, lambda: QCFS(4, 2.0), width)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(8, *shape))
    quantizer = InputQuantizer.for_interval(shape, 0.0, 1.0, levels=255)
    limits = load_profile("stock-netx").as_target_limits()
    options = ConversionOptions("if", Schedule(1), weight_bits=WEIGHT_BITS)
    return convert(net.eval(), quantizer, options, limits, name=model).program


def child(path: Path, way: str, measured: int, blocks: int | None, batch: int) -> dict[str, float]:
    """One Lava run: seconds a step, and the resident memory of all its processes."""
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
    started = time.perf_counter()
    net.run(condition=RunSteps(num_steps=measured), run_cfg=config)
    seconds = time.perf_counter() - started
    memory = _memory_of_children()
    net.stop()
    return {"step": seconds / measured, "image": seconds / measured * STEPS / batch, **memory}


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
    """Seconds an image of the reference simulator, T = 4, 16 images."""
    from toolchain.simulator.reference import run_steps

    rng = np.random.default_rng(SEED)
    inputs = rng.integers(0, 256, (16, *program.input.shape))
    for _ in run_steps(program, inputs[:1]):
        pass
    started = time.perf_counter()
    for _ in run_steps(program, inputs):
        pass
    return (time.perf_counter() - started) / len(inputs)


def measure(networks: dict[str, Any], rounds: int, folder: Path) -> dict[str, Any]:
    """Medians by network and way."""
    from exports.netx import write_net, write_stock_net

    results: dict[str, Any] = {}
    files = {}
    for name, (model, shape, width) in networks.items():
        program = make_program(model, shape, width)
        ours = replace(program, schedule=replace(program.schedule, wake_steps=STEPS))
        files[name] = (folder / f"{model}-stock.net", folder / f"{model}.net", ours)
        write_stock_net(program, files[name][0])
        write_net(ours, files[name][1])
    for turn in range(rounds):
        for name, (stock_file, our_file, ours) in files.items():
            found = results.setdefault(name, {})
            found.setdefault("reference simulator", []).append({"image": reference_image(ours)})
            for way, options in WAYS.items():
                if name in LARGE and way in ("stock", "fixed_pt"):
                    continue
                path = stock_file if way == "stock" else our_file
                print(f"round {turn + 1}: {name}, {way}", file=sys.stderr)
                found.setdefault(way, []).append(run_child(path, way, options))
    return {
        name: {
            way: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for way, runs in ways.items()
        }
        for name, ways in results.items()
    }


def show(results: dict[str, Any]) -> None:
    """A table for each network."""
    for name, ways in results.items():
        print(f"\n{name}, T = {STEPS}")
        first = ways.get("stock", ways["reference simulator"])["image"]
        against = "stock" if "stock" in ways else "reference"
        print(f"| way | ms a step | ms an image | {against} / this | MB | processes |")
        print("|---|---:|---:|---:|---:|---:|")
        for way, values in ways.items():
            step = f"{values['step'] * 1e3:.2f}" if "step" in values else "-"
            memory = f"{values['memory']:.0f}" if "memory" in values else "-"
            count = f"{values['processes']:.0f}" if "processes" in values else "-"
            print(
                f"| {way} | {step} | {values['image'] * 1e3:.2f} | {first / values['image']:.1f} "
                f"| {memory} | {count} |"
            )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vgg16", action="store_true", help="also VGG16, without stock synapses")
    parser.add_argument("--json", type=Path)
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
    networks = {**NETWORKS, **(LARGE if asked.vgg16 else {})}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(networks, asked.rounds, Path(folder))
    from toolchain.evaluation.document import made_by

    show(results)
    described = made_by(" ".join(["python", *sys.argv]), time.perf_counter() - started)
    print("\n" + json.dumps(described))
    if asked.json:
        asked.json.write_text(json.dumps({**described, "results": results}, indent=1))


if __name__ == "__main__":
    main()
