"""Small trained checkpoints, of a classifier and of a detector."""

from toolchain.learning.detection.checkpoint import load_detector, make_detector
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.training.checkpoint import (
    DETECTION,
    load_checkpoint,
    make_model,
    save_checkpoint,
)
from toolchain.learning.training.config import TrainConfig

CONFIG = TrainConfig(data="digits", model="mlp", width=0.25)


DETECTOR = DetectorConfig(data="shapes", input_size=(32, 32), width=0.0625)


INFO = {
    "config": CONFIG.as_dict(),
    "sample_shape": [1, 8, 8],
    "pixel_max": 16,
    "value_range": [0.0, 1.0],
    "class_names": list("0123456789"),
    "data_sha256": "0" * 64,
    "epoch": 1,
    "history": [{"epoch": 1, "loss": 0.5, "selection": 0.5}],
}


def classifier(folder):
    model = make_model(CONFIG, (1, 8, 8), 10)
    save_checkpoint(folder, INFO, dict(model.state_dict()))

    return folder / "checkpoint.json", lambda: load_checkpoint(folder).quantizer()


def detector(folder):
    info = {k: INFO[k] for k in ("data_sha256", "epoch", "history")}
    info |= {"config": DETECTOR.as_dict(), "class_names": ["disc", "square"]}
    save_checkpoint(
        folder, {"task": DETECTION, **info}, dict(make_detector(DETECTOR, 2).state_dict())
    )
    return folder / "checkpoint.json", lambda: load_detector(folder).quantizer()
