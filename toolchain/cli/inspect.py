"""`spikeport inspect`: content of a `.net` file, with proved ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import spikeport
from toolchain.cli.options import Json, Net
from toolchain.cli.output import Output

if TYPE_CHECKING:
    import numpy as np

    from toolchain.program.neurons import Neuron
    from toolchain.program.synapse import Synapse

ROUNDING = "rounding"
"""Key of the rounding errors per layer in the provenance, too long for a terminal."""


def command(net: Net, json: Json = False) -> None:
    """Show the layers, thresholds, ranges and origin of a network."""
    from toolchain.program.bounds import analyse
    from toolchain.program.int_program import INPUT
    from toolchain.program.synops import dense_operations

    output = Output(as_json=json)
    program = spikeport.load(net)
    state = program.state_range
    depths = program.depths()
    before = [INPUT, *(p.name for p in program.populations)]
    branched = any(
        [s.source for s in p.synapses] != [source]
        for p, source in zip(program.populations, before, strict=False)
    )
    rows: list[tuple[Any, ...]] = []
    layers: list[dict[str, Any]] = []
    for population, bound in zip(program.populations, analyse(program), strict=True):
        numbers = population.neuron.integers()
        weights = _range([a for s in population.synapses for a in s.arrays().values()])
        threshold = _threshold(population.neuron)
        kinds = "+".join(_kind(s) for s in population.synapses)
        sources = [s.source for s in population.synapses]
        shape = "x".join(str(s) for s in population.shape)
        proved = state.contains(bound.state.low, bound.state.high)
        rows.append(
            (
                population.name,
                _fed_by(population.synapses) if branched else kinds,
                shape,
                " ".join([population.neuron.kind, *map(str, numbers.values())]),
                threshold,
                "-" if weights is None else f"{weights[0]} .. {weights[1]}",
                f"{bound.state}",
                f"{bound.headroom_bits(state):.1f}" if proved else "not proved",
                depths[population.name],
            )
        )
        layers.append(
            {
                "name": population.name,
                "sources": sources,
                "synapses": kinds,
                "shape": list(population.shape),
                "neuron": population.neuron.kind,
                **numbers,
                "threshold": threshold,
                "weights": weights,
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
        f"{'signed' if quantizer.signed else 'unsigned'}, one unit = {quantizer.scale:.6g}"
        f"{', a tensor for each wake step' if quantizer.per_step else ''}; "
        f"{dense_operations(program):,} multiply-adds in the network it came from"
    )
    columns = (
        "layer",
        "fed by" if branched else "synapse",
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
        rounded = program.origin(ROUNDING, list) if key == ROUNDING else None
        listed = "" if rounded is None else f"{len(rounded)} layers (--json lists them)"
        told = listed or _told(value)
        output.say(f"{key}: {told}")
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


def _told(value: object) -> str:
    """A value of the provenance in words; unset values of a group appear with `--json` only."""
    if isinstance(value, dict):
        return ", ".join(f"{k} {_told(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, (list, tuple)):
        return " ".join(map(_told, value)) or "none"
    return "-" if value is None else str(value)


def _fed_by(synapses: tuple[Synapse, ...]) -> tuple[str, ...]:
    """Kind and source of each synapse, one per line."""
    return tuple(f"{_kind(s)} {s.source}" for s in synapses)


def _kind(synapse: Synapse) -> str:
    """Kind of a synapse, with the distance between the values of a source that it spreads."""
    described = synapse.describe()
    down, across = described.get("upsample", (1, 1))
    return f"{described['kind']} /{down},/{across}" if down * across > 1 else described["kind"]


def _range(arrays: list[np.ndarray]) -> list[int] | None:
    """Lowest and highest value of all arrays; None without any."""
    if not arrays:
        return None
    return [min(int(a.min()) for a in arrays), max(int(a.max()) for a in arrays)]


def _threshold(neuron: Neuron) -> str:
    """Range of the thresholds, a readout's scale, or "-"."""
    from toolchain.program.neurons import Readout

    if isinstance(neuron, Readout):
        return f"scale {neuron.scale:.4g}"
    threshold = neuron.arrays().get("threshold")
    return "-" if threshold is None else f"{threshold.min()}..{threshold.max()}"
