"""The layers of a block, and the layout of its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from hw_models.axes import lava_shape
from hw_models.local_time import LocalTime
from hw_models.message_bits import message_bits
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram, Population


@dataclass(frozen=True, eq=False)
class BlockLayout:
    """Populations `first .. last - 1` of a program, run for `batch` samples at a time.

    Attributes
    ----------
    num_batches:
        Number of consecutive batches; None if unlimited.
    start:
        Number of global steps before the input sends the first sample.

    Raises
    ------
    TargetError
        If several layers outside feed the block, or a layer outside takes spikes of another than
        its last layer: a block has one input and one output.
    """

    program: IntProgram
    first: int
    last: int
    batch: int = 1
    num_batches: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last <= len(self.program.populations) or self.batch < 1:
            raise TargetError(
                "a block needs layers and samples",
                found=f"layers {self.first} .. {self.last - 1}, batch {self.batch}",
                allowed=f"0 .. {len(self.program.populations) - 1}, at least 1",
            )
        _ = self.source
        inside = {p.name for p in self.populations[:-1]}
        for population in self.program.populations[self.last :]:
            for synapse in population.synapses:
                if synapse.source in inside:
                    raise TargetError(
                        "a block sends the spikes of its last layer only",
                        node=population.name,
                        found=f"also takes those of {synapse.source}",
                        remedy="cut the network where a single layer's spikes pass",
                    )

    @property
    def populations(self) -> tuple[Population, ...]:
        """The layers of the block, in order."""
        return self.program.populations[self.first : self.last]

    @cached_property
    def source(self) -> str:
        """The one layer outside that feeds the block; raises TargetError if there are several."""
        inside = {p.name for p in self.populations}
        sources = {s.source for p in self.populations for s in p.synapses} - inside
        if len(sources) != 1:
            raise TargetError(
                "a block needs exactly one source",
                node=f"{self.populations[0].name} .. {self.populations[-1].name}",
                found=", ".join(sorted(sources)) or "none",
                remedy="cut the network where a single layer's spikes pass",
            )
        return sources.pop()

    @property
    def batched_in_shape(self) -> tuple[int, ...]:
        """Shape of the input, (B, W, H, C) or (B, F)."""
        return (self.batch, *lava_shape(self.program.source_shape(self.source)))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the input port: without the batch axis if the batch is 1."""
        return self.batched_in_shape[self.batch == 1 :]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output port: without the batch axis if the batch is 1."""
        shape = (self.batch, *lava_shape(self.populations[-1].shape))
        return shape[self.batch == 1 :]

    @property
    def message_bits(self) -> int:
        """Message bits of the incoming spikes; 0 for unary ones."""
        return message_bits(self.program.spike_range(self.source))

    @property
    def state_size(self) -> int:
        """Number of membrane potentials of the whole batch."""
        return self.batch * sum(prod(p.shape) for p in self.populations)

    def potentials(self, v: np.ndarray, name: str) -> np.ndarray:
        """The potentials of the layer called `name`, a view (B, W, H, C) or (B, F) of `v`.

        `v` has the shape (state_size,).

        Raises
        ------
        KeyError
            If the block has no such layer.
        """
        first = 0
        for population in self.populations:
            size = self.batch * prod(population.shape)
            if population.name == name:
                shape = (self.batch, *lava_shape(population.shape))
                return v[first : first + size].reshape(shape)
            first += size
        raise KeyError(name)

    def clock(self, name: str) -> LocalTime:
        """Local time of a layer, or of the input; a batch counts as one sample."""
        schedule = self.program.schedule
        return LocalTime(
            self.start + self._depths[name],
            schedule.wake_steps,
            schedule.sleep_steps,
            self.num_batches,
        )

    @cached_property
    def _depths(self) -> dict[str, int]:
        return self.program.depths()
