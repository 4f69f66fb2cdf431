"""`spikeport inspect`: what is in a `.net` file, with proved ranges."""

from __future__ import annotations

from typing import Any

from toolchain.cli.options import Json, Net
from toolchain.cli.output import Output


def command(net: Net, json: Json = False) -> None:
    """Show the layers, thresholds, ranges and provenance of a network."""
    from exports.netx import read_net
    from toolchain.neurons import Readout
    from toolchain.program.bounds import analyse
    from toolchain.program.synops import dense_operations

    output = Output(as_json=json)
    program = read_net(net)
    state = program.state_range
    depths = program.depths()
    rows: list[tuple[Any, ...]] = []
    layers: list[dict[str, Any]] = []
    for population, bound in zip(program.populations, analyse(program), strict=True):
        weights = [s.weight for s in population.synapses]
        low, high = min(int(w.min()) for w in weights), max(int(w.max()) for w in weights)
        threshold = (
            f"scale {population.neuron.scale:.4g}"
            if isinstance(population.neuron, Readout)
            else f"{population.neuron.threshold.min()}..{population.neuron.threshold.max()}"
        )
        kinds = "+".join(s.describe()["kind"] for s in population.synapses)
        shape = "x".join(str(s) for s in population.shape)
        proved = state.contains(bound.state.low, bound.state.high)
        rows.append(
            (
                population.name,
                kinds,
                shape,
                population.neuron.kind,
                threshold,
                f"{low}..{high}",
                f"{bound.state}",
                f"{bound.headroom_bits(state):.1f}" if proved else "not proved",
                depths[population.name],
            )
        )
        layers.append(
            {
                "name": population.name,
                "synapses": kinds,
                "shape": list(population.shape),
                "neuron": population.neuron.kind,
                "threshold": threshold,
                "weights": [low, high],
                "state_bound": [bound.state.low, bound.state.high],
                "proved": proved,
                "latency": depths[population.name],
            }
        )
    quantizer = program.input
    output.say(
        f"{net}: {program.name}, hash {program.hash[:16]}, {program.schedule.wake_steps} wake + "
        f"{program.schedule.sleep_steps} sleep steps"
    )
    output.say(
        f"input {'x'.join(str(s) for s in quantizer.shape)}, {quantizer.bits}-bit "
        f"{'signed' if quantizer.signed else 'unsigned'}, one unit = {quantizer.scale:.6g}; "
        f"{dense_operations(program):,} multiply-adds in the network it came from"
    )
    columns = (
        "layer",
        "synapse",
        "shape",
        "neuron",
        "threshold",
        "weights",
        "state (any input)",
        "headroom bits",
        "latency",
    )
    output.table(columns, rows, "layers")
    for key, value in program.provenance.items():
        output.say(f"{key}: {value}")
    output.result(
        {
            "name": program.name,
            "program_hash": program.hash,
            "wake_steps": program.schedule.wake_steps,
            "sleep_steps": program.schedule.sleep_steps,
            "input": quantizer.describe(),
            "layers": layers,
            "provenance": dict(program.provenance),
        }
    )
