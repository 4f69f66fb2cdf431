"""All passes from a trained network to the folded float program."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import nn

from toolchain.conversion.float_values import check_against_module
from toolchain.conversion.frontend.exported import from_export, left_out
from toolchain.conversion.frontend.trace import trace, traced
from toolchain.conversion.frontend.user_module import (
    check_readable,
    explained,
    narrow_types,
    unwrapped,
)
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.conversion.passes.concatenations import split_concatenations
from toolchain.conversion.passes.graph_editor import GraphEditor
from toolchain.conversion.passes.linear_chains import merge_linear_chains
from toolchain.conversion.passes.max_pools import place_max_pools
from toolchain.conversion.passes.sums import place_sums
from toolchain.conversion.quantization.percentile import with_bounds
from toolchain.program.float_program import Activation, Flatten, FloatProgram
from toolchain.program.input_quantizer import InputQuantizer

_log = logging.getLogger(__name__)
CHECK_SAMPLES = 8
CHECK_SEED = 0


def folded_program(
    model: nn.Module | FloatProgram,
    quantizer: InputQuantizer,
    *,
    pooling: str,
    levels: int,
    plain_relu: bool,
) -> tuple[FloatProgram, tuple[str, ...]]:
    """The network after all float passes, checked against the module, and notes.

    Parameters
    ----------
    pooling:
        Placement of average pools, see `average_pools`.
    levels, plain_relu:
        Plain ReLUs become activations of `levels` levels, whose threshold is chosen later, or are
        an error.

    Raises
    ------
    SpikeportError
        If a module or node cannot be converted exactly. The error names it.
    """

    def passes(program: FloatProgram) -> tuple[FloatProgram, tuple[str, ...]]:
        folded, notes = fold(program, pooling)
        return with_bounds(folded, levels=levels), notes

    if isinstance(model, FloatProgram):
        return passes(model)
    model, samples = unwrapped(model), _samples(quantizer)
    check_readable(model)
    model = from_export(model)
    with explained(model, samples):
        found = traced(model, quantizer.shape, plain_relu=plain_relu)
        _log.debug("traced: %d operations", len(found.program.nodes))
        folded, notes = passes(found.program)
        _log.debug("folded: %d operations are left", len(folded.nodes))
        check_against_module(model, folded, samples, found.left_out)
        notes = found.notes + notes
        _log.debug("held against the module on %d samples", len(samples))
    notes += left_out(model)
    narrow = narrow_types(model)
    if narrow:
        notes += (
            f"parameters in {', '.join(narrow)} are taken as they are; sums, which torch rounds "
            "to that type, are exact here",
        )
    return folded, notes


def trained_levels(model: nn.Module | FloatProgram, input_shape: tuple[int, ...]) -> int | None:
    """Quantization levels of all trained activations of a network; None if they differ."""
    program = (
        model if isinstance(model, FloatProgram) else trace(model, input_shape, plain_relu=True)
    )
    levels = {n.levels for n in program.nodes if isinstance(n, Activation) and n.bound is None}
    return levels.pop() if len(levels) == 1 else None


def fold(program: FloatProgram, pooling: str = "auto") -> tuple[FloatProgram, tuple[str, ...]]:
    """Apply all exact passes to a traced program; also return notes on what they had to leave.

    The result contains weighted layers, sums, activations, max pools, and the average pools and
    sums of spikes that remain stages.

    Raises
    ------
    UnsupportedModuleError, ConversionError
        If a node cannot be folded exactly. The error names it.
    """
    normed = fold_batch_norm(_flat_outputs_as_images(program))
    split = split_concatenations(normed)
    merged, notes = merge_linear_chains(split)
    placed = place_max_pools(merged)
    summed = place_sums(placed)
    pooled, more = place_average_pools(summed, pooling)
    return pooled, notes + more


def _flat_outputs_as_images(program: FloatProgram) -> FloatProgram:
    """Let a network that flattens an image last return the image; the values are the same."""
    draft = GraphEditor(program)
    for index, name in enumerate(draft.outputs):
        last = draft.node(name)
        if isinstance(last, Flatten) and last.source not in draft.outputs:
            draft.outputs[index] = last.source
    return draft.program()


def _samples(quantizer: InputQuantizer) -> torch.Tensor:
    """Seeded samples over the quantizer's whole range, normalised, to check the trace."""
    rng = np.random.default_rng(CHECK_SEED)
    integers = rng.integers(
        quantizer.range.low, quantizer.range.high + 1, (CHECK_SAMPLES, *quantizer.shape)
    )
    return torch.from_numpy(integers * quantizer.scale)
