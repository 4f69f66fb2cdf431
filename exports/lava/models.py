"""Which Lava models run a program."""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.errors import TargetError

FAST_BATCH = 16
"""Samples that advance together in the fast models, unless told otherwise."""
FIXED_PT, FAST = "fixed_pt", "fast"
OWN, ATRLIF = "own", "atrlif"


@dataclass(frozen=True)
class LavaModels:
    """Which models run a program; all give the same bits.

    Attributes
    ----------
    tag:
        "fixed_pt": stock synapses and a process per population; "fast": whole blocks.
    blocks:
        Processes the network is cut into (fast).
    batch:
        Samples that advance together (fast).
    neurons:
        "own": this project's neurons; "atrlif": Lava's ATRLIF (fixed_pt).
    watch_ranges:
        Run also where ATRLIF's registers may be left, and stop when they are.

    Raises
    ------
    TargetError
        If they contradict each other.
    """

    tag: str = FIXED_PT
    blocks: int = 1
    batch: int = 1
    neurons: str = OWN
    watch_ranges: bool = False

    @classmethod
    def fast(cls, blocks: int = 1, batch: int = FAST_BATCH) -> LavaModels:
        """Whole blocks, a batch at a time."""
        return cls(FAST, blocks, batch)

    @classmethod
    def atrlif(cls, *, watch_ranges: bool = False) -> LavaModels:
        """Stock synapses and stock neurons."""
        return cls(neurons=ATRLIF, watch_ranges=watch_ranges)

    def __post_init__(self) -> None:
        if self.tag not in (FIXED_PT, FAST):
            raise TargetError("no such models", found=self.tag, allowed=f"{FIXED_PT}, {FAST}")
        if self.neurons not in (OWN, ATRLIF):
            raise TargetError("no such neurons", found=self.neurons, allowed=f"{OWN}, {ATRLIF}")
        if self.batch < 1 or (self.tag == FIXED_PT and (self.batch, self.blocks) != (1, 1)):
            raise TargetError(
                "stock synapses run one sample at a time, a process per layer",
                found=f"{self.blocks} blocks, a batch of {self.batch}",
                remedy="use the fast models",
            )
        if self.neurons == ATRLIF and self.tag != FIXED_PT:
            raise TargetError("ATRLIF neurons stand behind stock synapses", found=self.tag)
        if self.watch_ranges and self.neurons != ATRLIF:
            raise TargetError("only ATRLIF neurons are watched on request", found=self.neurons)


STOCK = LavaModels()
