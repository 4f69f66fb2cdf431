"""Pools whose last window hangs over the border, and zeros in front of max pools."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.branched_modules import assert_program_is, randomise
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.errors import ProgramError, UnsupportedModuleError
from toolchain.learning.activations import QCFS
from toolchain.program.float_program import AvgPool2d, MaxPool2d


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


class Padded(nn.Module):
    """A quantized activation, zeros around it, a pool, and a 1x1 convolution."""

    def __init__(self, sides, pool):
        super().__init__()
        self.first, self.act, self.pool = nn.Conv2d(2, 3, 1), QCFS(4, 1.0), pool
        self.sides, self.last = sides, nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.last(self.pool(F.pad(self.act(self.first(x)), self.sides)))


@given(
    kernel=pairs(1, 4),
    stride=pairs(1, 4),
    dilation=pairs(1, 2),
    half=pairs(0, 2),
    sides=st.tuples(*[st.integers(0, 2)] * 4),
    size=pairs(1, 8),
    ceil_mode=st.booleans(),
)
def test_max_pools_are_those_of_torch(kernel, stride, dilation, half, sides, size, ceil_mode):
    """Own padding, zeros in front and ceil_mode together, against torch in float64."""
    padding = tuple(min(h, k // 2) for h, k in zip(half, kernel, strict=True))
    begin = (padding[0] + sides[2], padding[1] + sides[0])
    assume(all(2 * b <= k for b, k in zip(begin, kernel, strict=True)))
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    model = Padded(sides, pool).double().eval()
    samples = 2 * torch.rand(3, 2, *size, dtype=torch.float64)
    try:
        lowest = pool(F.pad(samples, sides, value=-torch.inf)).min()
    except RuntimeError:  # the kernel is larger than the padded image
        assume(False)
    if torch.isinf(lowest):
        with pytest.raises(ProgramError, match="wholly in the padding"):
            trace(model, (2, *size))
        return
    with torch.no_grad():
        expected = model(samples)
    program = trace(model, (2, *size))
    assert torch.equal(evaluate(program, samples), expected)
    (node,) = (n for n in program.nodes if isinstance(n, MaxPool2d))
    if not any(sides) and not ceil_mode:
        assert node.overhang == (0, 0)


@pytest.mark.parametrize(
    ("pool", "size", "overhang"),
    [
        (nn.MaxPool2d(3, 2, ceil_mode=True), (7, 9), (0, 0)),
        (nn.MaxPool2d(2, 2, padding=1, ceil_mode=True), (6, 8), (0, 0)),
        (nn.MaxPool2d(1, 2, ceil_mode=True), (6, 8), (0, 0)),  # the added window would lie outside
        (nn.MaxPool2d(2, 3, dilation=2, ceil_mode=True), (6, 9), (0, 0)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), (8, 9), (1, 0)),
        (nn.MaxPool2d(2, 2, padding=1, ceil_mode=True), (7, 8), (0, 0)),
        (nn.Sequential(nn.ZeroPad2d((1, 0, 0, 1)), nn.MaxPool2d(2)), (5, 4), (1, -1)),
        (nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2)), (6, 6), (0, 0)),
    ],
)
def test_overhang_only_where_it_adds_or_drops_windows(pool, size, overhang):
    """So programs without any stay as they were."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool)
    (node,) = (n for n in trace(model.eval(), (2, *size)).nodes if isinstance(n, MaxPool2d))
    assert node.overhang == overhang


def test_zeros_in_front_of_a_max_pool_of_values_below_zero():
    """There a zero would be the largest value of a window."""
    pooled = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
    with pytest.raises(UnsupportedModuleError, match=r"(?s)may be negative.*front of the padding"):
        trace(nn.Sequential(nn.Conv2d(2, 2, 1), pooled, QCFS(4, 1.0)).eval(), (2, 8, 8))
    between = nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.BatchNorm2d(2), pooled)
    with pytest.raises(UnsupportedModuleError, match="may be negative"):
        trace(between.eval(), (2, 8, 8))


@pytest.mark.parametrize("activation", [[QCFS(4, 1.0)], []], ids=["behind", "in front"])
def test_minus_infinity_in_front_of_a_max_pool(activation):
    """As networks of TensorFlow pad, for pools of any values."""
    around = nn.ConstantPad2d((0, 1, 1, 0), -torch.inf)
    last = [nn.MaxPool2d(3, 2), *([] if activation else [QCFS(4, 1.0)]), nn.Conv2d(2, 3, 1)]
    model = nn.Sequential(nn.Conv2d(2, 2, 1), *activation, around, *last)
    program = assert_program_is(model, (2, 8, 8), fold=False)
    (pool,) = (n for n in fold(program)[0].nodes if isinstance(n, MaxPool2d))
    assert (pool.padding, pool.overhang) == ((1, 0), (0, 1))


@pytest.mark.parametrize("taker", [nn.Conv2d(2, 2, 3), nn.ZeroPad2d(1), nn.AvgPool2d(3)])
def test_minus_infinity_in_front_of_anything_else(taker):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.ConstantPad2d(1, -torch.inf), taker)
    with pytest.raises(UnsupportedModuleError, match=r"(?s)^2: minus infinity.*read by 3"):
        trace(model.eval(), (2, 8, 8))


def test_more_zeros_than_half_a_kernel():
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.ZeroPad2d((2, 0, 0, 0)), nn.MaxPool2d(3, 1)
    )
    with pytest.raises(UnsupportedModuleError, match=r"(?s)half its kernel.*2 columns to the left"):
        trace(model.eval(), (2, 8, 8))


@given(
    kernel=pairs(1, 4),
    stride=pairs(1, 4),
    half=pairs(0, 2),
    size=pairs(2, 8),
    count_include_pad=st.booleans(),
)
def test_average_pools_with_ceil_mode_fold_into_a_dense_layer(
    kernel, stride, half, size, count_include_pad
):
    """The divisor of the last windows differs; a dense layer has a weight of its own for each."""
    padding = tuple(min(h, k // 2) for h, k in zip(half, kernel, strict=True))
    pool = nn.AvgPool2d(kernel, stride, padding, True, count_include_pad)
    try:
        windows = pool(torch.zeros(1, 2, *size)).numel()
    except RuntimeError:
        assume(False)
    first = [nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool]
    model = nn.Sequential(*first, nn.Flatten(), nn.Linear(windows, 3))
    folded = assert_program_is(model, (2, *size))
    assert not any(isinstance(n, AvgPool2d) for n in folded.nodes)


@pytest.mark.parametrize("pooling", ["auto", "fold", "stage"])
def test_average_pools_with_ceil_mode_in_front_of_a_convolution(pooling):
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1),
        QCFS(4, 1.0),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(2, 2, 1),
    )
    message = r"(?s)^2: .*hangs over.*ceil_mode=False.*dense layer"
    with pytest.raises(UnsupportedModuleError, match=message):
        fold(trace(model.eval(), (2, 8, 8)), pooling)
    fitting = trace(model.eval(), (2, 7, 9))
    (pool,) = (n for n in fitting.nodes if isinstance(n, AvgPool2d))
    assert not pool.ceil_mode
    fold(fitting, pooling)


def test_average_pools_in_a_row_with_ceil_mode():
    model = nn.Sequential(
        nn.Conv2d(2, 2, 1),
        QCFS(4, 1.0),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    assert_program_is(model, (2, 8, 8), fold=False)
    # The second is folded into the dense layer, then the first.
    program, notes = fold(trace(model.double().eval(), (2, 8, 8)), "fold")
    assert notes == ()
    samples = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert np.allclose(evaluate(program, samples), model(samples))


@given(size=pairs(1, 9), out=pairs(1, 9), into=st.sampled_from(["dense", "conv", "depthwise"]))
def test_adaptive_average_pools_in_front_of_what_reads_all_of_them(size, out, into):
    """VGG's pool at other sizes than its own, also to more windows than there are values."""
    behind: dict[str, list[nn.Module]] = {
        "dense": [nn.Flatten(), nn.Linear(2 * out[0] * out[1], 3)],
        "conv": [nn.Conv2d(2, 3, out, stride=2)],
        "depthwise": [nn.Conv2d(2, 4, out, groups=2)],
    }
    first = [nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(out)]
    model = randomise(nn.Sequential(*first, *behind[into])).double()
    samples = torch.randn(5, 2, *size, dtype=torch.float64)
    program, _ = fold(trace(model, (2, *size)))
    assert not any(isinstance(n, AvgPool2d) for n in program.nodes)
    with torch.no_grad():
        assert torch.allclose(evaluate(program, samples), model(samples), atol=1e-9)


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(3, 2, ceil_mode=True)]
)
def test_uneven_pools_in_front_of_a_convolution_as_large_as_they(pool):
    last = [nn.Conv2d(2, 3, (3, 4) if pool.ceil_mode else 4), QCFS(4, 1.0), nn.Conv2d(3, 2, 1)]
    size = (7, 8)
    assert_program_is(nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool, *last), (2, *size))


@pytest.mark.parametrize("pooling", ["auto", "fold", "stage"])
def test_adaptive_average_pools_in_front_of_other_layers(pooling):
    first = [nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.AdaptiveAvgPool2d((3, 2))]
    for conv in (nn.Conv2d(2, 2, 2), nn.Conv2d(2, 2, (3, 2), padding=1)):
        program = trace(nn.Sequential(*first, conv).eval(), (2, 8, 8))
        with pytest.raises(UnsupportedModuleError, match=r"(?s)^2: .*3x2 windows are uneven"):
            fold(program, pooling)
