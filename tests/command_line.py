"""The command line as a user starts it, and networks to give it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


START = ("--initial-threshold", "2")
"""With it a network trained for an epoch or two fires; with 8 every output may be the same."""


def spikeport(*arguments, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, "-m", "toolchain.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


def ok(*arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def fails(code, message, *arguments, **how):
    result = spikeport(*arguments, **how)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    assert message in result.stderr, result.stderr
    return result


FACTORIES = """
import torch
from torch import nn
from toolchain.activations import QCFS

def good():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), QCFS(4, 1.0), nn.Flatten(), nn.Linear(144, 10)
    )

def pooled():
    return nn.Sequential(nn.Conv2d(1, 4, 3), QCFS(4), nn.LPPool2d(2, 2), nn.Flatten(),
                         nn.Linear(36, 10))

def diverged():
    model = good()
    model[0].weight.data[1] = float("nan")
    return model

def zero():
    model = good()
    model[2].threshold.data.zero_()
    return model

def text():
    return "no network"

def no_levels():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), QCFS(0), nn.Linear(4, 2))

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def dead():
    model = plain()
    nn.init.constant_(model[1].weight, -1.0)
    nn.init.zeros_(model[1].bias)
    return model
"""
