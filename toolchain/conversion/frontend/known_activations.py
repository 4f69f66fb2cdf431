"""Activations of other projects: formulas and attribute names, read from their official code.

A module is recognised by its class name and attributes, so none of these packages is needed.
Rounding at a tie: `floor(x + 1/2)`, which a spiking neuron computes, rounds up; `torch.round`
rounds half to even. Where the original rounds half to even, a value exactly on every second tie
is one level higher here. Trained real weights do not meet ties; weights and scales that are all
powers of two may. The check of the trace accepts up to a quarter of samples that differ
(`TIES` in `float_values`) and refuses a network with more.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from toolchain.conversion.frontend.activation_spec import SIGNED_QCFS, ActivationSpec
from toolchain.conversion.frontend.user_module import outputs
from toolchain.errors import UnsupportedModuleError

ANY_CLASS = "*"
"""Class name of an adapter that matches by attributes alone."""
QUARTER = 0.25
"""Distance of probes from a level, in levels: away from the ties of every rounding."""
MOST_LEVELS = 2**16 - 1
"""Levels of a quantizer that is probed."""
FINE = 2**12
"""Values in [0, 1] on which the levels of a quantizer without a reliable bit width are counted."""


def qcfs(module: Any) -> ActivationSpec:
    """QCFS: `thresh * clip(floor(L x / thresh + 1/2), 0, L) / L`, where T = 0.

    Source: the layer `IF` of putshua/ANN_SNN_QCFS, `Models/layer.py`.
    """
    if int(module.T) != 0:
        _refuse_spiking(f"T = {module.T}", "T = 0", "set T = 0 (set_T(0)) before converting")
    return ActivationSpec(module.thresh, int(module.L), 0.5, "qcfs")


def qcfs_of_cos_and_srp(module: Any) -> ActivationSpec:
    """QCFS: `up * clip(floor(t x / up + 1/2) / t, 0, 1)`.

    Source: `modules.py`, class `QCFS`, of hzc1208/ANN2SNN_COS and hzc1208/ANN2SNN_SRP; class
    `MyFloor` of putshua/SNN_conversion_QCFS. The class of this name in hzp2022/ANN2SNN_NQ has
    a `sigma` too, and adds noise in evaluation.
    """
    if hasattr(module, "sigma"):
        raise UnsupportedModuleError(
            "the activation adds noise in evaluation, and has no switch for it",
            found=f"QCFS with sigma = {module.sigma}",
            allowed="MPLayer, which switches its noise off, or QCFS without sigma",
        )
    return ActivationSpec(module.up, int(module.t), 0.5, "qcfs")


def nq(module: Any) -> ActivationSpec:
    """NQ without its noise: `up * floor(L clip(x / up, 0, 1) + 1/2) / L`.

    Source: `modules.py`, class `MPLayer`, of hzp2022/ANN2SNN_NQ. Its noise is
    switched off wherever the module itself runs (`forwards.without_noise`).
    """
    if module.snn_mode:
        _refuse_spiking("snn_mode = True", "snn_mode = False", "set snn_mode = False")
    return ActivationSpec(module.up, int(module.L), 0.5, "nq")


def spiking_layer(module: Any) -> ActivationSpec:
    """The neurons that COS, SRP and NQ put in place of their activations after training."""
    _refuse_spiking(
        type(module).__name__,
        "the activation that was trained (QCFS, or the MPLayer of NQ)",
        "convert the trained network as it was before its activations were replaced",
    )


def casc(module: Any) -> ActivationSpec:
    """CQReLU: `floor(cq_level clip(x, 0, 1)) / cq_level`.

    Source: class `ClipQuan`, `src/clipquantization.py` of CASC's code (Li et al., 2024).
    """
    if (float(module.min), float(module.max)) != (0.0, 1.0):
        raise UnsupportedModuleError(
            "the activation clips to another interval than it was published with",
            found=f"{module.min} .. {module.max}",
            allowed="0 .. 1",
            remedy="describe it by an adapter of your own (adapters=FILE.py)",
        )
    return ActivationSpec(1.0, int(module.cq_level), 0.0, "cqrelu")


def spikingjelly(module: Any) -> ActivationSpec:
    """SpikingJelly's quantizers: `s * clip(floor(x / s + 1/2), neg_min, pos_max)`.

    Source: `spikezip_qann` in fangwei123456/spikingjelly 2.0. A quantizer with `neg_min` < 0 is
    accepted only behind a ReLU.
    """
    return _grid(module.s, 0, int(module.neg_min), int(module.pos_max))


def brevitas(module: Any) -> ActivationSpec:
    """Brevitas' QuantReLU and QuantIdentity: `s * clip(round(x / s), 0, 2^bits - 1)`.

    Any scale (power of two or real, per tensor or per channel) and bit width. Source:
    `core/quant/int_base.py` and `proxy/runtime_quant.py` of Xilinx/brevitas 0.13.
    """
    quantizer = module.act_quant
    if module.input_quant.is_quant_enabled:
        raise UnsupportedModuleError(
            "the activation quantizes its input too",
            found="input_quant",
            allowed="input_quant=None",
        )
    if not quantizer.is_quant_enabled:
        raise UnsupportedModuleError(
            "the activation's quantization is switched off",
            found="act_quant is disabled",
            remedy="give act_quant, or use nn.ReLU with relu_percentile=99.9",
        )
    bits, narrow = int(quantizer.bit_width()), bool(quantizer.is_narrow_range)
    low, high = 0, 2**bits - 1 - narrow
    if quantizer.is_signed:
        low, high = narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1
    is_relu = type_before_parametrizations(module).__name__ == "QuantReLU"
    spec = _grid(quantizer.scale(), quantizer.zero_point(), low, high, rectified=is_relu)
    return _as_computed(module, spec)


def fake_quantize(module: Any) -> ActivationSpec:
    """torch.ao's FakeQuantize: `s * (clip(round(x / s + z), quant_min, quant_max) - z)`.

    Exact behind a ReLU for any zero point z that keeps zero in range, otherwise where
    z = quant_min. Source: `torch/ao/quantization/fake_quantize.py` of pytorch/pytorch 2.13.
    """
    if int(module.observer_enabled[0]):
        raise UnsupportedModuleError(
            "the observer of the fake-quantizer is on: its scale changes with each batch",
            found="observer_enabled = 1",
            remedy="model.apply(torch.ao.quantization.disable_observer) after training",
        )
    if not int(module.fake_quant_enabled[0]):
        raise UnsupportedModuleError(
            "the fake-quantizer is switched off",
            found="fake_quant_enabled = 0",
            remedy="model.apply(torch.ao.quantization.enable_fake_quant)",
        )
    if module.is_per_channel and int(module.ch_axis) != 1:
        raise UnsupportedModuleError(
            "scales along another axis than the channels", found=f"ch_axis = {module.ch_axis}"
        )
    low, high = int(module.quant_min), int(module.quant_max)
    return _as_computed(module, _grid(module.scale, module.zero_point, low, high))


def fast_snn(module: Any) -> ActivationSpec:
    """Fast-SNN's uniform activation: `alpha * round(L clip(x / alpha, 0, 1)) / L`, L = 2^bit - 1.

    The levels are counted on values in [0, alpha]: the official code changes its quantizer's bits
    without the attribute `bit`.

    Source: class `QuantReLU`, `models/quant_layer.py` (image classification) and
    `backbone/quant_layer.py` (object detection) of yangfan-hu/Fast-SNN. Levels that are sums of
    powers of two (`power=True`) are refused.
    """
    alpha = module.act_alpha.detach().cpu().double()
    (values,) = outputs(module, alpha * torch.linspace(0, 1, FINE + 1))
    spec = ActivationSpec(alpha, len(np.unique(values.numpy())) - 1, 0.5, "qcfs")
    return _as_computed(
        module, spec, "train with uniform activations: act_quantization(..., power=False)"
    )


KNOWN = (
    ("IF", ("thresh", "L", "T"), qcfs),
    ("QCFS", ("up", "t"), qcfs_of_cos_and_srp),
    ("MyFloor", ("up", "t"), qcfs_of_cos_and_srp),
    ("MPLayer", ("up", "L", "snn_mode", "train_mode"), nq),
    ("MPLayer", ("v_threshold", "presim_len"), spiking_layer),
    ("IFNeuron", ("neuron", "t"), spiking_layer),
    ("ClipQuan", ("min", "max", "cq_level"), casc),
    (ANY_CLASS, ("s", "sym", "pos_max", "neg_min"), spikingjelly),
    ("QuantReLU", ("act_quant", "input_quant"), brevitas),
    ("QuantIdentity", ("act_quant", "input_quant"), brevitas),
    ("QuantReLU", ("act_alpha", "bit"), fast_snn),
    (
        ANY_CLASS,
        ("scale", "zero_point", "quant_min", "quant_max", "fake_quant_enabled", "observer_enabled"),
        fake_quantize,
    ),
)
"""Class name, attributes and adapter of each; the last that fits is taken."""


def _refuse_spiking(found: str, allowed: str, remedy: str) -> NoReturn:
    raise UnsupportedModuleError(
        "the layer is in its spiking form, after conversion by its own project",
        found=found,
        allowed=allowed,
        remedy=remedy,
    )


def _grid(
    scale: Any, zero_point: Any, low: int, high: int, *, rectified: bool = False
) -> ActivationSpec:
    """The values `scale * (k - zero_point)`, k = low .. high, rounded to the nearest.

    With `rectified`, no input is negative.
    """
    zeros = torch.as_tensor(zero_point).reshape(-1)
    below, levels = low - int(zeros[0]), high - int(zeros[0])
    if bool((zeros != zeros[0]).any()) or below > 0 or levels < 1:
        raise UnsupportedModuleError(
            "a zero point that no spike count has: 0 spikes must stand for 0",
            found=f"zero point {', '.join(str(z) for z in zeros.tolist())} in {low} .. {high}",
            allowed=f"one zero point for all channels, {low} .. {high - 1}",
            remedy="quantize behind a ReLU, with a range that starts at 0",
        )
    kind = "qcfs" if below == 0 or rectified else SIGNED_QCFS
    return ActivationSpec(torch.as_tensor(scale) * levels, levels, 0.5, kind)


def _as_computed(module: nn.Module, spec: ActivationSpec, remedy: str = "") -> ActivationSpec:
    """`spec`, if the module computes it for values between all of its ties.

    Some quantizers are put together at run time, so their attributes do not tell all.
    """
    if spec.levels > MOST_LEVELS:
        raise UnsupportedModuleError(
            "more levels than a network of spikes has steps",
            found=f"{spec.levels} levels",
            allowed=f"{MOST_LEVELS} levels (16 bits)",
        )
    axes = (1,) * (torch.as_tensor(spec.threshold).ndim - 2)
    lam = spec.threshold_array().reshape(1, -1, *axes)
    steps = np.add.outer(np.arange(spec.levels + 2), (-QUARTER, QUARTER)).reshape(-1, 1, *axes)
    expected = lam * np.clip(np.floor(steps + spec.shift), 0, spec.levels) / spec.levels
    found = outputs(module, torch.from_numpy(lam * steps / spec.levels))[0].numpy()
    wrong = ~np.isclose(found, expected, rtol=1e-5, atol=0)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        value = float((lam * steps / spec.levels)[first])
        raise UnsupportedModuleError(
            "the quantizer's levels are not evenly spaced, or not rounded to the nearest",
            found=f"{found[first]:.6g} for {value:.6g}, where even levels give "
            f"{expected[first]:.6g}",
            allowed=f"{spec.levels + 1} levels from 0 to {float(lam.max()):.6g}",
            remedy=remedy or "describe it by an adapter of your own (adapters=FILE.py)",
        )
    return spec
