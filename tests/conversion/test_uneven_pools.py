"""Pools whose windows differ or hang over the border, and zeros in front of max pools."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import spikeport
from tests.branched_modules import assert_program_is, randomise
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.passes.layers import layers_of, mean_layers
from toolchain.errors import ProgramError, UnsupportedModuleError
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.float_program import AvgPool2d, Conv2d, MaxPool2d
from toolchain.simulator import reference
from toolchain.simulator.planes import correlated


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


POOLS: dict[str, tuple[nn.Module, tuple[int, int]]] = {
    "3x3/2/1": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (7, 8)),
    "3x3/1/1": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (6, 5)),
    "2x2 hangs over": (nn.AvgPool2d(2, ceil_mode=True), (7, 9)),
    "padding counts, hangs over": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (8, 7)),
    "5x5/3/2": (nn.AvgPool2d((5, 3), (3, 2), (2, 0), count_include_pad=False), (9, 7)),
    "adaptive": (nn.AdaptiveAvgPool2d(3), (5, 5)),
}
"""Pools whose windows have different divisors, and the sizes of their images."""


@given(
    kernel=pairs(1, 5),
    stride=pairs(1, 4),
    half=pairs(0, 2),
    size=pairs(1, 9),
    out=pairs(1, 9),
    kind=st.sampled_from(["plain", "hangs over", "adaptive"]),
    count_include_pad=st.booleans(),
)
def test_means_are_sums_of_whole_numbers(kernel, stride, half, size, out, kind, count_include_pad):
    """Of counts of spikes, against torch, with the largest sum for spikes everywhere."""
    padding = tuple(min(h, k // 2) for h, k in zip(half, kernel, strict=True))
    pool: nn.Module = nn.AvgPool2d(kernel, stride, padding, kind == "hangs over", count_include_pad)
    if kind == "adaptive":
        pool = nn.AdaptiveAvgPool2d(out)
    counts = torch.randint(-4, 5, (3, 2, *size)).double()
    try:
        mean = pool(counts)
    except RuntimeError:
        assume(False)
    node = trace(nn.Sequential(nn.Conv2d(1, 2, 1), QCFS(4, 1.0), pool).eval(), (1, *size)).nodes[-1]
    assert isinstance(node, AvgPool2d)
    layers = mean_layers(node, "spikes", (2, *size))
    values, largest = {"spikes": counts}, {"spikes": 1}
    for layer in layers:
        sums = []
        for term in layer.terms:
            conv = term.operation
            assert np.array_equal(conv.weight, conv.weight.astype(np.int64))
            weight = torch.from_numpy(conv.weight.copy())
            sums.append(correlated(conv, values[term.source], weight))
        values[layer.name] = torch.stack(sums).sum(0)
        largest[layer.name] = layer.most(largest)
    unit, last = layers[-1].divisor, layers[-1].name
    assert last == node.name
    assert torch.equal(values[last], (mean * unit).round())
    assert torch.allclose(values[last], mean * unit)
    ones = pool(torch.ones_like(counts)) * unit
    assert largest[last] >= round(float(ones.max()))


class Behind(nn.Module):
    """A pool with two users and a place in a sum: strided, grouped and padded convolutions."""

    def __init__(self, pool):
        super().__init__()
        self.first, self.act, self.pool = nn.Conv2d(2, 4, 3, padding=1), CQReLU(3), pool
        self.grouped = nn.Conv2d(4, 6, 3, 2, 1, groups=2)
        self.padded, self.around = nn.Conv2d(4, 4, 3, padding=1), CQReLU(3)
        self.strided, self.last = nn.Conv2d(4, 6, 1, 2), nn.Conv2d(6, 3, 1)
        self.end = CQReLU(3)

    def forward(self, x):
        pooled = self.pool(self.act(self.first(x)))
        added = self.around(self.padded(pooled) + pooled)
        return self.last(self.end(self.grouped(pooled) + self.strided(added)))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("neuron", ["if", "cif"])
def test_every_spike_of_an_uneven_pool_is_that_of_torch(name, neuron, tmp_path):
    """Step by step, and outputs of settled neurons against the module's own."""
    pool, size = POOLS[name]
    torch.manual_seed(0)
    model = Behind(pool).eval()
    samples = torch.randint(0, 256, (6, 2, *size)).float() / 255
    conversion = spikeport.convert(
        model,
        input_shape=(2, *size),
        neuron=neuron,
        steps=3,
        sleep_steps=24 if neuron == "cif" else None,
    )
    path = tmp_path / "net.net"
    spikeport.save(conversion, path)
    assert {f.rule_id for f in spikeport.lint(path).found} <= {"strange-name"}  # parts: pool[0]
    assert spikeport.load(path).hash == conversion.program.hash
    found = spikeport.run(path, samples.numpy())
    spikes = conversion.program.input.quantize(samples.numpy())
    assert spikeport.compare(found, reference.simulate(conversion.program, spikes)).equal
    sent = {name: torch.from_numpy(s).double() for name, s in found.spikes.items()}
    steps, count = sent["first"].shape[:2]
    mean = pool(sent["first"].flatten(0, 1)).unflatten(0, (steps, count))
    unit = next(n.divisor for n in layers_of(fold(trace(model, (2, *size)))[0]) if n.name == "pool")
    assert sent["pool"].abs().max() > 1
    assert torch.equal(sent["pool"], (mean * unit).round())
    if neuron == "cif":
        with torch.no_grad():
            wanted = model(samples).argmax(1)
        assert (torch.from_numpy(found.outputs["last"]).argmax(1) == wanted).double().mean() > 0.8


@pytest.mark.parametrize("pooling", ["auto", "fold", "stage"])
@pytest.mark.parametrize("name", POOLS)
def test_where_an_uneven_pool_becomes_what(name, pooling):
    pool, size = POOLS[name]
    first = [nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool]
    program = trace(nn.Sequential(*first, nn.Conv2d(2, 2, 1)).eval(), (2, *size))
    if pooling == "fold":
        with pytest.raises(UnsupportedModuleError, match=r'(?s)^2: .*no convolution.*"auto"'):
            fold(program, pooling)
        return
    folded, notes = fold(program, pooling)
    assert [type(n) for n in folded.nodes[-2:]] == [AvgPool2d, Conv2d]
    assert len(notes) == (pooling == "auto")


def test_sums_of_uneven_windows_too_large_for_a_spike():
    pool = nn.AvgPool2d(5, 3, 2, count_include_pad=False)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool, nn.Conv2d(2, 2, 1))
    with pytest.raises(UnsupportedModuleError, match=r"(?s)^2: .*up to \d+ spikes.*count several"):
        fold(trace(model.eval(), (2, 12, 12)))


@pytest.mark.parametrize("place", ["input", "pre-activation"])
def test_uneven_pools_of_what_is_no_spikes(place):
    layers = {
        "input": [nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 2, 1)],
        "pre-activation": [nn.Conv2d(2, 2, 3), nn.AvgPool2d(2, ceil_mode=True), QCFS(4, 1.0)],
    }[place]
    program = trace(nn.Sequential(*layers, nn.Conv2d(2, 2, 1)).eval(), (2, 7, 7))
    with pytest.raises(UnsupportedModuleError, match=r"(?s)hangs over.*behind a quantized activa"):
        fold(program)


@pytest.mark.parametrize(
    ("pool", "size"),
    [
        (nn.AvgPool2d(2, ceil_mode=True), (8, 6)),
        (nn.AvgPool2d(3, 2, ceil_mode=True), (7, 9)),
        (nn.AvgPool2d(2, count_include_pad=False), (7, 8)),
    ],
)
def test_pools_that_are_even_at_this_size_fold(pool, size):
    last = [nn.Conv2d(2, 2, 1), QCFS(4, 1.0), nn.Conv2d(2, 1, 1)]
    assert_program_is(nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(4, 1.0), pool, *last), (2, *size))
