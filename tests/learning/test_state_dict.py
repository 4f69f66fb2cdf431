"""State dicts as other people's training loops save them, and what may stand in such files."""

import argparse
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from toolchain.errors import CheckpointError
from toolchain.learning.training.state_dict import load_weights, read_tensors


def network():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2)))


STATE = network().state_dict()
BESIDE = {
    "args": argparse.Namespace(lr=0.1, seed=np.int64(3), gpus=[0, 1]),
    "acc": np.float64(91.25),
    "best": np.float32(0.5),
    "epoch": 3,
}


@pytest.mark.parametrize(
    "saved",
    [
        {f"module.{k}": v for k, v in STATE.items()},
        {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
        {"state_dict": {f"model.{k}": v for k, v in STATE.items()}},
        {"net": STATE, **BESIDE},
        {"model": STATE, "optimizer": {"state": {}, "param_groups": []}, "ema": STATE},
        {"model_state_dict": STATE, **BESIDE},
        {"weights_of_mine": STATE, **BESIDE},
        {k: v for k, v in STATE.items() if "num_batches" not in k},
        {k: v.reshape(1) if v.ndim == 0 else v for k, v in STATE.items()},
        {k: v.double() if v.is_floating_point() else v for k, v in STATE.items()},
    ],
    ids=str,
)
def test_the_network_is_found(saved, tmp_path):
    torch.save(saved, tmp_path / "w.pt")
    model = network()
    with torch.no_grad():
        model.conv.weight.zero_()
        model.norm.running_var.fill_(9.0)
    load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(v, STATE[k]) for k, v in model.state_dict().items())


class Bomb:
    def __reduce__(self):
        return eval, ("1/0",)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        ({"a": STATE, "b": STATE}, "several state dicts"),
        ({"epoch": 3, "acc": 0.5}, "not a state dict"),
        ({"model": STATE, "extra": Bomb()}, "cannot be read safely"),
        ({"module.conv.weight": STATE["conv.weight"]}, "missing conv.bias"),
        ({**STATE, "head.weight": torch.zeros(2)}, "unexpected head.weight"),
        ({**STATE, "conv.bias": torch.zeros(3)}, r"conv.bias has shape \(3,\), not \(2,\)"),
    ],
    ids=["several", "none", "code", "missing", "unexpected", "shape"],
)
def test_what_does_not_fit_is_named(saved, told, tmp_path):
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=told):
        load_weights(network(), tmp_path / "w.pt")


def test_names_that_share_their_first_part_keep_it(tmp_path):
    """A prefix goes only where the model has none."""
    model = nn.Sequential(OrderedDict(features=network()))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    load_weights(nn.Sequential(OrderedDict(features=network())), tmp_path / "w.pt")
    assert set(read_tensors(tmp_path / "w.pt")) == set(model.state_dict())
