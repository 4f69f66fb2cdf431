"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolchain.cli.param_types import typed, whole_numbers

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Net = Annotated[Path, typer.Argument(metavar="NET.net", help="A converted network.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="digits, fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, cifar100:DIR, "
        "imagefolder:PATH or npz:PATH (arrays train_samples, train_labels, test_samples, "
        "test_labels), with @train or @test and a slice: digits@test[:100]; for detectors voc:PATH "
        "or shapes.",
    ),
]
Boxes = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="voc:PATH, or shapes, with @train, @val, @trainval or @test and a slice: "
        "voc:VOC2007@test[:100].",
    ),
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapter", metavar="FILE.py", help="Adapters for activations."),
]
NetworkSource = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT|FILE.onnx|FILE.py:FACTORY|model:NAME",
        help="Network to convert. FACTORY also as package.module:FACTORY; model:NAME takes "
        "weights of torchvision or timm; or a FILE.nir.",
    ),
]
InputShape = Annotated[
    Any,
    typed(
        "--input-shape",
        whole_numbers,
        metavar="C,H,W",
        help="Sample shape; by default that of --calibrate. A checkpoint has its own.",
    ),
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=0.1, help="Time limit of a Lava run, in seconds.")
]
