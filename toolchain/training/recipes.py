"""Named sets of training settings; what they leave out keeps its default."""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "epochs": 400,
        "batch_size": 128,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "weight_decay": 5e-4,
        "initial_threshold": 8.0,
        "levels": 4,
        "calibration_steps": 4,
        "augment": ("crop", "flip", "autoaugment", "cutout"),
    },
    "short": {
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 0.2,
        "schedule": "onecycle",
        "weight_decay": 5e-4,
        "label_smoothing": 0.05,
        "initial_threshold": 2.0,
        "augment": ("crop", "flip"),
    },
}
"""`paper`: the official NQ code's (METHODS: 400 epochs, SGD 0.05, cosine, AutoAugment and Cutout).

`short`: for a CPU. A fast rise and fall of the learning rate (OneCycle) takes the place of many
epochs, and a threshold that starts near the size of normalised sums spares the epochs in which it
would come down from 8.
"""
