"""Selection of the Lava models that run a program."""

from __future__ import annotations

from dataclasses import dataclass

from exports.lava.chip_blocks import ChipBlocks
from toolchain.errors import TargetError

FAST_BATCH = 16
"""Default number of samples that advance together in the fast models."""
FIXED_PT, FAST = "fixed_pt", "fast"
OWN, ATRLIF = "own", "atrlif"


@dataclass(frozen=True)
class LavaModels:
    """The Lava models that run a program; all give the same bits.

    Attributes
    ----------
    tag:
        "fixed_pt": stock synapses and one process per population; "fast": one process per block.
    blocks:
        Number of processes that the network is split into, or the chips that are one each (fast).
    batch:
        Number of samples that advance together (fast).
    neurons:
        "own": this project's neurons; "atrlif": Lava's ATRLIF (fixed_pt).
    watch_ranges:
        Run even if values may not fit the registers of ATRLIF, and stop when one does not.

    Raises
    ------
    TargetError
        If these options contradict each other.
    """

    tag: str = FIXED_PT
    blocks: int | ChipBlocks = 1
    batch: int = 1
    neurons: str = OWN
    watch_ranges: bool = False

    @classmethod
    def fast(cls, blocks: int = 1, batch: int = FAST_BATCH) -> LavaModels:
        """The fast models, with this number of blocks and samples per batch."""
        return cls(FAST, blocks, batch)

    @classmethod
    def atrlif(cls, *, watch_ranges: bool = False) -> LavaModels:
        """Stock synapses with stock neurons (ATRLIF)."""
        return cls(neurons=ATRLIF, watch_ranges=watch_ranges)

    def __post_init__(self) -> None:
        if self.tag not in (FIXED_PT, FAST):
            raise TargetError("no such models", found=self.tag, allowed=f"{FIXED_PT}, {FAST}")
        if self.neurons not in (OWN, ATRLIF):
            raise TargetError("no such neurons", found=self.neurons, allowed=f"{OWN}, {ATRLIF}")
        if self.batch < 1 or (self.tag == FIXED_PT and (self.batch, self.blocks) != (1, 1)):
            raise TargetError(
                "stock synapses run one sample at a time, a process per layer",
                found=f"blocks: {self.blocks}, batch: {self.batch}",
                remedy="use the fast models",
            )
        if self.neurons == ATRLIF and self.tag != FIXED_PT:
            raise TargetError("ATRLIF neurons stand behind stock synapses", found=self.tag)
        if self.watch_ranges and self.neurons != ATRLIF:
            raise TargetError("only ATRLIF neurons are watched on request", found=self.neurons)


STOCK = LavaModels()
