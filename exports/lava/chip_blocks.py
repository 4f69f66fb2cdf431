"""Blocks that are the chips of a partition (`export --to partition`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolchain.documents import as_error, parse_json, read_text, typed
from toolchain.errors import FormatError, TargetError
from toolchain.program.cuts import PARTITION, possible_cuts
from toolchain.program.int_program import IntProgram

MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class ChipBlocks:
    """The chips that have cores of each layer, in the partition's order, and the program's hash."""

    program: str
    layers: tuple[tuple[str, tuple[int, ...]], ...]

    def __str__(self) -> str:
        return "the chips of a partition"

    @classmethod
    def read(cls, path: Path) -> ChipBlocks:
        """The chips of a partition file.

        Raises
        ------
        FormatError
            If the file is no partition of a known version.
        """
        with as_error(FormatError, "is not a partition", str(path), _REMEDY):
            document = parse_json(read_text(path, MOST_BYTES))
            if (document.get("format"), document.get("version")) != PARTITION:
                raise ValueError(f"its format is not {PARTITION[0]} {PARTITION[1]}")
            chips: dict[str, set[int]] = {}
            for core in document["cores"]:
                chips.setdefault(typed(str, core["layer"]), set()).add(typed(int, core["chip"]))
            layers = tuple((name, tuple(sorted(found))) for name, found in chips.items())
            return cls(typed(str, document["program"]["hash"]), layers)

    def cuts(self, program: IntProgram) -> tuple[int, ...]:
        """Indices of the populations that begin a chip.

        Raises
        ------
        TargetError
            If the partition is of another program, or a chip ends inside a layer, or where the
            spikes of several layers pass.
        """
        names = [p.name for p in program.populations]
        if program.hash != self.program or [name for name, _ in self.layers] != names:
            raise TargetError(
                "the partition is of another program",
                node=program.name,
                found=self.program[:16],
                allowed=program.hash[:16],
                remedy="export it again",
            )
        for name, chips in self.layers:
            if len(chips) > 1:
                raise TargetError(
                    "a block is a chip, and this layer is on several",
                    node=name,
                    found=f"chips {', '.join(map(str, chips))}",
                    remedy="export the partition with whole_layers=True, or for larger chips",
                )
        homes = [chips[0] for _, chips in self.layers]
        cuts = tuple(i for i in range(1, len(homes)) if homes[i] != homes[i - 1])
        possible = possible_cuts(program)
        for cut in cuts:
            if cut not in possible:
                raise TargetError(
                    "a chip begins where the spikes of several layers pass",
                    node=names[cut],
                    found=f"chip {homes[cut]} begins with this layer",
                    allowed=f"chips that begin with {', '.join(names[i] for i in possible)}"
                    if possible
                    else "one chip",
                    remedy="export the partition with whole_layers=True, or for larger chips",
                )
        return cuts


_REMEDY = 'a file that export writes with to="partition"'
