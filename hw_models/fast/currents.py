"""The currents of a single synapse, step by step, for a batch of samples."""

from __future__ import annotations

import numpy as np

from hw_models.axes import lava_shape
from hw_models.fast import kernels
from hw_models.fast.events import SUM_LIMIT, make_events
from hw_models.stock.limits import CONV_SUM_BITS
from toolchain.errors import ValueRangeError
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse

CURRENT = IntRange.signed(CONV_SUM_BITS)


class Currents:
    """Takes the spikes of a step and returns their currents in the next step, or later by delays.

    Parameters
    ----------
    synapse:
        The synapse; dense weights are for a source flattened in C, H, W order.
    source_shape:
        (C, H, W) or (F,).
    delays:
        int (F_out, F_in) in steps, for a dense synapse; None for no delays.
    message_bits:
        Message bits of the spikes; 0 for unary ones.
    batch:
        Number of samples B at a time.
    """

    def __init__(
        self,
        synapse: ConvSynapse | DenseSynapse,
        source_shape: tuple[int, ...],
        delays: np.ndarray | None,
        message_bits: int,
        batch: int,
    ) -> None:
        self._in_shape = (batch, *lava_shape(source_shape))
        out_shape = (batch, *lava_shape(synapse.output_shape(source_shape)))
        self._spikes = IntRange(0, 1) if message_bits == 0 else IntRange.signed(message_bits + 1)
        rows = np.abs(synapse.weight.astype(np.int64)).reshape(len(synapse.weight), -1)
        self._largest_row = int(rows.sum(axis=1).max()) << synapse.weight_exponent
        self._now = 0
        if delays is None:
            self._total = np.zeros((batch, 1, *out_shape[1:]), np.int32)
            events = make_events(synapse, source_shape, self._spikes)

            def send(spikes: np.ndarray) -> None:
                events.send(spikes, self._total)

        else:
            self._total = np.zeros((batch, int(delays.max()) + 1, *out_shape[1:]), np.int32)
            order = np.arange(synapse.weight.shape[1]).reshape(source_shape).T.ravel()
            weight = (synapse.weight.astype(np.int32) << synapse.weight_exponent)[:, order].T.copy()
            later = delays[:, order].T.copy()

            def send(spikes: np.ndarray) -> None:
                flat = spikes.reshape(batch, -1)
                kernels.connect_delayed(flat, weight, later, self._now, self._total)

        self._send = send

    def now(self) -> np.ndarray:
        """The currents that arrive in this step, int32 (B, ...); a view until `receive`."""
        return self._total[:, self._now]

    def receive(self, spikes: np.ndarray) -> None:
        """Take the spikes of this step, int (...) or (B, ...).

        Raises
        ------
        ValueRangeError
            If a spike does not fit the messages, or a sum does not fit 24 bits.
        """
        self._total[:, self._now] = 0
        self._now = (self._now + 1) % self._total.shape[1]
        spikes = spikes.reshape(self._in_shape)
        low, high = int(spikes.min()), int(spikes.max())
        if not self._spikes.contains(low, high):
            raise ValueRangeError(
                "a spike does not fit the messages",
                found=f"{low} .. {high}",
                allowed=str(self._spikes),
                remedy="give input_message_bits for graded spikes",
            )
        if not low and not high:
            return
        if max(-low, high) * self._largest_row > SUM_LIMIT:
            raise ValueRangeError(
                "sums of such spikes may pass 32 bits",
                found=f"spikes {low} .. {high}",
                allowed=f"magnitude <= {SUM_LIMIT // self._largest_row}",
            )
        self._send(spikes)
        low, high = int(self._total.min()), int(self._total.max())
        if not CURRENT.contains(low, high):
            raise ValueRangeError(
                "a summed current left 24 bits", found=f"{low} .. {high}", allowed=str(CURRENT)
            )
