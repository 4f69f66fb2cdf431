"""Notes on what the rounding of a conversion costs, layer by layer."""

from __future__ import annotations

import numpy as np

from toolchain.conversion.quantization.integer_choice import NEAREST
from toolchain.conversion.quantization.integerise import LayerRounding
from toolchain.int_range import TargetLimits

NOTED_ERROR = 2.5
"""Weight error in half units above which a layer is noted; rounding alone costs one."""


def losses(
    rounding: list[LayerRounding], weight_bits: int, how: str | None, limits: TargetLimits
) -> tuple[str, ...]:
    """Notes on layers that are scaled down, coarse or clipped.

    Coarse means an error far above half a unit; compensating rounding moves weights further
    than that on purpose.
    """
    told = NOTED_ERROR / (1 << weight_bits) if how == NEAREST else np.inf
    return (
        *(
            f"{r.name}: rounding moves weights by up to {100 * r.weight_error:.1f} % of the "
            f"largest; {_reason(r, limits)}"
            for r in rounding
            if (r.lowered and (r.weight_error or r.bias_error))
            or (r.weight_error > told and not r.clipped)
        ),
        *(
            f"{r.name}: the branch from {b.source} adds less than 1/256 of a threshold a step "
            f"and is rounded by up to {100 * b.weight_error:.0f} % of its largest weight"
            for r in rounding
            for b in r.branches
            if b.negligible and b.weight_error > told
        ),
        *(
            f"{r.name}: the identity from {b.source} became 0 in {b.vanished} channels, where a "
            f"spike of it is worth at most {b.vanished_worth:.1g} thresholds"
            for r in rounding
            for b in r.branches
            if b.vanished
        ),
        *(
            f"{r.name}: {r.clipped} of {r.weights} weights "
            + (
                "were clipped to their range"
                if how == NEAREST
                else "stand at the end of their range, beyond which compensation asked for them"
            )
            for r in rounding
            if r.clipped
        ),
        *(f"{r.name}: {note}" for r in rounding for note in r.notes),
    )


def _reason(rounding: LayerRounding, limits: TargetLimits) -> str:
    if rounding.lowered:
        return (
            f"{rounding.lowered} channels were scaled down so that no input can overflow the "
            "state (watch_ranges=True keeps full precision and has the run watch it)"
        )
    low, high = rounding.threshold_low, rounding.threshold_high
    if high < limits.threshold_max:
        return "so few weight bits leave no finer unit"
    return f"its thresholds ({low}..{high}) stand at the target's limit"
