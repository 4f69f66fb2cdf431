"""`spikeport detector show`: what a spiking detector finds, beside the network it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import spikeport
from toolchain.cli.options import Boxes, Json, Net
from toolchain.cli.output import Output
from toolchain.cli.param_types import data_path

IMAGES = 3


def command(
    net: Net,
    data: Boxes,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT.png", help="Picture to write.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="What the file was converted from, drawn beside it."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=24, help="How many, from the first.")] = IMAGES,
    score: Annotated[float, typer.Option(min=0, max=1, help="Boxes from this score on.")] = 0.35,
    json: Json = False,
) -> None:
    """Draw annotated boxes, and those that ANN and SNN find.

    Of the quantized ANN, the one with the SNN's integers and, with --checkpoint, the one with float
    weights.
    """
    from spikeport import detection
    from spikeport.running import open_for
    from toolchain.errors import CheckpointError
    from toolchain.learning.activations import ActivationMode, activation_mode
    from toolchain.learning.data import BoxDataset
    from toolchain.learning.detection.checkpoint import load_detector
    from toolchain.learning.detection.detections import Detections, detect
    from toolchain.learning.detection.spec import DetectorSpec
    from toolchain.learning.detection.train_detector import detector_outputs
    from toolchain.output_policy import PICTURE, check_output

    output = Output(as_json=json)
    check_output(out, PICTURE, [net, data_path(data)])
    program = spikeport.load(net)
    spec = DetectorSpec.of(program)
    dataset = open_for(program, data)
    assert isinstance(dataset, BoxDataset)
    shown = dataset.take(slice(0, min(images, len(dataset))))
    found: dict[str, Detections] = {}
    if checkpoint is not None:
        source = load_detector(checkpoint)
        if source.tensors_sha256 != program.provenance.get("checkpoint_sha256"):
            raise CheckpointError(
                "is not what the file was converted from", node=str(checkpoint), allowed=net
            )
        with activation_mode(source.model, ActivationMode.QUANTIZED):
            outputs = detector_outputs(source.model, shown, source.config.mean, source.config.std)
        found["quantized ANN, float weights"] = detect(spec, outputs, shown)
    name = f"quantized ANN, {program.weight_bits}-bit weights"
    found[name] = detection.detect_quantized(program, shown)
    recording = spikeport.run(program, shown, record="counts")
    steps = program.schedule.num_steps
    found[f"SNN, {steps} steps"] = detection.detect(program, recording, shown)
    detection.draw(out, shown, found, score)
    output.say(f"wrote {out}: {len(shown)} images")
    output.result(
        {
            "out": str(out),
            "images": len(shown),
            "detections": {name: len(d.above(score)) for name, d in found.items()},
        }
    )
