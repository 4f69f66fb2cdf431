"""Modules whose forward a test gives, and the check that they become the same program."""

import torch
from torch import nn

from tests.branched_modules import randomise
from toolchain.conversion.float_values import node_values
from toolchain.conversion.frontend.trace import traced
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.passes.layers import layers_of
from toolchain.learning.activations import QCFS

SHAPE = (4, 6, 8)


class Net(nn.Module):
    def __init__(self, forward, **layers):
        super().__init__()
        self.work = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.work(self, x)


def act():
    return QCFS(4, 1.0)


def assert_converts(model, shape=SHAPE, *, plain_relu=False, oracle=None):
    """The folded program computes what the module (or `oracle`) does, and groups into layers."""
    model = randomise(model).double()
    found = traced(model, shape, plain_relu=plain_relu)
    program, notes = fold(found.program)
    layers_of(program)
    samples = torch.rand(6, *shape, dtype=torch.float64)
    relus = [n.name for n in program.nodes if getattr(n, "bound", None) is not None]
    values = node_values(program, samples, clipped=relus)
    with torch.no_grad():
        wanted = (oracle or model)(samples)
    results = wanted if isinstance(wanted, tuple) else (wanted,)
    for name, last, expected in zip(program.outputs, found.left_out, results, strict=True):
        got = values[name] if last is None else last(values[name])
        assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)
    return program, (*found.notes, *notes)


def body():
    return {"conv": nn.Conv2d(4, 6, 3, padding=1), "act": act(), "fc": nn.Linear(288, 5)}
