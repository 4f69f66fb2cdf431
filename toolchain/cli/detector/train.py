"""`spikeport detector train`: a quantized detector on images with boxes, seeded and resumable."""

from __future__ import annotations

from pathlib import Path

from toolchain.cli.output import Output, percent
from toolchain.cli.param_types import names, parse_pixels
from toolchain.cli.training import (
    DEVICE,
    chosen,
    say_kept,
    setting,
    text_setting,
    with_progress,
    with_settings,
)

SETTINGS = {
    "data": setting(
        str, "voc:PATH, or shapes; its train split trains, its val split chooses.", metavar="SOURCE"
    ),
    "config": setting(Path, "Settings as TOML or YAML; a run leaves its own.", metavar="FILE"),
    "backbone": setting(str, "resnet18, resnet34, resnet50, vgg11 or vgg16.  [resnet18]"),
    "neck": setting(str, "spp or dilated.  [spp]"),
    "head": setting(str, "decoupled or plain.  [decoupled]"),
    "stride": setting(int, "Pixels from one cell to the next, 16 or 32.  [16]"),
    "width": setting(float, "Factor on the number of channels.  [0.25]"),
    "input_size": text_setting(
        parse_pixels, "Images are scaled to fit.  [320x240]", "--input-size", metavar="WIDTHxHEIGHT"
    ),
    "activation": setting(str, "cqrelu, nq, qcfs or relu.  [cqrelu]"),
    "levels": setting(int, "Quantization levels.  [4]"),
    "pooling": setting(str, "average or max.  [max]"),
    "epochs": setting(int, "Passes over the data.  [300]"),
    "batch_size": setting(int, "Images per step.  [16]"),
    "learning_rate": setting(float, "Its peak.  [0.003]"),
    "weight_decay": setting(float, "AdamW's.  [0.02]"),
    "augment": text_setting(
        names, "Of flip, scale, colour; with commas, or none.  [all]", "--augment"
    ),
    "fixed_noise": setting(float, "nq: noise, in thresholds.  [0.05]"),
    "seed": setting(int, "Decides start and order.  [0]", min=0),
    "device": setting(str, DEVICE),
    "precision": setting(str, "auto, float32 or bf16.  [auto]"),
}


@with_settings(SETTINGS)
def command(folder: Path, config: Path | None, json: bool, **given: object) -> None:
    """Train a quantized detector; repeated, it goes on after a stop.

    The epoch kept is the best by mAP on the val split; the test split is not touched.
    """
    from toolchain.learning.detection.config import DetectorConfig
    from toolchain.learning.detection.train_detector import train_detector

    output, precision = Output(as_json=json), ""
    settings = DetectorConfig.from_dict(chosen(given, config, "voc:PATH"))

    def summary(metrics: dict[str, float]) -> str:
        nonlocal precision
        if "held_out_map50" in metrics:
            precision = f", mAP@0.5 {percent(metrics['held_out_map50'])}"
        return f"loss {metrics['loss']:.3f}{precision}"

    kept = with_progress(
        lambda progress: train_detector(settings, folder, progress),
        settings.epochs,
        folder,
        output,
        summary,
    )
    best = kept.history[kept.epoch - 1]
    quality = f"mAP@0.5 {percent(best.get('held_out_map50'))}, "
    quality += f"mAP@[.5:.95] {percent(best.get('held_out_map'))} on the val split"
    cif = settings.activation == "cqrelu"
    say_kept(kept, folder, output, quality, " --neuron cif --calibrate DATA" if cif else "")
