"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolchain.cli.param_types import divisors, interval, real_numbers, typed, whole_numbers

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Net = Annotated[Path, typer.Argument(metavar="NET.net", help="A converted network.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="digits, fashion-mnist[:DIR], mnist:DIR, cifar10:DIR, cifar100:DIR, "
        "imagefolder:PATH or npz:PATH (arrays train_samples, train_labels, test_samples, "
        "test_labels), with @train or @test and a slice: digits@test[:100]; FILE.py:FACTORY, which "
        "returns a torch Dataset or DataLoader; for detectors voc:PATH or shapes.",
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
Weights = Annotated[
    Path | None,
    typer.Option(help="State dict for FILE.py:FACTORY or model:NAME (.safetensors, .pt)."),
]
InputRange = Annotated[
    Any,
    typed(
        "--input-range",
        interval,
        metavar="LOW,HIGH",
        help="Range of real sample values, before --mean and --std; by default 0,1, or that of "
        "the samples of --calibrate. Pixels are 0 .. 1; floats are used unchanged.",
    ),
]
Mean = Annotated[
    Any,
    typed(
        "--mean",
        real_numbers,
        help="Subtracted from samples: one number per channel, or one for all, such as 128/255.",
    ),
]
Std = Annotated[
    Any,
    typed(
        "--std",
        divisors,
        help="Divisor of samples after --mean: one number per channel, or one for all.",
    ),
]
Calibrate = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Calibration data, for sleep steps (CIF), gptq, thresholds of ReLUs, saturation; "
        "never test data.",
    ),
]
CalibrationSamples = Annotated[
    int, typer.Option(min=1, help="Number of calibration samples, chosen at random.")
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Processes of one thread each that share the work [1: this one, on all cores].",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="ADDRESS", help="A Dask scheduler whose workers share the work."
    ),
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=0.1, help="Time limit of a Lava run, in seconds.")
]
