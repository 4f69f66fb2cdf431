"""Exact synaptic sums over a block of steps, with the fastest method for each plane.

Busy planes are convolved, sparse ones summed event by event, silent ones skipped. The first result
of each method is compared with a sum in float64, and so are the products of random spikes. A method
that gives other sums, or fails, is replaced: int8 by float32, float32 by float64, and events by
products. Threads wait while one of them checks a method.
"""

from __future__ import annotations

from contextlib import nullcontext
from threading import RLock

import numpy as np
import torch
from torch import Tensor

from toolchain.engine.dense_sums import (
    Arithmetic,
    Multiply,
    choose_arithmetic,
    make_products,
    plane_time,
)
from toolchain.engine.dispatch import Planes, count_spikes, sort_planes
from toolchain.engine.events import EventSum
from toolchain.engine.pool_factoring import as_pooled
from toolchain.engine.spike_encoding import INT8, CodedSpikes, coded_offset, plane_of
from toolchain.int_range import IntRange
from toolchain.program.synapse import ConvSynapse, DenseSynapse
from toolchain.simulator.currents import (
    COMPARED_SAMPLES,
    ON_PROCESSOR,
    exact_current,
    no_way_left,
    probe,
    report_failed,
    report_inexact,
)
from toolchain.threads import share, slices

SAFER = {Arithmetic.INT8: Arithmetic.FLOAT32, Arithmetic.FLOAT32: Arithmetic.FLOAT64}
FEW_WEIGHTS = 32
"""Most weights per neuron at which products cost no more than picking out planes."""


class SynapticSum:
    """Sums of one synapse of the population called `name`.

    `__call__` returns them in units of `unit`, 2^weight exponent: integers (T, n, H, W, C), as
    floating point if all of them are products.
    """

    def __init__(
        self, name: str, synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...], of: IntRange
    ) -> None:
        self.unit = 1 << synapse.weight_exponent
        self._name = name
        self._pooled = as_pooled(synapse, source, of)
        if self._pooled:
            source = self._pooled.source_shape(source)
            synapse, of = self._pooled.synapse, self._pooled.spikes
        self.arithmetic = choose_arithmetic(name, synapse, of)
        self._uneven: ConvSynapse | None = None
        if isinstance(synapse, ConvSynapse) and not synapse.is_even:
            self._uneven = synapse
            synapse, source = synapse.on_plane(source)
        self._synapse = synapse
        self._source, self._range = source, of
        self._out = plane_of(synapse.output_shape(source))
        self._products = self._make_products()
        wide = self.arithmetic is Arithmetic.FLOAT64
        self._integer = np.int64 if wide else np.int32
        self._events = None if wide else _by_events(synapse, source, of)
        time = plane_time(synapse, source, self.arithmetic)
        self._limit = self._events.limit(time) if self._events else 0
        self._verified = {Arithmetic.FLOAT64.value}
        self._checking = RLock()
        self._checked: Multiply | None = None

    def __call__(self, spikes: CodedSpikes, part: slice) -> np.ndarray:
        """Sums for the samples in `part`.

        One step of zeros if no spike arrives at all; otherwise the steps after the last with a
        spike may be missing, down to two.

        Raises
        ------
        BackendRunError
            If torch fails in every arithmetic, or while preparing one.
        """
        if self._pooled:
            spikes = self._pooled.add_up(spikes.of_samples(part))
            part = slice(0, spikes.values.shape[1])
            if self._pooled.is_all:
                return spikes.as_int8()
        if self._uneven:
            spikes = spikes.of_samples(part).laid_out(self._uneven)
            part = slice(0, spikes.values.shape[1])
        samples = part.stop - part.start
        if not spikes.is_byte or self._synapse.weight[0].size <= FEW_WEIGHTS:
            result = self._of_products(spikes.values[:, part], spikes)
            return result.reshape(-1, samples, *self._out)
        steps, of_step = spikes.values.shape[:2]
        planes = spikes.values.reshape(steps * of_step, *spikes.values.shape[2:])
        numbers = of_step * np.arange(steps)[:, None] + np.arange(part.start, part.stop)
        counts = count_spikes(planes, spikes.offset, numbers.ravel())
        (busy,) = np.any(counts.reshape(steps, samples), axis=1).nonzero()
        if not len(busy):
            return np.zeros((1, samples, *self._out), self._integer)
        heard = min(steps, max(2, int(busy[-1]) + 1))
        counts = counts[: heard * samples]
        chosen = sort_planes(counts, self._limit)
        if chosen is None:
            result = self._of_products(spikes.values[:heard, part], spikes)
        else:
            result = self._of_chosen(planes, numbers[:heard].ravel(), counts, chosen, spikes)
        return result.reshape(heard, samples, *self._out)

    def _of_chosen(
        self,
        planes: np.ndarray,
        numbers: np.ndarray,
        counts: np.ndarray,
        chosen: Planes,
        spikes: CodedSpikes,
    ) -> np.ndarray:
        """Sums (k, H, W, C) of the k planes with these numbers, each by its own method."""
        result = np.empty((len(numbers), *self._out), self._integer)
        if len(chosen.silent):
            result[chosen.silent] = 0
        if len(chosen.dense):
            result[chosen.dense] = self._of_products(planes[numbers[chosen.dense]], spikes)
        if len(chosen.sparse) and not self._put_events(
            planes, numbers, counts, chosen, spikes, result
        ):
            result[chosen.sparse] = self._of_products(planes[numbers[chosen.sparse]], spikes)
        return result

    def _put_events(
        self,
        planes: np.ndarray,
        numbers: np.ndarray,
        counts: np.ndarray,
        chosen: Planes,
        spikes: CodedSpikes,
        result: np.ndarray,
    ) -> bool:
        """Whether the sums of the sparse planes were put into `result`, event by event."""
        with nullcontext() if "event" in self._verified else self._checking:
            events = self._events
            if events is None:
                return False
            try:
                events.put(planes, numbers, chosen.sparse, counts, result)
                first = chosen.sparse[:COMPARED_SAMPLES]
                right = self._is_exact("event", planes[numbers[first]], spikes, result[first])
            except RuntimeError as error:
                report_failed(self._name, "event", error)
                right = False
            if not right:
                self._events, self._limit = None, 0
            return right

    def _make_products(self) -> Multiply:
        """The products in the current arithmetic, or in the next safer one that works."""
        offset = coded_offset(self._range) or 0
        while True:
            try:
                return make_products(self._synapse, self._source, self.arithmetic, offset)
            except RuntimeError as error:
                self._leave_arithmetic(error)

    def _leave_arithmetic(self, error: RuntimeError) -> None:
        """Replace a failed arithmetic by a safer one; raises BackendRunError if none is left."""
        if self.arithmetic not in SAFER:
            raise no_way_left(self._name, error, ON_PROCESSOR) from error
        report_failed(self._name, self.arithmetic.value, error)
        self.arithmetic = SAFER[self.arithmetic]

    def _of_products(self, values: np.ndarray, spikes: CodedSpikes) -> np.ndarray:
        """Sums of the encoded spikes `values`, bytes (..., H, W, C)."""
        flat = torch.from_numpy(values).reshape(-1, *values.shape[-3:])
        products = self._checked
        if products is not None:
            try:
                return self._multiplied(products, flat, spikes)
            except RuntimeError as error:
                with self._checking:
                    if self._checked is products:
                        self._checked = None
                        self._leave_arithmetic(error)
                        self._products = self._make_products()
        with self._checking:
            if self._checked is not None:
                return self._multiplied(self._checked, flat, spikes)
            return self._of_checked_products(flat, spikes)

    def _multiplied(self, products: Multiply, flat: Tensor, spikes: CodedSpikes) -> np.ndarray:
        def of_planes(part: slice) -> np.ndarray:
            found: np.ndarray = products(flat[part], spikes.offset).numpy()
            return found.reshape(-1, *self._out)

        found = share(of_planes, slices(len(flat), len(flat)), torch_works=True)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _of_checked_products(self, flat: Tensor, spikes: CodedSpikes) -> np.ndarray:
        """Sums of spikes (m, H, W, C) in the first arithmetic that is exact, which is kept."""
        while True:
            way = self.arithmetic.value
            try:
                found = self._multiplied(self._products, flat, spikes)
                random = self._probe(spikes)
                of_random = self._multiplied(self._products, random, spikes)
            except RuntimeError as error:
                self._leave_arithmetic(error)
            else:
                planes = torch.cat([flat[:1], random]).numpy()
                if self._is_exact(way, planes, spikes, np.concatenate([found[:1], of_random])):
                    self._checked = self._products
                    return found
                self.arithmetic = SAFER[self.arithmetic]
            self._products = self._make_products()

    def _probe(self, spikes: CodedSpikes) -> torch.Tensor:
        """One plane of random spikes, in the same encoding, (1, H, W, C)."""
        height, width, channels = plane_of(self._source)
        random = probe(self._range, (height, width, channels)) + spikes.offset
        return random.to(torch.from_numpy(spikes.values[:0]).dtype)

    def _is_exact(
        self, way: str, values: np.ndarray, spikes: CodedSpikes, result: np.ndarray
    ) -> bool:
        """Whether the first result of a method equals a sum in float64; logs it if not."""
        if way in self._verified:
            return True
        plain = (
            (torch.from_numpy(values).long() - spikes.offset)
            .movedim(-1, 1)
            .reshape(-1, *self._source)
        )
        exact = exact_current(self._name, self._synapse, plain) // self.unit
        found = torch.from_numpy(result).movedim(-1, 1).reshape(exact.shape)
        same = torch.equal(found.long(), exact)
        if same:
            self._verified.add(way)
        else:
            report_inexact(self._name, way)
        return same


def _by_events(
    synapse: ConvSynapse | DenseSynapse, source: tuple[int, ...], spikes: IntRange
) -> EventSum | None:
    """The synapse's sums event by event, if weights and spikes fit bytes; else None."""
    weights = int(synapse.weight.min()), int(synapse.weight.max())
    if not INT8.contains(*weights) or coded_offset(spikes) is None:
        return None
    plane = plane_of(source)
    if isinstance(synapse, DenseSynapse):
        weight = synapse.weight.reshape(-1, plane[2], *plane[:2]).transpose(0, 2, 3, 1)
        return EventSum(weight, ((1, 1), (0, 0), (1, 1)), plane, spikes)
    if synapse.groups > 1:
        return None
    weight = synapse.weight.transpose(0, 2, 3, 1)
    return EventSum(weight, (synapse.stride, synapse.padding, synapse.dilation), plane, spikes)
