"""What people write in a forward: sizes, views, slices, constants, functions at the end.

The oracle is the module itself, run by torch in float64.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.forwards import SHAPE, Net, act, assert_converts, body
from toolchain.conversion.frontend.trace import trace
from toolchain.errors import ObstaclesError, UnsupportedModuleError
from toolchain.program.float_program import Activation

MEAN, MEAN6 = torch.rand(1, 4, 1, 1), torch.rand(6, 1, 1)


def features(x):
    count = 1
    for size in x.size()[1:]:
        count *= size
    return count


def unpacked(m, x):
    b, c, h, w = x.shape
    return m.fc(x.view(b, c * h * w))


def asserted(m, x):
    assert (x.ndim, x.dim(), x.shape[1], x.numel()) == (4, 4, 6, len(x) * 288)
    assert isinstance(x, torch.Tensor)
    assert x.is_floating_point()
    return m.fc(x.flatten(1) if x.shape[-1] > 2 else x)


@pytest.mark.parametrize(
    "behind",
    [
        unpacked,
        asserted,
        lambda m, x: m.fc(x.view(-1, features(x))),
        lambda m, x: m.fc(x.reshape(len(x), -1)),
        lambda m, x: m.fc(torch.flatten(x.flatten(2), 1)),
        lambda m, x: m.fc(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1)),
        lambda m, x: m.fc(x.unsqueeze(1).squeeze(1).contiguous().flatten(1)),
        lambda m, x: m.fc(torch.cat([p.flatten(1) for p in x.split((2, 4), 1)], 1)),
        lambda m, x: m.fc(torch.cat(x.chunk(3, 1)[::-1], 1).flatten(1)),
        lambda m, x: m.fc(x.transpose(2, 3).flatten(1).flip(1)),
        lambda m, x: F.linear(x.flatten(1)[:, 10:20], m.fc.weight[:, :10]),
        lambda m, x: m.fc(x.flatten(1))[:, :3],
        lambda m, x: m.fc(F.pad(x[:, :, 1:, 2:], (0, 2, 1, 0)).flatten(1)),
    ],
)
def test_sizes_and_views(behind):
    model = Net(lambda m, x: behind(m, m.act(m.conv(x))), **body())
    assert_converts(model)


@pytest.mark.parametrize(
    "pooled",
    [
        lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
        lambda x: F.adaptive_avg_pool2d(x, 1)[:, :, 0, 0],
        lambda x: x.flatten(2).mean(2),
        lambda x: x.flatten(2).mean(-1, keepdim=True).squeeze(2),
        lambda x: x.mean(-1).mean(-1),
        lambda x: x.mean(dim=2).mean(2),
        lambda x: x.mean((3, 2)),
        lambda x: torch.mean(x.permute(0, 2, 3, 1), [1, 2]),
        lambda x: x.view(x.size(0), x.size(1), -1).mean(2),
        lambda x: x.sum((2, 3)),
        lambda x: torch.sum(x, -1).sum(-1, keepdim=True)[:, :, 0] - x.mean((2, 3)),
        lambda x: x.amax((2, 3)),
        lambda x: torch.amax(x.flatten(2), 2) + x.amax(-1).amax(-1),
    ],
)
def test_means_sums_and_maxima_over_the_image(pooled):
    layers = body() | {"fc": nn.Linear(6, 5)}
    assert_converts(Net(lambda m, x: m.fc(pooled(m.act(m.conv(x)))), **layers))


@pytest.mark.parametrize(
    "cast",
    [
        lambda m, x: x.float(),
        lambda m, x: x.double() * torch.ones(4, 1, 1).float().to(x),
        lambda m, x: x.to(m.conv.weight),
        lambda m, x: x.to(m.conv.weight.device, dtype=torch.float32),
        lambda m, x: x.to("cuda", non_blocking=True).cpu(),
        lambda m, x: x.type(torch.float32).type_as(m.conv.bias).cuda(),
    ],
)
def test_casts_and_moves_change_nothing(cast):
    """In real arithmetic; the oracle is the network without them."""
    layers = body()
    model = Net(lambda m, x: m.fc(m.act(m.conv(cast(m, x))).flatten(1)), **layers)
    plain = Net(lambda m, x: m.fc(m.act(m.conv(x)).flatten(1)), **layers)
    assert_converts(model, oracle=plain)


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16, torch.int32, "torch.HalfTensor"])
def test_casts_that_round_are_refused(kind):
    model = Net(lambda m, x: m.fc(m.act(m.conv(x)).type(kind).flatten(1)), **body())
    with pytest.raises(UnsupportedModuleError, match=r"(?s)cast that rounds.*model.half\(\)"):
        trace(model, SHAPE)


@pytest.mark.parametrize(
    "given",
    [
        lambda m, x: m.fc(m.act(m.conv(x) * 2 - 0.5).flatten(1) * 0.25),
        lambda m, x: m.fc(m.act(m.plain((x - MEAN) / 0.3)).flatten(1)),
        lambda m, x: m.fc(m.act(-m.conv(x / 255)).flatten(1)),
        lambda m, x: 2 * m.act(m.conv(x)).mean((2, 3)) - 1,
        lambda m, x: m.fc(m.act(m.conv(x).mul_(MEAN6).add_(1)).flatten(1)),
        lambda m, x: m.fc(m.act(1 - m.conv(x)).flatten(1)),
        lambda m, x: m.fc(m.act(m.conv(x) - m.other(x) / 2).flatten(1)),
        lambda m, x: m.fc(m.act(sum([m.conv(x), torch.sub(3.0, m.other(x))])).flatten(1)),
        lambda m, x: m.fc(m.act(m.conv(x) + m.scale * m.act(m.other(x))).flatten(1)),
    ],
)
def test_constant_factors_and_offsets(given):
    layers = body() | {"other": nn.Conv2d(4, 6, 1), "plain": nn.Conv2d(4, 6, 1)}
    model = Net(given, **layers)
    model.register_buffer("scale", torch.tensor(0.7))
    assert_converts(model)


@pytest.mark.parametrize(
    "clip",
    [
        nn.ReLU6(),
        nn.Hardtanh(0.0, 2.0),
        F.relu6,
        lambda x: x.clamp(0, 1.5),
        lambda x: torch.clamp(x, min=0.0, max=0.4),
        lambda x: F.hardtanh(x, min_val=0.0, max_val=0.8, inplace=True),
    ],
)
def test_bounded_relus_need_no_calibration(clip):
    model = Net(lambda m, x: m.fc(clip(m.conv(x) * 9).flatten(1)), **body())
    program, _ = assert_converts(model)
    (found,) = [n for n in program.nodes if getattr(n, "bound", None) is not None]
    assert found.kind == f"relu{found.bound:g}"


@pytest.mark.parametrize(
    "relu",
    [
        F.relu,
        torch.relu,
        nn.ReLU(),
        nn.Threshold(0, 0),
        lambda x: x.clamp(min=0),
        lambda x: x.relu_(),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: torch.maximum(x, torch.zeros(())),
        lambda x: torch.zeros(1).maximum(x),
    ],
)
def test_relus_by_every_name(relu):
    model = Net(lambda m, x: m.fc(relu(m.conv(x)).flatten(1)), **body())
    assert_converts(model, plain_relu=True)
    with pytest.raises(UnsupportedModuleError, match="no threshold"):
        trace(model, SHAPE)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x,
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 2).flatten(1),
        lambda x: x.permute(0, 2, 3, 1).flatten(1),
    ],
)
def test_a_relu_of_what_is_never_negative_is_left_out(pool):
    layers = {"conv": nn.Conv2d(4, 6, 3, padding=1), "fc": nn.LazyLinear(5)}
    model = Net(lambda m, x: m.fc(F.relu(pool(F.relu(m.conv(x)))).flatten(1)), **layers)
    model(torch.zeros(1, *SHAPE))
    program, _ = assert_converts(model, plain_relu=True)
    assert sum(isinstance(n, Activation) for n in program.nodes) == 1


@pytest.mark.parametrize(
    "arranged",
    [
        lambda x: x.flatten(1),
        lambda x: F.adaptive_avg_pool2d(x, (3, 4)).flatten(1),
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: F.channel_shuffle(x, 2),
        lambda x: x[:, [5, 0, 1]],
    ],
)
def test_activations_of_values_in_another_order(arranged):
    layers = {"conv": nn.Conv2d(4, 6, 3, padding=1), "fc": nn.LazyLinear(5), "act": act()}
    model = Net(lambda m, x: m.fc(m.act(arranged(m.conv(x))).flatten(1)), **layers)
    model(torch.zeros(1, *SHAPE))
    assert_converts(model)


@pytest.mark.parametrize(
    "product",
    [
        lambda m, x: x @ m.fc.weight.t() + m.fc.bias,
        lambda m, x: torch.mm(x, m.fc.weight.t()),
        lambda m, x: torch.matmul(x, other=m.fc.weight.T) - 1,
        lambda m, x: torch.addmm(m.fc.bias, x, m.fc.weight.t()),
    ],
)
def test_matrix_products(product):
    assert_converts(Net(lambda m, x: product(m, m.act(m.conv(x)).flatten(1)), **body()))


@pytest.mark.parametrize(
    "product",
    [
        lambda m, x: x @ x.flatten(1).t(),
        lambda m, x: m.fc.weight @ x.flatten(1).t(),
        lambda m, x: torch.addmm(m.fc.bias, x.flatten(1), m.fc.weight.t(), beta=2),
    ],
)
def test_products_of_other_things_are_refused(product):
    model = Net(lambda m, x: product(m, m.act(m.conv(x)).flatten(1)), **body())
    with pytest.raises(UnsupportedModuleError, match=r"matrix product|one sample go to another"):
        trace(model, SHAPE)


def test_instance_norm_is_batch_norm_if_it_has_statistics():
    layers = body() | {"norm": nn.InstanceNorm2d(6, affine=True, track_running_stats=True)}
    assert_converts(Net(lambda m, x: m.fc(m.act(m.norm(m.conv(x))).flatten(1)), **layers))
    layers["norm"] = nn.InstanceNorm2d(6)
    with pytest.raises(UnsupportedModuleError, match="without running statistics"):
        trace(Net(lambda m, x: m.fc(m.act(m.norm(m.conv(x))).flatten(1)), **layers), SHAPE)


@pytest.mark.parametrize(
    "last",
    [
        nn.Softmax(1),
        nn.LogSoftmax(-1),
        nn.Sigmoid(),
        nn.ReLU(),
        lambda x: F.log_softmax(x, dim=1),
        lambda x: x.softmax(1),
        torch.sigmoid,
    ],
)
def test_the_last_function_is_left_out(last):
    model = Net(lambda m, x: last(m.fc(m.act(m.conv(x)).flatten(1))), **body())
    _, notes = assert_converts(model)
    assert any("last function of the network is left out" in note for note in notes)


# ---- what is computed from parameters only


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class QuantConv(nn.Conv2d):
    """A convolution that quantizes its weights in its forward, as research code does."""

    def forward(self, x):
        scale = self.weight.abs().amax((1, 2, 3), keepdim=True) / 7
        weight = Rounded.apply(self.weight / scale) * scale
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def test_quantized_and_standardised_weights_are_evaluated():
    assert_converts(nn.Sequential(QuantConv(4, 6, 3), act(), nn.Flatten(), nn.Linear(144, 2)))


def test_an_unknown_function_is_named_by_its_class():
    model = Net(lambda m, x: m.fc(Rounded.apply(m.conv(x)).flatten(1)), **body())
    with pytest.raises(UnsupportedModuleError, match=r"^rounded: .*forwards\.Rounded has"):
        trace(model, SHAPE)


def test_arguments_with_defaults():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 3)

        def forward(self, x, mask=None, *, flat=True):
            if mask is not None:
                x = x * mask
            return self.fc(x.flatten(1)) if flat else x

    assert_converts(Optional())


# ---- errors, all at once


def test_all_obstacles_come_at_once():
    def forward(m, x):
        x = F.gelu(m.conv(x))
        x = m.act(m.conv2(F.silu(x)))
        gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
        return m.fc((F.silu(x) * gate).flatten(1))

    model = Net(forward, conv2=nn.Conv2d(6, 6, 1), **body())
    with pytest.raises(ObstaclesError) as error:
        trace(model, SHAPE)
    found = [obstacle.node for obstacle in error.value.obstacles]
    assert found == ["gelu", "silu, silu_1", "sigmoid", "mul"]
    assert error.value.node == "gelu"
    assert len(error.value.as_dict()["obstacles"]) == 4
    assert str(error.value).startswith("4 kinds of obstacles\n1. gelu: ")


def test_what_fails_is_told_with_what_was_seen_before():
    def forward(m, x):
        x = m.conv(F.gelu(x))
        return m.fc(x) if x.sum() > 0 else m.fc(-x)

    with pytest.raises(ObstaclesError, match=r"(?s)cannot be traced.*gelu"):
        trace(Net(forward, **body()), SHAPE)


def test_unused_results_are_no_obstacle():
    def forward(m, x):
        F.gelu(x)
        return m.fc(m.act(m.conv(x)).flatten(1))

    assert_converts(Net(forward, **body()))


@pytest.mark.parametrize("part", [lambda x: x[:, :3], lambda x: x.view(-1), lambda x: x.mT])
def test_writing_into_a_view_changes_what_is_read_later(part):
    def forward(m, x):
        x = m.conv(x)
        part(x).add_(1.0)
        return m.fc(x.flatten(1))

    with pytest.raises(UnsupportedModuleError, match=r"(?s)memory of a tensor.*in-place"):
        trace(Net(forward, **body()), SHAPE)


def test_the_module_is_as_it_was():
    model = Net(lambda m, x: m.fc(m.act(m.conv(x)).flatten(1)), **body())
    model.half().train()
    before = {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()}
    attributes = set(vars(model))
    trace(model, SHAPE)
    assert {k: (v.dtype, v.data_ptr()) for k, v in model.state_dict().items()} == before
    assert set(vars(model)) == attributes
    assert model.training
    assert torch.autograd.Function.__dict__["apply"].__func__.__module__.startswith("torch.")
