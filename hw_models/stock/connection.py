"""Stock Conv and Dense processes for the project's synapses.

Stock convolutions take (W, H, C) arrays and flip their kernels; dense layers take sources
flattened in C, H, W order. Import only after `hw_models.lava_compat.prepare()`.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.utils.weightutils import SignMode

from hw_models.axes import lava_shape
from hw_models.cuba_layer import MAX_DELAY
from hw_models.stock.groups import merge_groups
from hw_models.stock.limits import DENSE_WEIGHT_BITS, MAX_GROUPS
from toolchain.errors import TargetError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse


@singledispatch
def connection(
    synapse: object,
    source_shape: tuple[int, ...],
    source: Any,
    message_bits: int,
    delays: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """Make a stock synapse and connect it to its source.

    Parameters
    ----------
    source_shape:
        (C, H, W) or (F,).
    source:
        Port that sends the spikes, (W, H, C) or (F,).
    message_bits:
        Message bits of the spikes; 0 for unary ones.
    delays:
        int (F_out, F_in) in steps, for a dense synapse.

    Returns
    -------
    The process, and the port that sends its currents.

    Raises
    ------
    TargetError
        If the synapse has no Lava process, or stock Lava would change its weights.
    """
    raise TargetError("no Lava process for this synapse", found=type(synapse).__name__)


@connection.register
def _(
    synapse: ConvSynapse,
    source_shape: tuple[int, ...],
    source: Any,
    message_bits: int,
    delays: np.ndarray | None = None,
) -> tuple[Any, Any]:
    if delays is not None:
        raise TargetError("stock Conv has no delays")
    if not synapse.is_even:
        raise TargetError(
            "stock Conv pads both sides alike and has no zeros between values",
            found=", ".join(f"{what} {pair}" for what, pair in synapse.extras().items()),
        )
    weight, groups = merge_groups(synapse.weight, synapse.groups, MAX_GROUPS)
    # Stock Conv ignores weight_exp, so the exponent is applied to the weights.
    flipped = weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1) << synapse.weight_exponent
    conv = Conv(
        weight=np.ascontiguousarray(flipped),
        input_shape=lava_shape(source_shape),
        stride=synapse.stride[::-1],
        padding=synapse.padding[::-1],
        dilation=synapse.dilation[::-1],
        groups=groups,
        num_message_bits=message_bits,
    )
    source.connect(conv.s_in)
    return conv, conv.a_out


@connection.register
def _(
    synapse: DenseSynapse,
    source_shape: tuple[int, ...],
    source: Any,
    message_bits: int,
    delays: np.ndarray | None = None,
) -> tuple[Any, Any]:
    settings = {
        **_held(synapse),
        "sign_mode": SignMode.MIXED,
        "num_message_bits": message_bits,
    }
    if delays is None:
        dense = Dense(**settings)
    else:
        dense = DelayDense(delays=delays.astype(int), max_delay=MAX_DELAY, **settings)
    if len(source_shape) > 1:
        source = source.transpose([2, 1, 0]).flatten()
    source.connect(dense.s_in)
    return dense, dense.a_out


def _held(synapse: DenseSynapse) -> dict[str, Any]:
    """Weights in the form that stock Dense represents exactly.

    Mixed-sign weights lose their lowest bit, so they are doubled and the sum is halved. If
    they need 9 bits, as in some files of lava-dl, Dense gets this width.
    """
    weight = synapse.weight.astype(np.int32)
    low, high = int(weight.min()), int(weight.max())
    if IntRange.signed(DENSE_WEIGHT_BITS).contains(low, high):
        return {
            "weights": weight * 2,
            "weight_exp": synapse.weight_exponent - 1,
            "num_weight_bits": DENSE_WEIGHT_BITS,
        }
    if not IntRange.signed(DENSE_WEIGHT_BITS + 1).contains(low, high):
        raise TargetError("stock Dense would clip these weights", found=f"{low} .. {high}")
    return {
        "weights": weight,
        "weight_exp": synapse.weight_exponent,
        "num_weight_bits": DENSE_WEIGHT_BITS + 1,
    }
