"""Graphs of torch.export, as PT2E quantizes them, converted to the last count."""

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import fx, nn
from torch.nn import functional as F

import spikeport
from tests.comparing import assert_lossless
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.frontend.exported import from_export, left_out
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import UnsupportedModuleError
from toolchain.program.float_program import Activation
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SHAPE = (2, 6, 6)
QUANTIZER = InputQuantizer.for_interval(SHAPE, 0.0, 1.0)
OPS = torch.ops.quantized_decomposed
LEVELS, SCALE, OUTPUT_SCALE = 7, 0.125, 0.05


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv1, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.pool = nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)
        self.short, self.head = nn.Conv2d(4, 4, 3), nn.Linear(16, 3)
        self.norm.running_mean.uniform_(-0.1, 0.1)
        self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = torch.relu(self.conv2(x) + self.short(x))
        return self.head(torch.flatten(self.pool(x), 1))


def pair(graph, source, scale, zero_point=-2):
    """Behind `source`: quantize and dequantize, int8 of LEVELS + 1 values from zero_point on."""
    how = (scale, zero_point, -2, LEVELS - 2, torch.int8)
    if scale == OUTPUT_SCALE:
        how = (scale, 3, -128, 127, torch.int8)
    if source.op == "placeholder":
        how = (QUANTIZER.scale, -128, -128, 127, torch.int8)
    with graph.inserting_after(source):
        integers = graph.call_function(OPS.quantize_per_tensor.default, (source, *how))
    with graph.inserting_after(integers):
        real = graph.call_function(OPS.dequantize_per_tensor.default, (integers, *how))
    source.replace_all_uses_with(real, lambda user: user is not integers)
    return real


def quantized(*behind, **how):
    """The exported network with pairs behind the operations named, and with int8 weights."""
    exported = torch.export.export(Net().eval(), (torch.rand(2, *SHAPE),)).module()
    graph = exported.graph
    for node in list(graph.nodes):
        name = str(node.target)
        if node.op == "placeholder" or name.startswith(behind):
            pair(graph, node, SCALE if node.op == "placeholder" else how.get("scale", SCALE))
        elif name.startswith("aten.linear"):
            pair(graph, node, OUTPUT_SCALE)
        elif name.endswith(".weight") and "norm" not in name:
            weight = exported.get_parameter(name).detach()
            scales = weight.flatten(1).abs().amax(1) / 127
            integers = torch.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
            parts = {"integers": integers.to(torch.int8), "scales": scales}
            parts["zeros"] = torch.zeros(len(scales), dtype=torch.int64)
            with graph.inserting_before(node):
                got = []
                for part, value in parts.items():
                    exported.register_buffer(f"{node.name}_{part}", value)
                    got.append(graph.get_attr(f"{node.name}_{part}"))
                real = graph.call_function(
                    OPS.dequantize_per_channel.default, (*got, 0, -127, 127, torch.int8)
                )
            node.replace_all_uses_with(real)
    graph.lint()
    exported.recompile()
    return exported


class Watched(fx.Interpreter):
    """Runs a graph, and keeps what its quantizers made."""

    def __init__(self, module):
        super().__init__(module)
        self.integers = []

    def run_node(self, n):
        result = super().run_node(n)
        if str(n.target).endswith("quantize_per_tensor.default") and result.dtype == torch.int8:
            self.integers.append(result.numpy().astype(int) - n.args[2])
        return result


@pytest.mark.parametrize(
    "behind",
    [("aten.relu",), ("aten.relu", "aten.max_pool2d"), ("aten.relu", "aten.flatten")],
    ids=["relu", "pool too", "flatten too"],
)
def test_every_count_is_that_of_the_exported_graph(behind, limits):
    model = quantized(*behind)
    conversion = convert(
        model, QUANTIZER, ConversionOptions("cif", Schedule(LEVELS, 40)), limits, name="pt2e"
    )
    left_out = [note for note in conversion.notes if "left out" in note]
    assert len(left_out) == 2
    assert "input" in left_out[0]
    assert "output" in left_out[1]
    inputs = np.random.default_rng(2).integers(0, 256, (2, *SHAPE))
    recording = simulate(conversion.program, inputs)
    assert_lossless(conversion.program, inputs, recording)
    watched = Watched(model)
    with torch.no_grad():
        watched.run(torch.from_numpy(inputs * QUANTIZER.scale).float())
    given, first, second, *_ = watched.integers
    assert np.array_equal(given, inputs)
    names = [p.name for p in conversion.program.populations]
    for name, expected in zip((names[0], names[1]), (first, second), strict=True):
        assert np.array_equal(recording.counts[name], expected), name
        assert len(np.unique(expected)) > 3


def test_through_the_front_door(tmp_path):
    """A graph has no evaluation mode to be put into; the audit reads it too."""
    file = tmp_path / "nets.py"
    file.write_text(
        "from tests.conversion.test_exported import quantized\n"
        "def net():\n    return quantized('aten.relu')\n"
    )
    how = {"input_shape": SHAPE, "neuron": "cif", "sleep_steps": 40}
    made = spikeport.convert(f"{file}:net", **how)
    assert made.program.schedule == Schedule(LEVELS, 40)
    samples = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype(np.uint8)
    network = quantized("aten.relu")
    given = spikeport.convert(network, **how)
    for conversion in (made, given):
        assert sum("left out" in note for note in conversion.notes) == 2
    assert spikeport.audit(given, samples, network=network, lava_samples=0).passed


def test_the_graph_itself_is_left_as_it_was():
    model = quantized("aten.relu")
    before = str(model.graph)
    plain = from_export(model)
    assert plain is not model
    assert len(left_out(plain)) == 2
    assert str(model.graph) == before
    assert from_export(plain) is plain


def test_a_zero_point_in_front_of_a_relu_is_refused(limits):
    """Quantized before the ReLU, values below zero are levels too."""
    exported = quantized("aten.batch_norm", "aten.relu", scale=0.25)
    for node in exported.graph.nodes:
        if "quantize_per_tensor" in str(node.target) and node.args[1] == 0.25:
            node.args = (node.args[0], 0.25, 1, *node.args[3:])
    exported.recompile()
    with pytest.raises(UnsupportedModuleError, match="also encodes negative values"):
        convert(
            exported, QUANTIZER, ConversionOptions("cif", Schedule(LEVELS)), limits, name="signed"
        )


def test_pools_that_hang_over_the_border():
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv(x)), 3, 2, ceil_mode=True)
            x = F.max_pool2d(F.pad(x, (0, 1, 1, 0)), 2, 2)
            return self.head(F.max_pool2d(F.pad(x, (1, 0, 0, 1), value=-torch.inf), 2, 1))

    assert_same_outputs(Pools())


def test_upsampling():
    class Upsampled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up = nn.Conv2d(2, 3, 3, 2), nn.ConvTranspose2d(3, 4, 3, 2, 1, 1)
            self.head = nn.Conv2d(4, 2, 3, padding=1)

        def forward(self, x):
            x = F.interpolate(F.relu(self.conv(x)), size=(6, 6))
            return self.head(F.interpolate(F.relu(self.up(x)), scale_factor=(2, 1)))

    assert_same_outputs(Upsampled())


def assert_same_outputs(model):
    """Of the module, and of what its exported graph is read as."""
    model, samples = model.eval(), torch.randn(3, 2, 8, 8)
    exported = torch.export.export(model, (samples,)).module()
    program = trace(from_export(exported), (2, 8, 8), plain_relu=True)
    relus = [n.name for n in program.nodes if isinstance(n, Activation)]
    with torch.no_grad():
        found, expected = evaluate(program, samples, clipped=relus), model(samples)
    assert torch.allclose(found, expected.double(), atol=1e-5)


def test_an_unknown_operator_is_named(limits):
    class Odd(nn.Module):
        def forward(self, x):
            return torch.special.erf(x)

    exported = torch.export.export(Odd(), (torch.rand(2, 3),)).module()
    quantizer = InputQuantizer.for_interval((3,), 0.0, 1.0)
    with pytest.raises(UnsupportedModuleError, match="erf"):
        convert(exported, quantizer, ConversionOptions("if", Schedule(4)), limits, name="odd")


def test_a_graph_with_observers_is_refused():
    exported = torch.export.export(Net().eval(), (torch.rand(2, *SHAPE),)).module()
    exported.add_module("observer", torch.ao.quantization.MinMaxObserver())
    (relu, *_) = (n for n in exported.graph.nodes if str(n.target).startswith("aten.relu"))
    with exported.graph.inserting_after(relu):
        seen = exported.graph.call_module("observer", (relu,))
    relu.replace_all_uses_with(seen, lambda user: user is not seen)
    with pytest.raises(
        UnsupportedModuleError, match=r"(?s)^observer: .*MinMaxObserver.*convert_pt2e"
    ):
        from_export(exported)
