"""Networks with seeded random weights for benchmarks, as modules and as integer programs.

BatchNorm's statistics come from seeded noise, so that spikes are neither rare nor everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SEED = 0
LEVELS = 4


def source_network(
    model: str,
    shape: tuple[int, ...],
    width: float = 1.0,
    levels: int = 4,
    *,
    classes: int = 10,
    noise: tuple[int, int] = (20, 8),
) -> Any:
    """A QCFS network in evaluation mode; `noise` is batches and images of each."""
    import torch

    from toolchain.learning.activations import QCFS
    from toolchain.learning.models import build_model

    torch.manual_seed(SEED)
    net = build_model(model, shape, classes, lambda: QCFS(levels, 2.0), width)
    net.train()
    with torch.no_grad():
        for _ in range(noise[0]):
            net(torch.rand(noise[1], *shape))
    return net.eval()


def make_program(
    model: str,
    shape: tuple[int, ...],
    width: float = 1.0,
    *,
    weight_bits: int,
    target: str,
    neuron: str = "if",
    steps: int = 1,
    pooling: str = "auto",
) -> Any:
    """`source_network` as an integer program; CIF sleeps until noise has settled."""
    from hw_models.profile import load_profile
    from toolchain.conversion.pipeline import ConversionOptions, convert
    from toolchain.engine.settle import with_measured_sleep
    from toolchain.program.input_quantizer import InputQuantizer
    from toolchain.program.int_program import Schedule

    net = source_network(model, shape, width, steps if neuron == "cif" else LEVELS)
    quantizer = InputQuantizer.for_interval(shape, 0.0, 1.0, levels=255)
    limits = load_profile(target).as_target_limits()
    options = ConversionOptions(
        neuron, Schedule(steps), weight_bits=weight_bits, pooling=pooling, watch_ranges=True
    )
    program = convert(net, quantizer, options, limits, name=model).program
    if neuron == "cif":
        return with_measured_sleep(program, images(program, 32)).program
    return program


def images(program: Any, count: int) -> np.ndarray:
    """Seeded noise over the whole range of the input, int (N, C, H, W)."""
    span = program.input.range
    rng = np.random.default_rng(SEED)
    return rng.integers(span.low, span.high + 1, (count, *program.input.shape))
