"""Layers of other projects that quantize their weights, in NumPy and to the last count."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization as ao

from tests.other_projects import (
    IF,
    SHAPE,
    ActQuant,
    AlphaConv2d,
    QuantConv2d,
    QuantLinear,
    assert_every_count_agrees,
    brevitas_relu,
    changed,
    converted,
    fast_snn_relu,
    first_conv,
    last_fc,
)
from toolchain.conversion.frontend.adapters import find_adapter
from toolchain.errors import UnsupportedModuleError


def in_numpy(kind, weight):
    """The quantized weights, from the official formulas."""
    if kind in ("first_conv", "last_fc"):
        return np.rint(weight / weight.max() * 127) / 127 * weight.max()
    if kind == "AlphaConv2d":
        grid = np.array([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0])
        normal = np.clip((weight - weight.mean()) / weight.std(ddof=1) / 2.0, -1, 1)
        return 2.0 * grid[np.abs(normal[..., None] - grid).argmin(-1)]
    scale = np.abs(weight).max() / 7
    return np.rint(weight / scale) * scale


def qat(kind, *how):
    quantizer = ao.FakeQuantize.with_args(
        observer=ao.MinMaxObserver,
        quant_min=-7,
        quant_max=7,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    config = ao.QConfig(activation=nn.Identity, weight=quantizer)
    layer = kind(*how, qconfig=config)
    layer.weight_fake_quant(layer.weight)
    layer.apply(ao.disable_observer)
    return layer.eval()


LAYERS = {
    "QuantConv2d": lambda: QuantConv2d(2, 4, 3, padding=1),
    "QuantLinear": lambda: QuantLinear(32, 4),
    "AlphaConv2d": lambda: AlphaConv2d(2, 4, 3),
    "first_conv": lambda: first_conv(2, 4, 3, padding=1),
    "last_fc": lambda: last_fc(32, 4),
    "qat Conv2d": lambda: qat(torch.ao.nn.qat.Conv2d, 2, 4, 3),
    "qat Linear": lambda: qat(torch.ao.nn.qat.Linear, 32, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_quantized_weights_are_plain_layers_of_those_weights(name):
    torch.manual_seed(5)
    layer = LAYERS[name]()
    plain = find_adapter(layer)(layer)  # type: ignore[misc]
    if name.startswith("qat"):
        scale = float(layer.weight_fake_quant.scale)
        expected = scale * np.clip(np.rint(layer.weight.detach().numpy() / scale), -7, 7)
    else:
        expected = in_numpy(name, layer.weight.detach().double().numpy())
    assert type(plain) is (nn.Conv2d if expected.ndim == 4 else nn.Linear)
    assert np.allclose(plain.weight.detach().numpy(), expected, rtol=1e-6, atol=1e-12)
    assert torch.equal(plain.bias, layer.bias.double())
    assert np.abs(expected - layer.weight.detach().numpy()).max() > 1e-4


@pytest.mark.parametrize("quantized", ["brevitas", "Fast-SNN"])
def test_every_count_of_a_network_with_quantized_weights(quantized, limits):
    torch.manual_seed(4)
    if quantized == "brevitas":
        first, last = QuantConv2d(2, 4, 3, padding=1), QuantLinear(4, 3)
        middle, act = QuantConv2d(4, 4, 3, stride=2), lambda: brevitas_relu(0.125, 3)
    else:
        first, last = first_conv(2, 4, 3, 1, 1), last_fc(4, 3)
        middle, act = AlphaConv2d(4, 4, 3, 2), lambda: fast_snn_relu(3)
    model = nn.Sequential(first, act(), middle, act(), nn.Flatten(), last).eval()
    acts = [("0", 1, 7), ("2", 3, 7)]
    assert_every_count_agrees(model, limits, acts, 7)


def test_a_relu_in_front_of_quantized_weights_stays(limits):
    """It is left out in front of a quantized activation only."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), QuantConv2d(4, 4, 1), IF(), nn.Flatten(), nn.Linear(16, 3)
    )
    with pytest.raises(UnsupportedModuleError, match=r"^1: a plain ReLU has no threshold"):
        converted(model, limits)


def test_a_bias_with_the_scale_of_the_input_is_refused(limits):
    layer = QuantConv2d(2, 4, 3)
    layer.bias_quant = changed(nn.Identity(), requires_input_scale=True)
    with pytest.raises(UnsupportedModuleError, match=r"^0: the scale of the bias comes from"):
        converted(nn.Sequential(layer, IF(), nn.Flatten(), nn.Linear(16, 3)), limits)


@pytest.mark.parametrize("what", ["output", "input", "observer", "activation"])
def test_layers_that_do_more_are_refused(what, limits):
    layer = QuantConv2d(2, 4, 3)
    if what == "output":
        layer.output = ActQuant(0.25, 3)
    elif what == "input":
        layer = QuantConv2d(2, 4, 3, padding=1, padding_mode="circular")
    elif what == "observer":
        layer = qat(torch.ao.nn.qat.Conv2d, 2, 4, 3)
        layer.apply(ao.enable_observer)
    else:
        layer.output = nn.ReLU()
    why = "observer of the weights is on" if what == "observer" else "layer does more than"
    model = nn.Sequential(layer, IF(), nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, *SHAPE))
    with pytest.raises(UnsupportedModuleError, match=f"^0: the {why}"):
        converted(model, limits)


def test_a_real_brevitas_network(limits):
    from brevitas import nn as qnn

    torch.manual_seed(0)

    def relu(top, **how):
        return qnn.QuantReLU(bit_width=3, scaling_impl_type="const", max_val=top, **how)

    model = nn.Sequential(
        qnn.QuantConv2d(2, 4, 3, padding=1, weight_bit_width=4),
        relu(0.875, return_quant_tensor=True),
        qnn.QuantConv2d(
            4, 4, 3, stride=2, weight_bit_width=4, weight_scaling_per_output_channel=True
        ),
        relu(0.4375),
        nn.Flatten(),
        qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4),
    ).eval()
    assert_every_count_agrees(model, limits, [("0", 1, 7), ("2", 3, 7)], 7)
