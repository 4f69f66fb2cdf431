"""Reasons of the passes come together, each once, with what is left of the network behind it."""

import pytest
import torch
from torch import nn

from tests.branched_modules import randomise
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold_or_explain
from toolchain.errors import ObstaclesError, UnsupportedModuleError
from toolchain.learning.activations import QCFS


def conv(c_in=2, c_out=2, kernel=1, **how):
    return nn.Conv2d(c_in, c_out, kernel, **how)


def act():
    return QCFS(4, 1.0)


def negative(channels=2):
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.fill_(-1.0)
    return norm


def reasons(*layers, shape=(2, 8, 8)):
    model = nn.Sequential(*layers).eval()
    with pytest.raises(UnsupportedModuleError) as error:
        fold_or_explain(trace(model, shape))
    found = getattr(error.value, "obstacles", (error.value,))
    return [obstacle.node for obstacle in found]


def test_each_reason_is_found():
    assert reasons(
        nn.MaxPool2d(2),  # on the input
        conv(),
        nn.MaxPool2d(2),  # of values that are no spikes
        negative(),
        act(),
        nn.AvgPool2d(2),
        conv(2, 2, 1),
        act(),
        nn.Flatten(),
        nn.Linear(2, 2),
        act(),  # at the end
    ) == ["3", "0", "10"]


def test_two_convolutions_of_which_the_second_pads():
    body = (conv(2, 2, 3), conv(2, 2, 3, padding=1), act(), conv(2, 2, 3), conv(2, 2, 3, padding=1))
    head = (act(), nn.Flatten(), nn.Linear(32, 2))
    assert reasons(*body, *head) == ["1, 4"]


def test_a_network_without_reasons_is_folded():
    model = randomise(nn.Sequential(conv(), act(), nn.Flatten(), nn.Linear(128, 2))).eval()
    program, notes = fold_or_explain(trace(model, (2, 8, 8)))
    assert notes == ()
    assert program.outputs == ("3",)


def test_all_stand_in_one_error():
    body = (nn.MaxPool2d(2), conv(), act(), nn.Flatten(), nn.Linear(32, 2), act())
    with pytest.raises(ObstaclesError, match=r"(?s)^2 kinds of obstacles\n1\. 0: .*\n2\. 5: "):
        fold_or_explain(trace(nn.Sequential(*body).eval(), (2, 8, 8)))
