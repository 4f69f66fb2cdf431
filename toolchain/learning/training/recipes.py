"""Named sets of training settings; what they leave out keeps its default."""

from __future__ import annotations

from typing import Any

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
"""Per channel, as the official QCFS and NQ code has them."""
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "activation": "nq",
        "levels": 4,
        "initial_threshold": 8.0,
        "initial_weights": "torch",
        "epochs": 400,
        "batch_size": 256,
        "learning_rate": 0.05,
        "schedule": "epoch-cosine",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "augment": ("crop", "flip", "autoaugment", "cutout"),
        "held_out": 0.1,
        "calibration_steps": 4,
        "calibration_augment": True,
        "noise_start": 1,
        "noise_every": 1,
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "precision": "float32",
    },
    "casc": {
        "activation": "cqrelu",
        "levels": 8,
        "epochs": 300,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": "epoch-cosine",
        "warm_up": 5,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "label_smoothing": 0.1,
        "augment": ("crop", "flip", "autoaugment", "cutout-black"),
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "precision": "float32",
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
"""`paper`: the official NQ code's for CIFAR-10 (Huang et al., IEEE TNNLS 2025), line by line. Two
things are ours: the epoch kept is the best on the held-out split (theirs: on the test set), and
"ANN" is the network without noise. The batch of 256 is the one its options suggest for CIFAR-10;
sigma is averaged over batches of 128.

`casc`: that of CASC (Li et al.), for CQReLU; its rise over 5 epochs is linear here.

`short`: for a CPU. A fast rise and fall of the learning rate (OneCycle) takes the place of many
epochs, and a threshold that starts near the size of normalised sums spares the epochs in which it
would come down from 8.
"""
