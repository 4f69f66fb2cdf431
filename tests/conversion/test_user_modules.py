"""Modules that are not plain: converted to what torch computes, or refused for the right reason."""

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from toolchain.conversion.float_values import node_values
from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter
from toolchain.conversion.passes.fold import folded_program
from toolchain.errors import ConversionError, UnsupportedModuleError
from toolchain.learning.activations import QCFS
from toolchain.program.input_quantizer import InputQuantizer

SHAPE = (2, 5, 6)
QUANTIZER = InputQuantizer.for_interval(SHAPE, 0.0, 1.0)


class Net(nn.Module):
    """A convolution, an activation and a dense layer, with something before and after them."""

    def __init__(self, before=None, after=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act, self.head = nn.Conv2d(2, 4, 3), QCFS(8, 1.0), nn.Linear(48, 3)
        self.before, self.after = before or (lambda x: x), after or (lambda x: x)

    def forward(self, x):
        return self.after(self.head(self.act(self.conv(self.before(x))).flatten(1)))


def folded(model, quantizer=QUANTIZER):
    return folded_program(model, quantizer, pooling="auto", levels=8, plain_relu=False)


def agrees(model, samples):
    """The folded program's outputs are those of the module, run plainly, in its own type."""
    program, notes = folded(model)
    values = node_values(program, samples)
    kind = next(model.parameters()).dtype
    with torch.no_grad():
        expected = copied(model).eval()(samples.to(kind)).double()
    assert torch.allclose(values[program.outputs[0]], expected, atol=1e-5)
    return notes


def copied(model):
    """A second module of the same values: hooks keep tensors that cannot be copied."""
    state, other = model.state_dict(), model.remake()
    other.load_state_dict(state)
    return other


def old_weight_norm(net):
    with pytest.warns(FutureWarning, match="weight_norm"):
        net.conv = nn.utils.weight_norm(net.conv)


def old_spectral_norm(net):
    net.conv = nn.utils.spectral_norm(net.conv)


def pruned(net):
    prune.l1_unstructured(net.conv, "weight", 0.5)
    prune.random_structured(net.head, "weight", 0.3, dim=0)


def new_weight_norm(net):
    parametrizations.weight_norm(net.head)


def new_spectral_norm(net):
    parametrizations.spectral_norm(net.conv)


class Positive(nn.Module):
    def forward(self, x):
        return F.softplus(x)


def positive_threshold(net):
    parametrize.register_parametrization(net.act, "threshold", Positive())


def quantized_by_a_hook(net):
    """As quantizers for training do it: from a weight of their own, or in place."""
    net.conv.register_parameter("raw", nn.Parameter(net.conv.weight.detach().clone()))

    def rewrite(module, given):
        module.weight.data = (module.raw.detach() * 16).round() / 16

    net.conv.register_forward_pre_hook(rewrite)

    def clip(module, given):
        module.weight.data.clamp_(-0.1, 0.1)

    net.conv.register_forward_pre_hook(rewrite)
    net.head.register_forward_pre_hook(clip)


@pytest.mark.parametrize(
    "change",
    [
        quantized_by_a_hook,
        old_weight_norm,
        old_spectral_norm,
        pruned,
        new_weight_norm,
        new_spectral_norm,
        positive_threshold,
    ],
)
def test_weights_that_are_computed(change):
    def made():
        net = Net()
        change(net)
        net.remake = made
        return net

    net = made()
    net.train()(torch.rand(4, *SHAPE))  # spectral norms estimate their vectors
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.25)  # what hooks left behind is stale now
    assert net.training
    agrees(net, torch.rand(16, *SHAPE))
    assert net.training


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_taken_as_they_are(kind):
    net = Net().to(kind)
    program, notes = folded(net)
    assert torch.equal(
        torch.from_numpy(program.node("conv").weight.copy()), net.conv.weight.double()
    )
    assert program.node("act").threshold == float(net.act.threshold.detach())
    name = str(kind).removeprefix("torch.")
    assert [n for n in notes if name in n] == (list(notes) if kind != torch.float64 else [])
    assert bool(notes) == (kind != torch.float64)


def test_constants_that_are_no_buffers():
    kernel = torch.rand(3, 3)
    net = Net(after=lambda x: F.linear(x, kernel))
    net.kernel = kernel
    net.after = lambda x: F.linear(net.act(x), net.kernel)
    net.remake = lambda: net
    agrees(net, torch.rand(4, *SHAPE))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_that_compute_the_same(wrap):
    program, _ = folded(wrap(Net()))
    assert [n.name for n in program.nodes] == [n.name for n in folded(Net())[0].nodes]


def test_each_module_stays_in_its_mode_and_the_network_untouched():
    net = Net().train()
    net.act.eval()
    before = copy.deepcopy(net.state_dict())
    folded(net)
    assert [m.training for m in (net, net.conv, net.act)] == [True, True, False]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_module_named_as_the_input():
    net = nn.Sequential()
    net.add_module("input", nn.Conv2d(2, 4, 3))
    net.add_module("act", QCFS(4, 1.0))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(48, 3))
    program, _ = folded(net)
    assert program.input.name == "input"
    assert [n.name for n in program.nodes][1] == "input#2"


class InPlace(nn.Module):
    """`y` is read again behind an operation that wrote into it."""

    def __init__(self, write):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.c = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.act, self.act2 = QCFS(8, 1.0), QCFS(8, 1.0)
        self.drop, self.same = nn.Dropout(0.5, inplace=True), nn.Identity()
        self.head, self.write = nn.Linear(60, 3), write

    def forward(self, x):
        y = self.a(x)
        early = self.b(self.act(y))
        z = self.write(self, y, x)
        return self.head(self.act2(early + self.c(self.act(z)) + y).flatten(1))


@pytest.mark.parametrize(
    "write",
    [
        lambda m, y, x: operator.iadd(y, m.c(x)),
        lambda m, y, x: y.add_(m.c(x)),
        lambda m, y, x: m.same(y).add_(m.c(x)),
        lambda m, y, x: m.drop(y).add_(m.c(x)).add_(m.b(x)),
        lambda m, y, x: F.dropout(y, 0.5, m.training).add_(m.c(x)),
        lambda m, y, x: y + m.c(x),
    ],
)
def test_what_follows_an_in_place_operation_sees_it(write):
    net = InPlace(write)
    net.remake = lambda: net
    agrees(net, torch.rand(8, *SHAPE))


@pytest.mark.parametrize("inplace", [False, True])
def test_an_in_place_relu_is_seen_by_the_shortcut(inplace):
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
            self.relu, self.head = nn.ReLU(inplace=inplace), nn.Linear(60, 3)

        def forward(self, x):
            y = self.a(x)
            return self.head(self.relu(self.b(self.relu(y)) + y).flatten(1))

    from toolchain.conversion.frontend.trace import trace

    net = Shortcut().eval()
    program = trace(net, SHAPE, plain_relu=True)
    samples = torch.rand(8, *SHAPE)
    relus = [n.name for n in program.nodes if n.name.startswith("relu")]
    found = node_values(program, samples, clipped=relus)[program.outputs[0]]
    with torch.no_grad():
        assert torch.allclose(found, net(samples).double(), atol=1e-5)


def test_a_view_of_what_was_written_is_refused():
    def write(m, y, x):
        flat = y.flatten(1)
        y.add_(m.c(x))
        return y + m.head(flat).sum()

    with pytest.raises(UnsupportedModuleError, match=r"(?s)memory of a tensor.*inplace=False"):
        folded(InPlace(write))


class Fails(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.layer, self.act = nn.Linear(3, 3), QCFS(4, 1.0)
        self.work = forward

    def forward(self, x):
        return self.work(self, x)


def raises(m, x):
    raise KeyError("missing")


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (raises, r"(?s)forward fails.*KeyError: 'missing' \(.*test_user_modules.py:\d+\)"),
        (lambda m, x: m.layer(x) + torch.zeros(3, device="cuda"), r"(?s)fails.*\.cuda\(\)"),
        (lambda m, x: m.layer(x) + torch.rand(3), r"(?s)random in evaluation.*differ"),
        (lambda m, x: F.dropout(m.layer(x)), r"(?s)random in evaluation.*training=True"),
        (lambda m, x: m.layer(x) if x.sum() > 0 else x, r"(?s)cannot be traced.*control flow"),
        (lambda m, x: m.layer(F.log_softmax(m.layer(x), 1)), r"(?s)log_softmax inside a network"),
        (lambda m, x: m.layer(x) * m.layer(x)[0, 0].item(), r"(?s)item gives a value that depends"),
        (lambda m, x: m.layer(x) * len(m.layer(x).tolist()), r"(?s)tolist gives a value"),
        (lambda m, x: m.layer(x).half(), r"(?s)Tensor.half.*casts that round"),
    ],
)
def test_why_a_forward_is_refused(forward, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        folded(Fails(forward), InputQuantizer.for_interval((3,), 0.0, 1.0))


def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (scripted, r"(?s)TorchScript.*nn.Module that was scripted"),
        (lambda: nn.Sequential(nn.Linear(3, 3, device="meta")), r"(?s)0.weight: .*meta.*weights="),
        (lambda: nn.Sequential(nn.LazyLinear(3)), r"(?s)0.weight: .*lazy.*run the network once"),
        (lambda: nn.Sequential(nn.Linear(3, 3, dtype=torch.complex64)), "plain tensors of real"),
        (lambda: nn.Sequential(nn.LSTM(3, 3)), r"(?s)LSTM has no.*recurrent"),
    ],
)
def test_modules_that_hold_nothing_to_convert(made, message):
    with pytest.raises(UnsupportedModuleError, match=message):
        folded(made(), InputQuantizer.for_interval((3,), 0.0, 1.0))


def test_hooks_that_change_the_output_are_named():
    net = Net()
    net.conv.register_forward_hook(lambda module, given, made: made * 2)
    with pytest.raises(ConversionError, match=r"(?s)does not compute.*hooks.*conv"):
        folded(net)


class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return torch.clamp(torch.floor(x / self.step + 0.5), 0, 7) * self.step


def test_a_quantizer_of_the_user_is_told_of_adapters():
    net = Net()
    net.act = Quantizer()
    with pytest.raises(
        UnsupportedModuleError, match=r"(?s)act \(.*Quantizer\).*adapters=FILE.py.*'Quantizer'"
    ):
        folded(net)


def test_adapters_that_fail():
    class Odd(nn.Module):
        def forward(self, x):
            return x

    activation_adapter("Odd")(lambda module: module.nothing)  # type: ignore[return-value]
    net = Net()
    net.act = Odd()
    with pytest.raises(UnsupportedModuleError, match=r"(?s)^act: the adapter fails.*nothing"):
        folded(net)
    activation_adapter("Odd")(lambda module: None)  # type: ignore[return-value]
    with pytest.raises(UnsupportedModuleError, match=r"(?s)^act: .*must return an ActivationSpec"):
        folded(net)
    activation_adapter("Odd")(lambda module: ActivationSpec(1.0, 1, 0.5))
    with pytest.raises(ConversionError, match="does not compute"):
        folded(net)
