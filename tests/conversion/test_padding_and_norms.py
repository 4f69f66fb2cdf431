"""Zeros on one side of a convolution, and BatchNorm where no layer stands right before it."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.branched_modules import assert_program_is, randomise
from toolchain.conversion.float_values import node_values
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.errors import UnsupportedModuleError
from toolchain.learning.activations import QCFS, CQReLU, qcfs
from toolchain.program.float_program import BatchNorm


@pytest.mark.parametrize(
    ("kernel", "how", "pads"),
    [
        (3, {"stride": 2}, [nn.ZeroPad2d((0, 1, 0, 1))]),
        (3, {"stride": (2, 1)}, [nn.ZeroPad2d((3, 0, 1, 2)), nn.ConstantPad2d((0, 0, 1, 0), 0.0)]),
        ((2, 4), {"padding": "same"}, []),
        ((4, 3), {"padding": "same", "dilation": (1, 2), "groups": 2}, []),
        ((3, 2), {"padding": 1, "dilation": 2, "bias": False}, [nn.ZeroPad2d((2, 0, 0, 4))]),
        (1, {"padding": (2, 0)}, [nn.ZeroPad2d(1)]),
    ],
)
def test_zeros_around_a_convolution(kernel, how, pads):
    """More zeros on one side than on the other, by every way that torch has for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch copies for even kernels
        assert_program_is(nn.Sequential(*pads, nn.Conv2d(2, 4, kernel, **how)), (2, 7, 9))


def test_zeros_by_function_and_what_takes_them():
    class Padded(nn.Module):
        def __init__(self, behind):
            super().__init__()
            self.behind = behind

        def forward(self, x):
            return self.behind(F.pad(x, (1, 0, 0, 2)))

    assert_program_is(Padded(nn.Conv2d(2, 3, 3)), (2, 6, 5))
    with pytest.raises(UnsupportedModuleError, match=r"^pad: zero padding[\s\S]*read by behind"):
        trace(Padded(nn.AvgPool2d(2)).eval(), (2, 6, 5))
    with pytest.raises(UnsupportedModuleError, match="padding other than zeros"):
        trace(nn.Sequential(nn.ConstantPad2d(1, 0.5), nn.Conv2d(2, 3, 3)).eval(), (2, 6, 5))
    uneven = nn.Sequential(nn.ZeroPad2d((1, 0, 0, 0)), nn.Conv2d(2, 3, 3, dilation=2))
    with pytest.raises(UnsupportedModuleError, match="no multiple of the dilation"):
        trace(uneven.eval(), (2, 7, 7))


@pytest.mark.parametrize(
    "behind",
    [
        [nn.Conv2d(4, 6, (2, 3), stride=2, groups=2)],
        [nn.Flatten(), nn.Linear(4 * 7 * 8, 5)],
        [nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 3, 2)],
        [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 5)],
        [nn.AvgPool2d(2), nn.Conv2d(4, 3, 2, dilation=2), QCFS(4, 1.0), nn.Conv2d(3, 2, 1)],
        [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), CQReLU(4), nn.Linear(3, 2)],
    ],
)
@pytest.mark.parametrize("first", [[], [nn.Conv2d(4, 4, 3, padding=1), QCFS(4, 1.0)]])
def test_batch_norm_behind_spikes(first, behind):
    """Behind an activation or on the input, through pools and flattens."""
    assert_program_is(nn.Sequential(*first, nn.BatchNorm2d(4), *behind), (4, 7, 8))


def test_batch_norm_behind_spikes_with_several_users():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
            self.one, self.two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.pool, self.head = nn.MaxPool2d(2), nn.Linear(36, 2)

        def forward(self, x):
            x = qcfs(self.first(x), torch.tensor(1.0), 4)
            y = self.norm(x)
            z = qcfs(self.one(y) + self.two(y), torch.tensor(1.0), 4)
            return self.head((self.pool(y)).flatten(1)), self.two(x), self.one(z)

    model = randomise(Shared()).double()
    samples = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    program = fold_batch_norm(trace(model, (2, 8, 8)))
    assert not any(isinstance(n, BatchNorm) for n in program.nodes)
    values = node_values(program, samples)
    with torch.no_grad():
        for name, expected in zip(program.outputs, model(samples), strict=True):
            assert torch.allclose(values[name], expected, atol=1e-9)


def test_batch_norm_of_several_processes():
    norm = nn.SyncBatchNorm(3)
    nn.init.uniform_(norm.running_var, 0.3, 2.0)
    nn.init.normal_(norm.running_mean)
    assert_program_is(nn.Sequential(nn.Conv2d(2, 3, 3), norm))
