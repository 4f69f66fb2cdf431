"""Writer of an integer program as a NIR graph, without any rounding."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from exports.entry import Entry
from exports.hdf5 import new_hdf5
from exports.nir.graph import as_graph
from exports.nir.ledger import ledger, resets_differ
from exports.nir.reader import read_nir
from toolchain.errors import FormatError, TargetError
from toolchain.program.int_program import IntProgram


def write_nir(
    program: IntProgram, path: Path | str, *, accept_hard_reset: bool = False
) -> list[Entry]:
    """Write `program` to `path`, read it back, and return the properties that NIR cannot express.

    Parameters
    ----------
    accept_hard_reset:
        Also write programs of several steps, which tools that do not read this project's metadata
        run with a reset to zero.

    Raises
    ------
    TargetError
        If NIR has no node for a part of the program, or its resets would be misread.
    OutputError
        If the path cannot be written.
    FormatError
        If the file read back is not the program, which is a bug.
    """
    import nir

    entries = ledger(program)
    if resets_differ(program) and not accept_hard_reset:
        raise TargetError(
            "NIR has no reset by subtraction: other tools would reset to zero",
            node=program.name,
            found=f"IF neurons over {program.schedule.num_steps} steps",
            allowed="one step, where both resets are the same",
            remedy="convert with steps=1, or accept_hard_reset=True to write it all the same",
        )
    graph = as_graph(program)

    def fill(image: BytesIO) -> None:
        nir.write(image, graph)

    with new_hdf5(Path(path), fill) as temporary:
        if read_nir(temporary, known=True).hash != program.hash:
            raise FormatError(
                "the file read back is not the program written",
                node=str(path),
                allowed=program.hash,
            )
    return entries
