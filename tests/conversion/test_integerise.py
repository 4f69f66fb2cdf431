"""Threshold-exact integerisation against hand-computed integers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import ConversionError, ProgramError
from toolchain.int_range import IntRange
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.program.bounds import overload
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.neurons import IntegrateAndFire
from toolchain.simulator.reference import simulate


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def converted(model, limits, scale=0.5, bits=2, features=2, **options):
    options = {"neuron": "if", "schedule": Schedule(4), "thresholds": "largest", **options}
    quantizer = InputQuantizer((features,), scale, bits)
    return convert(model.eval(), quantizer, ConversionOptions(**options), limits, name="hand")


def test_by_hand(limits):
    model = nn.Sequential(
        linear([[0.5, -0.25], [0.1, 0.3]], [0.2, -0.05]),
        QCFS(4, 2.0),
        linear([[1.0, -0.4], [0.3, 0.2]], [0.1, 0.0]),
    )
    program = converted(model, limits).program
    hidden, readout = program.populations
    # lam_in 0.5, lam 2. Row 0: largest weight 0.25, 127 * 2 / 0.25 = 1016 -> theta 1016;
    # W = 1016 * [0.25, -0.125] / 2 = [127, -63.5] -> [127, -64] (half to even);
    # b = 1016 * 0.2 / 2 = 101.6 -> 102; v0 = 508.
    # Row 1: largest 0.15, 127 * 2 / 0.15 = 1693.3 -> 1693; W = [42.325, 126.975] -> [42, 127];
    # b = 1693 * -0.05 / 2 = -42.3 -> -42; v0 = floor(846.5) = 846.
    assert hidden.neuron.threshold.tolist() == [1016, 1693]
    assert hidden.neuron.initial_potential.tolist() == [508, 846]
    assert hidden.synapses[0].weight.tolist() == [[127, -64], [42, 127]]
    assert hidden.bias.tolist() == [102, -42]
    # Readout: lam_in 2, weights [[2, -0.8], [0.6, 0.4]], one scale 2 / 127;
    # 0.8 * 63.5 = 50.8 -> 51; 0.6 * 63.5 = 38.1 -> 38; 0.4 * 63.5 = 25.4 -> 25; 0.1 * 63.5 -> 6.
    assert readout.neuron.scale == pytest.approx(2 / 127)
    assert readout.synapses[0].weight.tolist() == [[127, -51], [38, 25]]
    assert readout.bias.tolist() == [6, 0]


def test_weight_bits_and_cqrelu(limits):
    model = nn.Sequential(linear([[1.0, -0.5]], [0.0]), CQReLU(4), linear([[1.0]], [0.0]))
    program = converted(model, limits, scale=1.0, weight_bits=4, neuron="cif").program
    hidden = program.populations[0]
    assert hidden.neuron.threshold.tolist() == [7]
    assert hidden.neuron.initial_potential.tolist() == [0]
    assert hidden.synapses[0].weight.tolist() == [[7, -4]]


def test_a_dead_channel_keeps_its_bias(limits):
    model = nn.Sequential(
        linear([[0.0, 0.0], [1.0, 1.0]], [0.5, 0.0]), QCFS(4, 2.0), linear([[1.0, 1.0]], [0.0])
    )
    hidden = converted(model, limits).program.populations[0]
    assert hidden.neuron.threshold[0] == limits.threshold_max == 4194303
    assert hidden.bias[0] == round(4194303 * 0.5 / 2)
    assert not hidden.synapses[0].weight[0].any()


def test_a_spike_worth_more_than_a_weight_can_hold(limits):
    model = nn.Sequential(linear([[300.0, 0.0]], [0.0]), QCFS(4, 1.0), linear([[1.0]], [0.0]))
    with pytest.raises(ConversionError, match=r"^0: a single spike is worth more thresholds"):
        converted(model, limits, scale=1.0)


def test_coarse_weights_are_told(limits):
    """Weights of 1e-6 thresholds: even the largest threshold leaves them a few units."""
    model = nn.Sequential(linear([[1e-6, 6e-7]], [0.0]), QCFS(4, 1.0), linear([[1.0]], [0.0]))
    conversion = converted(model, limits, scale=1.0)
    # 4194303e-6 = 4.19 -> 4 and 2.52 -> 3: the second is off by 0.48 / 4.19 = 11.5 %
    assert conversion.program.populations[0].synapses[0].weight.tolist() == [[4, 3]]
    assert conversion.notes == (
        "0: rounding moves weights by up to 11.5 % of the largest; "
        "its thresholds (4194303..4194303) stand at the target's limit",
    )


def test_channels_are_scaled_down_until_their_range_is_provable(limits):
    """Only channels that could overflow pay, and what is left is proved and told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(600, 3), QCFS(4, 4.0), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0] = model[0].weight[0].sign() * 0.02
        model[0].weight[1] = 0.0
        model[0].weight[1, :4] = 0.02
    options = {"scale": 1 / 255, "bits": 8, "features": 600}
    conversion = converted(model, limits, **options)
    free = converted(model, limits, watch_ranges=True, **options)
    theta = conversion.program.populations[0].neuron.threshold
    full = free.program.populations[0].neuron.threshold
    assert theta[0] < full[0]
    assert theta[1] == full[1]
    assert conversion.rounding[0].lowered == int((theta < full).sum())
    assert "channels were scaled down so that no input can overflow" in conversion.notes[0]
    assert not free.notes
    assert (overload(conversion.program)["0"] <= 1).all()
    assert overload(free.program)["0"][0] > 1
    # The room is used, up to the margin and the rounding of weights, not given away.
    assert overload(conversion.program)["0"][0] > 0.9
    # What is left of the weights is still the rounding of theta * W * lam_in / lam.
    weight = model[0].weight.detach().double().numpy() / 255 / 4
    expected = np.rint(theta[:, None] * weight)
    assert np.array_equal(conversion.program.populations[0].synapses[0].weight, expected)


def test_a_silent_readout(limits):
    model = nn.Sequential(linear([[1.0, 1.0]], [0.0]), QCFS(4, 1.0), linear([[0.0]], [1.0]))
    with pytest.raises(ConversionError, match=r"^2: all weights of the readout are zero"):
        converted(model, limits)


def test_options_are_checked(limits):
    model = nn.Sequential(linear([[1.0, 1.0]], [0.0]), QCFS(4, 1.0), linear([[1.0]], [0.0]))
    with pytest.raises(ConversionError, match="no such neuron"):
        converted(model, limits, neuron="lif")
    with pytest.raises(ConversionError, match="weight bits out of range"):
        converted(model, limits, weight_bits=9)
    with pytest.raises(ConversionError, match="graded spikes are narrower than the input"):
        converted(model, limits, bits=25)
    with pytest.raises(ConversionError, match="sleep steps are for CIF"):
        converted(model, limits, schedule=Schedule(4, 1))
    with pytest.raises(ProgramError, match="wake_steps >= 1"):
        Schedule(0)


def test_levels_other_than_steps_are_noted(limits):
    model = nn.Sequential(linear([[1.0, 1.0]], [0.0]), QCFS(8, 1.0), linear([[1.0]], [0.0]))
    assert converted(model, limits).notes == ("trained with 8 levels, run with T = 4: 1",)


@pytest.mark.parametrize("theta", [0, -5])
def test_integer_thresholds_must_be_positive(theta):
    with pytest.raises(ProgramError, match="a threshold must be positive"):
        IntegrateAndFire([theta], [0])


def test_types_own_their_range():
    assert (IntRange.signed(8).low, IntRange.signed(8).high) == (-128, 127)
    assert (IntRange.unsigned(4).low, IntRange.unsigned(4).high) == (0, 15)
    with pytest.raises(Exception, match=r"128 at index \(1,\)"):
        IntRange.signed(8).check("w", np.array([127, 128]))
    with pytest.raises(Exception, match="dtype float64"):
        IntRange.signed(8).check("w", np.array([1.0]))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([2, 4, 8]))
def test_exactly_representable_networks_convert_without_error(seed, levels, limits):
    """Weights that are multiples of lam / theta: one layer's counts equal the quantized ANN's.

    The input is constant, T = L, so IF counts are `L * activation / lam` exactly.
    """
    rng = np.random.default_rng(seed)
    lam = float(rng.choice([0.5, 1.0, 3.0]))
    weight = rng.integers(-127, 128, (5, 3)).astype(float)
    weight[:, 0] = 127 * np.sign(weight[:, 0] + 0.5)
    theta = rng.integers(200, 500, (5, 1))
    bias = rng.integers(-100, 100, 5)
    real_weight = weight * lam / theta
    # A theta different from the chosen one is fine as long as the ratio is kept.
    model = nn.Sequential(nn.Linear(3, 5), QCFS(levels, lam), nn.Linear(5, 2)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(real_weight))
        model[0].bias.copy_(torch.from_numpy(bias * lam / theta[:, 0]))
    program = converted(
        model, limits, scale=1.0, bits=3, features=3, schedule=Schedule(levels)
    ).program
    assert program.populations[0].neuron.threshold.tolist() == theta[:, 0].tolist()
    assert np.array_equal(program.populations[0].synapses[0].weight, weight)
    inputs = rng.integers(0, 8, (6, 3)).astype(np.int32)
    counts = simulate(program, inputs).counts["0"]
    exact = np.floor(
        ((inputs @ weight.T.astype(int) + bias) * levels * 2 + theta[:, 0]) / (2 * theta[:, 0])
    )
    assert np.array_equal(counts, np.clip(exact, 0, levels))


def test_per_channel_input_scale_reaches_every_group(limits):
    class PerChannel(nn.Module):
        def __init__(self, thresholds):
            super().__init__()
            self.thresholds = torch.tensor(thresholds, dtype=torch.float64)

        def forward(self, x):
            lam = self.thresholds.reshape(1, -1, *([1] * (x.ndim - 2)))
            return torch.floor((x / lam).clamp(0, 1) * 4 + 0.5) / 4 * lam

    @activation_adapter("PerChannel", attributes=("thresholds",))
    def per_channel(module):
        return ActivationSpec(module.thresholds, 4, 0.5)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1),
        PerChannel([0.5, 1.0, 2.0, 4.0]),
        nn.Conv2d(4, 4, 1, groups=2),
        PerChannel([1.0, 1.0, 0.5, 0.5]),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).double()
    quantizer = InputQuantizer((2, 2, 2), 1 / 255)
    program = convert(
        model, quantizer, ConversionOptions("if", Schedule(4)), limits, name="p"
    ).program
    second, readout = program.populations[1], program.populations[2]
    weight = model[2].weight.detach().numpy()[:, :, 0, 0]
    lam_in = np.array([[0.5, 1.0], [0.5, 1.0], [2.0, 4.0], [2.0, 4.0]])
    lam = np.array([1.0, 1.0, 0.5, 0.5])
    theta = second.neuron.threshold  # type: ignore[attr-defined]
    expected = np.rint(theta[:, None] * weight * lam_in / lam[:, None])
    assert np.array_equal(second.synapses[0].weight[:, :, 0, 0], expected)
    dense = model[5].weight.detach().numpy() * np.repeat([1.0, 1.0, 0.5, 0.5], 4)
    assert np.array_equal(readout.synapses[0].weight, np.rint(dense / readout.neuron.scale))  # type: ignore[attr-defined]
