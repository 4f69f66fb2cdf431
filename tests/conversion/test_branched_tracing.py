"""Branched networks as float programs: every pass leaves the function as it was, or refuses."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.branched_modules import NETWORKS, SHAPE, act, randomise, wrap
from toolchain.conversion.float_values import check_against_module, evaluate
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.fold import fold
from toolchain.conversion.passes.layers import IntegerLayer, MaxPoolLayer, SumLayer, layers_of
from toolchain.errors import ConversionError, ProgramError, UnsupportedModuleError
from toolchain.program.float_program import Add, AvgPool2d, BatchNorm, Concat, FloatProgram, Input


class Net(nn.Module):
    """A few layers by name and a forward given as a function of (layers, x)."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = forward

    def forward(self, x):
        return self.function(self.layers, x)


def conv(c_in=2, c_out=2, kernel=1, **how):
    return nn.Conv2d(c_in, c_out, kernel, **how)


def network(name):
    torch.manual_seed(0)
    return randomise(NETWORKS[name]()).double()


def folded(model, pooling="auto"):
    return fold(trace(model.eval(), SHAPE), pooling)


def assert_computes(program, model, **how):
    samples = torch.randn(6, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(evaluate(program, samples, **how), model(samples), atol=1e-9)


@pytest.mark.parametrize("pooling", ["auto", "fold", "stage"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_pass_leaves_the_function_as_it_was(name, pooling):
    model = network(name)
    traced = trace(model, SHAPE)
    assert_computes(traced, model)
    program, notes = fold(traced, pooling)
    assert notes == ()
    assert_computes(program, model)
    check_against_module(model, program, torch.randn(8, *SHAPE))
    assert not any(isinstance(n, BatchNorm | Concat) for n in program.nodes)
    pools = [n for n in program.nodes if isinstance(n, AvgPool2d)]
    assert pooling == "stage" or not pools
    layers_of(program)


def described(name, pooling="auto"):
    """(population, where its spikes come from), "=" marking an identity."""
    rows = []
    for layer in layers_of(folded(network(name), pooling)[0]):
        if isinstance(layer, MaxPoolLayer):
            rows.append((layer.name, (layer.source,)))
        else:
            sources = tuple(t.source + "=" * t.identity for t in layer.terms)
            rows.append((layer.name, sources))
    return rows


def test_residual_blocks_are_named_after_their_additions():
    assert described("resnet", "stage") == [
        ("conv1", ("input",)),
        ("layer1.0.conv1", ("conv1",)),
        ("layer1.0.add", ("layer1.0.conv1", "conv1=")),
        ("layer2.0.conv1", ("layer1.0.add",)),
        ("layer2.0.add", ("layer2.0.conv1", "layer1.0.add")),
        ("layer2.1.conv1", ("layer2.0.add",)),
        ("layer2.1.add", ("layer2.1.conv1", "layer2.0.add=")),
        ("pool", ("layer2.1.add",)),
        ("fc", ("pool",)),
    ]


def test_a_stream_of_sums_reaches_every_population():
    assert described("pre-activation") == [
        ("norms.0", ("input",)),
        ("norms.1", ("input", "norms.0")),
        ("add_1", ("input", "norms.0", "norms.1")),
        ("head", ("add_1",)),
    ]


def test_concatenations_become_one_synapse_a_source():
    assert described("dense") == [
        ("stem", ("input",)),
        ("one", ("stem",)),
        # Groups of two channels: the borders are those of the operands, so each feeds its own.
        ("two[0]", ("stem",)),
        ("two[1]", ("one",)),
        # Groups of three channels span them.
        ("spanning", ("stem", "one", "two[0]", "two[1]")),
        ("head", ("stem", "one", "two[0]", "two[1]", "spanning")),
    ]


def test_pools_keep_their_names():
    assert described("spp") == [
        ("stem", ("input",)),
        ("pool", ("stem",)),
        ("pool#2", ("pool",)),
        ("pool#3", ("pool#2",)),
        ("mix", ("stem", "pool", "pool#2", "pool#3")),
        ("last", ("mix",)),
        ("head", ("last",)),
    ]
    assert [n for n, _ in described("shared-pool", "stage")] == ["stem", "pool", "add", "add_1"]


def test_the_same_source_twice_is_two_terms():
    assert ("add_2", ("layers.0", "layers.0=", "layers.0=")) in described("vectors")


def test_activations_that_share_their_sum_are_named_by_their_own_paths():
    def forward(m, x):
        x = m["a"](x)
        return m["head"](torch.cat([m["b"](x), m["d"](x)], 1).flatten(1))

    model = Net(
        forward,
        a=conv(),
        b=act(),
        d=act(4, 2.0),
        head=nn.Linear(256, 2),
    )
    names = [layer.name for layer in layers_of(folded(model)[0])]
    assert names == ["layers.b", "layers.d", "layers.head"]


def test_a_sum_with_the_input_itself_is_normalised():
    model = Net(
        lambda m, x: m["head"](m["act"](m["norm"](m["a"](x) + x)).flatten(1)),
        a=conv(),
        norm=nn.BatchNorm2d(2),
        act=act(),
        head=nn.Linear(128, 2),
    )
    model = randomise(model).double()
    program, _ = folded(model)
    assert_computes(program, model)
    assert [t.source for t in layers_of(program)[0].terms] == ["input", "input"]


def test_the_check_of_a_trace_notices_what_is_not_a_number():
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 2)).eval()
    program = trace(model, SHAPE)
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="does not compute"):
        check_against_module(model, program, torch.rand(4, *SHAPE))


# ---- float nodes


def test_branches_of_different_shapes_name_both():
    for build in (Add, Concat):
        nodes = (
            Input("input", (), (2, 4, 4)),
            AvgPool2d("half", ("input",), (2, 2), (2, 2), (0, 0)),
            build("join", ("input", "half")),
        )
        with pytest.raises(ProgramError) as error:
            FloatProgram(nodes)
        assert error.value.node == "join"
        assert "input (2, 4, 4), half (2, 2, 2)" in str(error.value)
        assert "1x1 convolution" in str(error.value) or "same strides" in str(error.value)


def test_joins_need_two_sources():
    with pytest.raises(ProgramError, match="join: a node takes two or more sources"):
        FloatProgram((Input("input", (), (2,)), Add("join", ("input",))))


# ---- refusals in tracing

IMAGE = torch.ones(1, 2, 8, 8)
RAMP, CHANNELS = torch.arange(8.0), torch.ones(3, 1, 1)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m["a"](x) + RAMP, r"(?s)differs between the pixels of a channel"),
        (lambda m, x: m["a"](x)[:, :1] * CHANNELS, r"(?s)larger than the tensor.*becomes \(3, 8"),
        (lambda m, x: torch.add(m["a"](x), x, alpha=2), r"(?s)operation with factor.*alpha=2"),
        (lambda m, x: m["a"](x).add(x, alpha=2), r"(?s)operation with factor.*alpha=2.*weights"),
        (lambda m, x: m["a"](x) * x, r"(?s)product of two branches.*squeeze-excite"),
        (lambda m, x: m["a"](x) / x, r"(?s)product of two branches"),
        (lambda m, x: 2 / m["a"](x), r"(?s)constant divided by a tensor"),
        (lambda m, x: m["a"](x).transpose(0, 1), r"(?s)values of one sample go to another"),
        (lambda m, x: m["a"](x)[:1], r"(?s)values of one sample go to another"),
        (lambda m, x: m["a"](m["a"](x).mT), r"(?s)mT: values in another order or shape"),
        (lambda m, x: m["a"](x.flip(3)), r"(?s)flip: values in another order.*read by layers.a"),
        (lambda m, x: F.interpolate(m["a"](x), scale_factor=1.5), r"(?s)another order or shape"),
        (lambda m, x: F.interpolate(x, size=5, mode="bilinear"), "between pixels"),
        (lambda m, x: F.interpolate(x, None, 2, "bilinear"), "between pixels"),
        (lambda m, x: m["a"](x).clamp(-1, 1), r"(?s)does not begin at 0.*-1 .. 1.*ReLU6"),
        (lambda m, x: F.hardtanh(m["a"](x)), r"(?s)does not begin at 0"),
        (lambda m, x: m["a"](torch.sigmoid(m["a"](x))), r"(?s)sigmoid inside a network.*gates"),
        (lambda m, x: m["a"](x).masked_fill_(IMAGE > 0, 0.0), r"(?s)masked_fill_ has no"),
        (lambda m, x: torch.stack([x, x]), r"(?s)stack has no.*use torch.cat"),
        (lambda m, x: torch.cat([x, x], 2), r"(?s)another axis.*dim=2 of 4 axes.*dim=1"),
        (lambda m, x: torch.cat([x, x]), r"(?s)another axis.*dim=0 of 4 axes"),
        (lambda m, x: torch.cat([x, IMAGE], 1), "other than the traced tensor"),
        (lambda m, x: x.mean(), r"(?s)mean over other axes.*dim=\(2, 3\)"),
        (lambda m, x: torch.mean(x, 1), r"(?s)mean over other axes.*dim=1 of 4 axes"),
        (lambda m, x: x.amax(1), r"(?s)maximum over other axes.*dim=1 of 4 axes"),
        (lambda m, x: x.sum((1, 2, 3)), r"(?s)sum over other axes.*dim=\(2, 3\)"),
        (lambda m, x: F.adaptive_max_pool2d(x, 3), r"(?s)uneven windows.*divide"),
    ],
)
def test_operations_that_are_refused(forward, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        trace(Net(forward, a=conv()), SHAPE)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(2, return_indices=True), r"(?s)^0.1: .*return_indices=False"),
        (nn.AdaptiveMaxPool2d(3), r"(?s)^0.1: an adaptive max pool with uneven windows"),
        (nn.AdaptiveMaxPool2d(1, return_indices=True), r"(?s)^0.1: .*return_indices=False"),
        (nn.MaxPool3d(2), r"(?s)MaxPool3d has no exact.*use nn.MaxPool2d"),
    ],
)
def test_max_pools_that_are_refused(module, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        trace(wrap(module), SHAPE)


def test_broadcasting_is_refused():
    model = Net(lambda m, x: m["a"](x) + m["b"](x), a=conv(), b=conv(2, 1))
    with pytest.raises(
        ProgramError, match=r"(?s)add: only tensors of one shape.*1x1 conv"
    ) as error:
        trace(model, SHAPE)
    assert "layers.a (2, 8, 8), layers.b (1, 8, 8)" in str(error.value)


# ---- refusals in folding and grouping


def head(features=128):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 2))


REFUSED = {
    "max pool on the input": (
        nn.Sequential(nn.MaxPool2d(2), conv(), act(), head(32)),
        r"(?s)^0: a max pool directly on the input.*begin with a convolution",
    ),
    "max pool on the input, concatenated": (
        Net(
            lambda m, x: m["head"](F.max_pool2d(torch.cat([x, m["act"](m["a"](x))], 1), 2)),
            a=conv(),
            act=act(),
            head=head(64),
        ),
        r"(?s)^max_pool2d\[0\]: a max pool directly on the input",
    ),
    "max pool behind average": (
        nn.Sequential(conv(), act(), nn.AvgPool2d(2), nn.MaxPool2d(2), head(8)),
        r"(?s)^3: a max pool cannot follow an average pool.*behind 2.*use one kind",
    ),
    "max pool of a pre-activation with other users": (
        Net(
            lambda m, x: m["head"](m["act"](m["b"](F.max_pool2d(m["a"](x), 2)))),
            a=conv(),
            b=conv(),
            act=act(),
            head=head(32),
        ),
        r"(?s)^max_pool2d: a max pool of values.*layers.b \(Conv2d\) behind it.*in front of",
    ),
    "negative gain behind a max pool": (
        nn.Sequential(conv(), nn.MaxPool2d(2), nn.BatchNorm2d(2), act(), head(32)),
        r"(?s)^2: BatchNorm with a negative gain.*channel 1, behind 1.*between the layer and",
    ),
    "BatchNorm with a negative gain in front of a max pool": (
        nn.Sequential(conv(), act(), nn.BatchNorm2d(2), nn.MaxPool2d(2), head(32)),
        r"(?s)^2: this BatchNorm or constant behind spikes.*negative gain.*max pool 3 behind",
    ),
    "average pool on the input that cannot fold": (
        nn.Sequential(nn.AvgPool2d(3, 2, 1), conv(2, 2, 3, padding=1), act(), head(32)),
        r"(?s)^0: this average pool cannot be folded exactly.*drops the last of 8",
    ),
    "average of a pre-activation": (
        nn.Sequential(conv(), nn.MaxPool2d(2), nn.AvgPool2d(2), act(), head(8)),
        r"(?s)^1: a max pool of values that are no spikes.*2 \(AvgPool2d\) behind it",
    ),
    "uneven divisor": (
        nn.Sequential(
            conv(),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            act(),
            conv(2, 2, 3, padding=1),
            act(),
            head(32),
        ),
        r"(?s)^1: an average pool whose windows have.*leaves the padding.*behind a quantized",
    ),
    "convolutions without activation": (
        Net(
            lambda m, x: m["head"](m["act"](m["b"](m["a"](x)) + x)),
            a=conv(2, 2, 3, padding=1),
            b=conv(2, 2, 3, padding=1),
            act=act(),
            head=head(),
        ),
        r"(?s)^layers.b: two linear layers.*the second pads.*layers.a before it",
    ),
    "ends in a concatenation of spikes": (
        Net(lambda m, x: m["act"](m["a"](x)).flatten(1), a=conv(), act=act()),
        r"(?s)^layers.act: the network ends in an activation",
    ),
    "a pooled sum beside others in a concatenation": (
        Net(
            lambda m, x: m["head"](
                m["act"](torch.cat([F.max_pool2d(m["a"](x), 1), m["a"](x)], 1) + m["b"](x))
            ),
            a=conv(),
            b=conv(2, 4),
            act=act(),
            head=head(256),
        ),
        r"(?s)^cat: an operand of a concatenation in a sum.*max_pool2d \(MaxPool2d\).*activation",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_networks_that_are_refused(case):
    model, message = REFUSED[case]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 1.0)
            module.weight.data[1] = -1.0
    with pytest.raises(UnsupportedModuleError, match=message):
        layers_of(folded(model)[0])


def test_stages_that_are_refused():
    whole = nn.Sequential(conv(), act(), nn.AvgPool2d(8), head(2)).double()
    assert_computes(folded(whole, "stage")[0], whole)
    model = nn.Sequential(conv(), act(), nn.AdaptiveAvgPool2d(1), head(2)).eval()
    with pytest.raises(
        UnsupportedModuleError, match=r"(?s)^2: the sum over a window.*up to 256.*127.*fold it"
    ):
        fold(trace(model, (2, 16, 16)), "stage")
    with pytest.raises(ConversionError, match=r"(?s)no such pooling.*auto, fold, stage"):
        place_average_pools(trace(model, SHAPE), "sometimes")


def test_auto_stages_what_cannot_fold_and_says_why():
    """Overlapping windows in front of a padded convolution change at the border when folded."""
    model = nn.Sequential(
        conv(), act(), nn.AvgPool2d(3, 1, 1), conv(2, 2, 3, padding=1), act(), head()
    ).double()
    program, notes = folded(model, "auto")
    assert_computes(program, model)
    assert [n.name for n in program.nodes if isinstance(n, AvgPool2d)] == ["2"]
    assert notes == (
        "2: the average pool is a stage of its own, as it cannot be folded exactly: "
        "its windows overlap and the convolution pads",
    )
    with pytest.raises(UnsupportedModuleError, match="cannot be folded exactly"):
        folded(model, "fold")


def test_a_shared_pool_is_folded_for_all_users_or_for_none():
    def forward(m, x):
        x = m["stem"](x)
        return sum(m[name](x) for name in "ab")

    model = Net(
        forward,
        stem=nn.Sequential(conv(), act(), nn.AvgPool2d(3, 2)),
        a=nn.Sequential(conv(2, 2, 3), act(), nn.Flatten(), nn.Linear(2, 2)),
        b=nn.Sequential(conv(2, 2, 3, padding=1), act(), nn.Flatten(), nn.Linear(18, 2)),
    ).double()
    program, notes = folded(model)
    assert_computes(program, model)
    assert len(notes) == 1
    pool = next(n for n in program.nodes if isinstance(n, AvgPool2d))
    assert {n.name for n in program.consumers(pool.name)} == {"layers.a.0", "layers.b.0"}


def test_a_stage_behind_a_max_pool_is_fine():
    model = nn.Sequential(
        conv(), act(), nn.MaxPool2d(2), nn.AvgPool2d(2), conv(), act(), head(8)
    ).double()
    program, _ = folded(model, "stage")
    assert_computes(program, model)
    kinds = [type(layer) for layer in layers_of(program)]
    assert kinds == [IntegerLayer, MaxPoolLayer, SumLayer, IntegerLayer, IntegerLayer]
