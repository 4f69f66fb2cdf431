"""Activations and their gradients against hand-computed values."""

import pytest
import torch
from torch import nn

from toolchain.learning.activations import (
    NQ,
    QCFS,
    ActivationMode,
    CQReLU,
    activation_mode,
    cqrelu,
    fused,
    qcfs,
)
from toolchain.learning.activations.nq import SLICE

Z = [-1.0, 0.2, 0.3, 0.9, 1.3, 1.8, 2.5]


def run(module, values):
    z = torch.tensor(values, requires_grad=True)
    a = module(z)
    a.sum().backward()
    return a.tolist(), z.grad.tolist()


def test_qcfs_values_and_gradients_by_hand():
    # lam 2, L 4: levels of 0.5, boundaries at 0.25, 0.75, 1.25, 1.75.
    module = QCFS(levels=4, threshold=2.0)
    a, dz = run(module, Z)
    assert a == [0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert dz == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    # d a / d lam = a / lam - z / lam inside, 0 below, 1 above:
    # 0 - 0.1 + (0.25 - 0.15) + (0.5 - 0.45) + (0.75 - 0.65) + (1 - 0.9) + 1 = 1.25
    assert float(module.threshold.grad) == pytest.approx(1.25, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_tensors_are_fused_to_the_same_values(dtype):
    """A small tensor runs eagerly, a large one of the same values compiled, in any memory order."""
    row = torch.linspace(-1, 3, 512).to(dtype)
    shape = (8, 16, 64, 64)
    for make in (lambda: QCFS(4, 2.0), lambda: CQReLU(4)):
        small, large = make(), make()
        x = row.clone().requires_grad_()
        expected = small(x)
        expected.sum().backward()
        big = row.repeat(1024).reshape(shape)
        for order in (torch.contiguous_format, torch.channels_last):
            z = big.clone(memory_format=order).requires_grad_()
            a = large(z)
            a.sum().backward()
            assert torch.equal(a.reshape(1024, 512), expected.expand(1024, 512))
            assert torch.equal(z.grad.reshape(1024, 512), x.grad.expand(1024, 512))
            assert a.is_contiguous(memory_format=order)
        if isinstance(small, QCFS):
            found = float(large.threshold.grad) / 2
            assert found == pytest.approx(1024 * float(small.threshold.grad), rel=1e-4)


def test_without_a_working_compiler_it_runs_eagerly(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no compiler works here")

    monkeypatch.setattr(torch, "compile", broken)
    fused._can_compile.cache_clear()
    try:
        x = torch.linspace(-1, 3, 1 << 19)
        assert torch.equal(QCFS(4, 2.0)(x)[::64], QCFS(4, 2.0)(x[::64].clone()))
        assert not fused._can_compile("cpu")
    finally:
        fused._can_compile.cache_clear()


def test_qcfs_rounds_up_on_the_boundary():
    assert qcfs(torch.tensor([0.25, 0.75]), torch.tensor(2.0), 4).tolist() == [0.5, 1.0]


def test_cqrelu_values_and_gradients_by_hand():
    z = torch.tensor([-0.5, 0.0, 0.24, 0.25, 0.99, 1.0, 1.5], requires_grad=True)
    a = cqrelu(z, 4)
    assert a.tolist() == [0.0, 0.0, 0.0, 0.25, 0.75, 1.0, 1.0]
    incoming = torch.tensor([3.0, -0.5, 0.5, 3.0, -4.0, 0.25, 1.0])
    a.backward(incoming)
    # hardtanh of the incoming gradient where 0 <= x <= 1
    assert z.grad.tolist() == [0.0, -0.5, 0.5, 1.0, -1.0, 0.25, 0.0]


def test_cqrelu_with_a_threshold_is_cqrelu_in_other_units():
    """Weights in front divided by the threshold, weights behind multiplied by it: same training."""
    z = torch.tensor([-0.5, 0.0, 0.96, 1.0, 3.9, 4.0, 6.0], requires_grad=True)
    a = cqrelu(z, 4, torch.tensor(4.0))
    assert a.tolist() == [0.0, 0.0, 0.0, 1.0, 3.0, 4.0, 4.0]
    # At the input in units of 4: gradients of 4 times the size, clipped to 1.
    a.backward(torch.tensor([3.0, -0.125, 0.125, 3.0, -4.0, 0.0625, 1.0]))
    assert z.grad.tolist() == [0.0, -0.125, 0.125, 0.25, -0.25, 0.0625, 0.0]


def test_nq_adds_noise_in_training_only():
    module = NQ(levels=4, threshold=2.0)
    module.sigma.fill_(0.3)
    z = torch.full((200_000,), 1.0)
    module.eval()
    assert module(z).unique().tolist() == [1.0]
    module.train()
    torch.manual_seed(0)
    noisy = module(z).detach()
    assert float(noisy.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(noisy.std()) == pytest.approx(0.3, abs=0.01)
    assert float(noisy.min()) < 0.0 or float(noisy.max()) > 2.0


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_noise_of_large_layers_is_normal_and_new_at_each_pass(order):
    """Moments of N(0, 1) within 5 standard errors; nothing repeats within or between passes."""
    module = NQ(levels=1, threshold=1.0).train()
    module.sigma.fill_(1.0)
    z = torch.full((64, 80, 32, 32), -1.0).contiguous(memory_format=order)
    assert z.numel() > SLICE
    torch.manual_seed(3)
    first, second = (-module(z).detach().double() for _ in range(2))
    error = z.numel() ** -0.5
    for noise in (first, second):
        assert abs(float(noise.mean())) < 5 * error
        assert abs(float(noise.square().mean()) - 1) < 5 * 2**0.5 * error
        assert abs(float((noise**4).mean()) - 3) < 5 * 96**0.5 * error
    pairs = [
        (first, second),
        (first[1:], first[:-1]),
        (first[:, 1:], first[:, :-1]),
        (first[..., 1:], first[..., :-1]),
    ]
    for one, other in pairs:
        assert abs(float((one * other).mean())) < 5 * one.numel() ** -0.5
    torch.manual_seed(3)
    assert torch.equal(-module(z).detach().double(), first)


def test_nq_noise_leaves_gradients_alone():
    module = NQ(levels=4, threshold=2.0).train()
    module.sigma.fill_(0.5)
    assert run(module, Z)[1] == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_spiking_mode_by_hand():
    # lam 2, v0 1, current 0.9 per step: 1.9; 2.8 -> spike, 0.8; 1.7; 2.6 -> spike, 0.6
    module = QCFS(levels=4, threshold=2.0)
    model = nn.Sequential(module)
    with activation_mode(model, ActivationMode.SPIKING, 4), torch.no_grad():
        spikes = model(torch.full((4, 1), 0.9)).ravel().tolist()
    assert spikes == [0.0, 2.0, 0.0, 2.0]
    assert module.mode is ActivationMode.QUANTIZED


def test_constant_input_over_l_steps_is_the_quantized_value():
    """T = L and constant current: IF counts are the quantized activation, for any z."""
    module = QCFS(levels=8, threshold=2.0)
    z = torch.linspace(-1.0, 3.0, 1001, dtype=torch.float64)
    module.double()
    with torch.no_grad():
        expected = module(z)
        with activation_mode(module, ActivationMode.SPIKING, 8):
            rate = module(z.repeat(8)).reshape(8, -1).mean(0)
    tie = ((z / 2 * 8 + 0.5) % 1).abs() < 1e-9
    assert torch.equal(rate[~tie], expected[~tie])


def test_clipped_mode_is_the_float_network():
    module = CQReLU(4)
    with activation_mode(module, ActivationMode.CLIPPED):
        assert module(torch.tensor([-1.0, 0.3, 2.0])).tolist() == pytest.approx([0.0, 0.3, 1.0])


def test_levels_must_be_positive():
    with pytest.raises(ValueError, match="levels must be >= 1"):
        QCFS(0)
