"""`spikeport check`: whether a network can be converted, and everything that stands in the way."""

from __future__ import annotations

from typing import Any

import typer

import spikeport
from toolchain.cli.options import Adapters, InputShape, Json, NetworkSource, Weights
from toolchain.cli.output import Output
from toolchain.cli.wording import as_options


def command(
    source: NetworkSource,
    weights: Weights = None,
    input_shape: InputShape = None,
    adapters: Adapters = None,
    json: Json = False,
) -> None:
    """Find everything that keeps a network from conversion.

    It takes seconds and no data, and ends with 1 if anything does.
    """
    output = Output(as_json=json)
    found = spikeport.check(
        source, weights=weights, input_shape=input_shape, adapters=adapters or ()
    )
    document: dict[str, Any] = as_options(found.describe())
    for index, obstacle in enumerate(document["obstacles"], 1):
        output.say(f"{index}. {obstacle['node']}: {obstacle['message']}")
        for field in ("found", "remedy"):
            if obstacle[field]:
                output.say(f"   {field + ':':<8} {obstacle[field]}")
    for note in document["notes"]:
        output.say(f"note: {note}")
    if found.ok:
        output.say(
            f"{found.name} can be converted: {found.layers} layers of {found.neurons:,} neurons, "
            f"{found.weights:,} weights"
        )
        if found.plain_relus:
            output.say(
                f"{found.plain_relus} plain ReLUs take their thresholds from calibration data: "
                "--calibrate DATA"
            )
    output.result(document)
    if not found.ok:
        raise typer.Exit(1)
