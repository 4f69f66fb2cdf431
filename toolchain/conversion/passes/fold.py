"""All passes from a trained network to the folded float program."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from toolchain.conversion.float_values import check_against_module
from toolchain.conversion.frontend.exported import from_export, left_out
from toolchain.conversion.frontend.trace import trace, traced_with_obstacles
from toolchain.conversion.frontend.user_module import (
    check_readable,
    explained,
    narrow_types,
    unwrapped,
)
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.conversion.passes.border import border_notes
from toolchain.conversion.passes.concatenations import split_concatenations
from toolchain.conversion.passes.layers import layers_of
from toolchain.conversion.passes.linear_chains import merge_linear_chains
from toolchain.conversion.passes.max_pools import place_max_pools
from toolchain.conversion.passes.obstacles import obstacles
from toolchain.conversion.passes.sums import place_sums
from toolchain.conversion.quantization.percentile import with_bounds
from toolchain.errors import (
    ConversionError,
    ProgramError,
    SpikeportError,
    UnsupportedModuleError,
    together,
)
from toolchain.program.float_program import Activation, FloatProgram
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
    if isinstance(model, FloatProgram):
        folded, notes = fold_or_explain(model, pooling)
        return with_bounds(folded, levels=levels), notes
    model, samples = unwrapped(model), _samples(quantizer)
    check_readable(model)
    model = from_export(model)
    with explained(model, samples):
        found, unknown = traced_with_obstacles(model, quantizer.shape, plain_relu=plain_relu)
        if found is None:
            raise together(unknown)
        _log.debug("traced: %d operations", len(found.program.nodes))
        try:
            folded, notes = fold_or_explain(found.program, pooling)
        except (UnsupportedModuleError, ConversionError) as error:
            raise together([*unknown, *getattr(error, "obstacles", (error,))]) from None
        if unknown:
            raise together(unknown)
        _log.debug("folded: %d operations are left", len(folded.nodes))
        check_against_module(model, folded, samples, found.left_out)
        _log.debug("held against the module on %d samples", len(samples))
    notes = found.notes + notes + left_out(model)
    narrow = narrow_types(model)
    if narrow:
        notes += (
            f"parameters in {', '.join(narrow)} are taken as they are; sums, which torch rounds "
            "to that type, are exact here",
        )
    return with_bounds(folded, levels=levels), notes


@dataclass(frozen=True, eq=False)
class Examination:
    """A network that was traced and folded, without a choice of steps and thresholds.

    Attributes
    ----------
    program:
        The folded program; None if there are obstacles.
    obstacles:
        Why it cannot be converted: one error per kind of reason.
    notes:
        What a user should know.
    """

    program: FloatProgram | None
    obstacles: tuple[SpikeportError, ...]
    notes: tuple[str, ...]


def examine(model: nn.Module | FloatProgram, quantizer: InputQuantizer) -> Examination:
    """Trace and fold a network, with plain ReLUs or without, and check it against the module."""
    try:
        program, notes = folded_program(model, quantizer, pooling="auto", levels=1, plain_relu=True)
        return Examination(program, (), notes)
    except (UnsupportedModuleError, ConversionError, ProgramError) as error:
        return Examination(None, tuple(getattr(error, "obstacles", (error,))), ())


def trained_activations(
    model: nn.Module | FloatProgram, input_shape: tuple[int, ...]
) -> tuple[set[str], int | None]:
    """Kinds of a network's activations, and the levels of all trained ones; None if they differ."""
    program = (
        model if isinstance(model, FloatProgram) else trace(model, input_shape, plain_relu=True)
    )
    activations = [n for n in program.nodes if isinstance(n, Activation) and not n.is_constant]
    levels = {n.levels for n in activations if n.bound is None}
    return {n.kind for n in activations}, levels.pop() if len(levels) == 1 else None


def fold(program: FloatProgram, pooling: str = "auto") -> tuple[FloatProgram, tuple[str, ...]]:
    """Apply all exact passes to a traced program; also return notes on what they had to leave.

    The result contains weighted layers, sums, activations, max pools, and the average pools and
    sums of spikes that remain stages.

    Raises
    ------
    UnsupportedModuleError, ConversionError
        If a node cannot be folded exactly. The error names it.
    """
    normed = fold_batch_norm(program)
    split = split_concatenations(normed)
    merged, notes = merge_linear_chains(split)
    placed = place_max_pools(merged)
    summed = place_sums(placed)
    pooled, more = place_average_pools(summed, pooling)
    return pooled, border_notes(pooled) + notes + more


def fold_or_explain(
    program: FloatProgram, pooling: str = "auto"
) -> tuple[FloatProgram, tuple[str, ...]]:
    """The result of `fold`, if it groups into layers.

    Raises
    ------
    UnsupportedModuleError, ConversionError
        Everything that cannot be folded or grouped, in one error.
    """

    def attempt(program: FloatProgram) -> tuple[FloatProgram, tuple[str, ...]]:
        folded, notes = fold(program, pooling)
        layers_of(folded)
        return folded, notes

    try:
        return attempt(program)
    except (UnsupportedModuleError, ConversionError):
        raise together(obstacles(program, attempt)) from None


def _samples(quantizer: InputQuantizer) -> torch.Tensor:
    """Seeded samples over the quantizer's whole range, normalised, to check the trace."""
    rng = np.random.default_rng(CHECK_SEED)
    integers = rng.integers(
        quantizer.range.low, quantizer.range.high + 1, (CHECK_SAMPLES, *quantizer.shape)
    )
    return torch.from_numpy(integers * quantizer.scale)
