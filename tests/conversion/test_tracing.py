"""Tracing and folding: every supported operation equals torch, everything else is an error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.branched_modules import SHAPE, assert_program_is, wrap
from toolchain.conversion.float_values import check_against_module
from toolchain.conversion.frontend.adapters import (
    ActivationSpec,
    activation_adapter,
    load_adapter_file,
)
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.conversion.passes.layers import layers_of
from toolchain.errors import ConversionError, ProgramError, UnsupportedModuleError
from toolchain.learning.activations import NQ, QCFS, CQReLU, cqrelu, qcfs


def test_sequential_network():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        QCFS(4, 1.0),
        nn.Dropout(0.5),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 2, padding=1, dilation=1, groups=2),
        CQReLU(4),
        nn.Identity(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
        NQ(4, 1.5),
        nn.Linear(5, 3),
    )
    program = assert_program_is(model)
    layers = layers_of(program)
    assert [layer.name for layer in layers] == ["0", "5", "10", "13"]
    assert [layer.terms[0].source for layer in layers] == ["input", "0", "5", "10"]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.norm = nn.BatchNorm2d(4)
        self.threshold = nn.Parameter(torch.tensor(1.3))
        self.second = nn.Parameter(torch.randn(3, 64))
        self.third = nn.Parameter(torch.randn(2, 3))
        self.bias = nn.Parameter(torch.randn(3))

    def forward(self, x):
        x = F.conv2d(x, self.first, stride=1, padding=1)
        norm = self.norm
        x = F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False
        )
        x = qcfs(x, self.threshold, 4)
        x = F.dropout(x, 0.5, self.training)
        x = F.avg_pool2d(x, 2)
        x = x.view(x.size(0), -1)
        x = cqrelu(F.linear(x, self.second, self.bias), 4)
        return F.linear(x, self.third)


def test_functional_network():
    program = assert_program_is(Functional())
    assert len(layers_of(program)) == 3


def test_the_trace_check_takes_modules_and_functions_together():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), NQ(4, 1.0))
            self.middle, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(cqrelu(self.middle(self.body(x)), 4, torch.tensor(2.0)))

    torch.manual_seed(0)
    model = Mixed().eval()
    check_against_module(model, trace(model, SHAPE), torch.rand(8, *SHAPE))


def test_the_trace_check_notices_a_wrong_program():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), QCFS(4, 1.0), nn.Linear(8, 2)).eval()
    program = trace(model, SHAPE)
    with torch.no_grad():
        model[1].weight += 0.001
    with pytest.raises(ConversionError, match="does not compute what the network computes"):
        check_against_module(model, program, torch.rand(8, *SHAPE))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(start_dim=1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(x.size(0), 2 * 8 * 8),
        lambda x: x.view(-1, 128),
        lambda x: F.dropout(x, training=False).contiguous().flatten(1),
    ],
)
def test_ways_to_flatten(flatten):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(128, 3)

        def forward(self, x):
            return self.head(flatten(x))

    assert_program_is(Net())


@settings(max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.booleans(),
    conv=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    dense=st.booleans(),
)
def test_average_pools_fold_exactly_or_not_at_all(kernel, stride, pad, conv, size, dense):
    padding = (kernel[0] // 2, kernel[1] // 2) if pad else (0, 0)
    pool = nn.AvgPool2d(kernel, stride, padding, count_include_pad=not (dense and pad))
    shape = (2, *size)
    pooled = pool(torch.zeros(1, *shape)).shape[1:]
    if dense:
        model = nn.Sequential(pool, nn.Flatten(), nn.Linear(int(np.prod(pooled)), 3))
    else:
        k, s, p, d = conv
        layer = nn.Conv2d(2, 3, k, s, p, d)
        if min(pooled[1:]) + 2 * p < d * (k - 1) + 1:
            return
        out = layer(torch.zeros(1, *pooled)).shape[1:]
        model = nn.Sequential(
            pool, layer, QCFS(4, 1.0), nn.Flatten(), nn.Linear(int(np.prod(out)), 2)
        )
    try:
        assert_program_is(model, shape)
    except UnsupportedModuleError as error:
        assert "cannot be folded exactly" in str(error)  # noqa: PT017
        assert not dense
        assert padding != (0, 0) or conv[2] > 0 or kernel > stride or stride[0] > 1 or stride[1] > 1


def test_common_pools_do_fold():
    """Pools whose windows tile the image fold with any padding of the convolution behind."""
    for k in (2, 4):
        for p in (0, 1, 2):
            conv = nn.Conv2d(2, 3, 3, padding=p)
            out = conv(torch.zeros(1, 2, 16 // k, 16 // k)).numel()
            model = nn.Sequential(
                nn.AvgPool2d(k), conv, QCFS(4, 1.0), nn.Flatten(), nn.Linear(out, 2)
            )
            assert_program_is(model, (2, 16, 16))


def test_a_pool_that_cannot_fold_says_why():
    model = nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(2, 3, 3, padding=1), QCFS(), nn.Flatten(), nn.Linear(48, 2)
    )
    program = fold_batch_norm(trace(model, (2, 9, 9)))
    with pytest.raises(UnsupportedModuleError, match=r"^0: [\s\S]*drops the last of 9 rows"):
        place_average_pools(program, "fold")


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"conv": nn.Conv2d(2, 2, 3, padding=1)})

    def forward(self, x):
        return self.body["conv"](x) + x


class Choice(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x


class Returns(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.a = nn.Conv2d(2, 2, 1)
        self.what = what

    def forward(self, x):
        return self.what(self.a, x)


ROWS = nn.Sequential(nn.Flatten(2), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        (wrap(nn.MaxPool3d(2)), "0.1", "use nn.MaxPool2d"),
        (
            wrap(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))),
            "0.1.0",
            "plain ReLU has no threshold",
        ),
        (wrap(nn.GELU()), "0.1", "replace the activation by"),
        (wrap(nn.LSTM(2, 2)), "0.1", "torch.nn.modules.rnn.LSTM has no exact"),
        (wrap(nn.LPPool2d(2, 2)), "0.1", "has no exact integer counterpart"),
        (wrap(nn.BatchNorm2d(2, track_running_stats=False)), "0.1", "without running statistics"),
        (wrap(nn.AvgPool2d(2, divisor_override=3)), "0.1", r"(?s)divisor_override.*scale"),
        (wrap(ROWS), "0.1.0", r"(?s)another order or shape.*\(2, 1, 64\), read by 0.1.1"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")),
            "0",
            "padding mode",
        ),
        (Choice(), "Choice", "cannot be traced"),
        (TwoInputs(), "y", "several inputs"),
        (Returns(lambda a, x: (a(x), x)), "output", "returns its input"),
        (Returns(lambda a, x: (a(x), [a(x)])), "output", "must return tensors"),
        (Returns(lambda a, x: [(y := a(x)), y]), "output", "returns a tensor twice"),
    ],
)
def test_unsupported(model, path, message):
    with pytest.raises(UnsupportedModuleError, match=message) as error:
        trace(model, SHAPE)
    assert error.value.node == path


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        (
            nn.Sequential(
                nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), QCFS(), nn.Flatten(), nn.Linear(128, 2)
            ),
            "0",
            "exactly one quantized activation",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(128, 2), QCFS()), "2", "ends in an activation"),
        (nn.Sequential(QCFS(), nn.Flatten(), nn.Linear(128, 2)), "0", "must follow a convolution"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), QCFS(), nn.MaxPool2d(2)), "2", "must end in dense"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.AvgPool2d(2), QCFS()), "1", "must be followed by"),
    ],
)
def test_networks_without_a_spiking_form(model, path, message):
    with pytest.raises(UnsupportedModuleError, match=message) as error:
        layers_of(place_average_pools(fold_batch_norm(trace(model.eval(), SHAPE)), "fold")[0])
    assert error.value.node == path


def test_nan_weights_name_the_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), QCFS(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight[2, 3] = float("nan")
    with pytest.raises(ConversionError, match=r"^1: weight holds NaN") as error:
        trace(model, SHAPE)
    assert "1 of 512 values" in str(error.value)


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_thresholds_must_be_positive(threshold):
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), QCFS(4, threshold), nn.Linear(4, 2))
    with pytest.raises(ConversionError, match=r"^2: an activation threshold must be positive"):
        trace(model, SHAPE)


def test_shapes_that_do_not_fit():
    with pytest.raises(ProgramError, match=r"^0: Linear does not fit") as error:
        trace(nn.Sequential(nn.Linear(8, 3)), SHAPE)
    assert "put a Flatten before it" in str(error.value)
    with pytest.raises(ProgramError, match="0: input channels differ"):
        trace(nn.Sequential(nn.Conv2d(3, 3, 1)), SHAPE)


def test_tracing_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), NQ(), nn.Linear(4, 2)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trace(model, SHAPE)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# ---- activations of other projects


class GradFloor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.floor()

    @staticmethod
    def backward(ctx, g):
        return g


class IF(nn.Module):
    """Stands for the layer of the public QCFS code: the same class name, attributes and values."""

    def __init__(self, T=0, L=4, thresh=2.0):
        super().__init__()
        self.thresh = nn.Parameter(torch.tensor([thresh]))
        self.T, self.L = T, L

    def forward(self, x):
        x = torch.clamp(x / self.thresh, 0, 1)
        return GradFloor.apply(x * self.L + 0.5) / self.L * self.thresh


class Clipper(nn.Module):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        return torch.floor(torch.clamp(x, 0, self.limit) / self.limit * 3) / 3 * self.limit


def with_activation(activation):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 6), activation, nn.Linear(6, 2))


def test_public_qcfs_layer():
    program = assert_program_is(with_activation(IF()))
    (activation,) = [n for n in program.nodes if n.name == "2"]
    assert (activation.levels, activation.shift, activation.threshold.tolist()) == (4, 0.5, [2.0])


class SpikeQuantizer(nn.Module):
    """Stands for SpikingJelly's quantizers: the attributes it knows them by, and their values."""

    def __init__(self, scale, level, sym):
        super().__init__()
        self.s = nn.Parameter(torch.tensor(scale))
        self.sym = sym
        self.register_buffer("pos_max", torch.tensor(float(level // 2 - 1 if sym else level - 1)))
        self.register_buffer("neg_min", torch.tensor(float(-level // 2 if sym else 0)))

    def forward(self, x):
        q = torch.floor(x / self.s + 0.5)
        return torch.clamp(q, min=float(self.neg_min), max=float(self.pos_max)) * self.s


def test_spikingjelly_quantizers():
    program = assert_program_is(with_activation(SpikeQuantizer(0.25, 8, False)))
    (activation,) = [n for n in program.nodes if n.name == "2"]
    assert (activation.levels, activation.shift) == (7, 0.5)
    assert activation.threshold.tolist() == [1.75]


def test_signed_quantizers_are_taken_behind_a_relu_only():
    signed = SpikeQuantizer(0.25, 8, True)
    with pytest.raises(UnsupportedModuleError, match=r"^2: .* also encodes negative values"):
        trace(with_activation(signed), SHAPE)
    assert_program_is(with_activation(nn.Sequential(nn.ReLU(), signed)))


def test_an_unknown_activation_is_refused_and_an_adapter_helps(tmp_path):
    model = with_activation(Clipper(1.5))
    with pytest.raises(UnsupportedModuleError) as error:
        trace(model, SHAPE)
    assert "adapters=FILE.py" in str(error.value)
    file = tmp_path / "mine.py"
    file.write_text(
        "from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter\n"
        "@activation_adapter('Clipper', attributes=('limit',))\n"
        "def clipper(module):\n"
        "    return ActivationSpec(module.limit, 3, 0.0)\n"
    )
    load_adapter_file(file)
    check_against_module(model, assert_program_is(model), torch.rand(8, *SHAPE))


def test_a_wrong_adapter_is_noticed():
    class Wrong(Clipper):
        pass

    @activation_adapter("Wrong")
    def wrong(module):
        return ActivationSpec(module.limit, 7, 0.5)

    model = with_activation(Wrong(0.5))
    program = trace(model, SHAPE)
    with pytest.raises(ConversionError, match="does not compute what the network computes"):
        check_against_module(model, program, torch.rand(8, *SHAPE))


def test_adapter_files_that_fail(tmp_path):
    with pytest.raises(UnsupportedModuleError, match="no such file"):
        load_adapter_file(tmp_path / "none.py")
    file = tmp_path / "a.py"
    file.write_text("1 / 0")
    with pytest.raises(UnsupportedModuleError, match="ZeroDivisionError"):
        load_adapter_file(file)
    file.write_text("x = 1")
    with pytest.raises(UnsupportedModuleError, match="registers nothing"):
        load_adapter_file(file)
