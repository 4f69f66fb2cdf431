"""What has to be known to read a detector's maps; kept in the provenance of its program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toolchain.errors import ProgramError
from toolchain.learning.data.boxes import BOX_SIDES
from toolchain.program.int_program import IntProgram


@dataclass(frozen=True)
class DetectorSpec:
    """What has to be known to read a detector's maps.

    Attributes
    ----------
    stride:
        Pixels of a cell's side.
    class_names:
        In the order of the class map's channels.
    outputs:
        How many maps it gives: 2 (classes, boxes), or 1 (both, the classes first).
    """

    stride: int
    class_names: tuple[str, ...]
    outputs: int

    def describe(self) -> dict[str, Any]:
        """The attributes by name, as JSON, as a program's provenance contains them."""
        return {
            "stride": self.stride,
            "class_names": list(self.class_names),
            "outputs": self.outputs,
        }

    @classmethod
    def of(cls, program: IntProgram) -> DetectorSpec:
        """Of a program, from its provenance.

        Raises
        ------
        ProgramError
            If the program is no detector, or its readouts are not what it says.
        """
        spec = program.origin("detector", cls)
        if spec is None:
            raise ProgramError(
                "not a detector",
                node=program.name,
                found=", ".join(f"{p.name} {p.shape}" for p in program.readouts),
                remedy="convert a checkpoint of `spikeport detector train`",
            )
        channels = sum(p.shape[0] for p in program.readouts)
        sizes = {tuple(spec.stride * cells for cells in p.shape[1:]) for p in program.readouts}
        told = (len(program.readouts), channels, sizes)
        if told != (spec.outputs, spec.channels, {program.input.shape[1:]}):
            raise ProgramError(
                "the outputs are not those of the detector",
                node=program.name,
                found=", ".join(f"{p.name} {p.shape}" for p in program.readouts),
                allowed=f"{spec.outputs} with {spec.channels} channels together, of cells of "
                f"{spec.stride} of the input's {program.input.shape[1:]} pixels",
            )
        return spec

    @property
    def channels(self) -> int:
        """Channels of all maps together."""
        return len(self.class_names) + BOX_SIDES
