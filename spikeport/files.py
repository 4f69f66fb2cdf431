"""`load` and `save`: programs in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.output_policy import NETWORK, check_output

if TYPE_CHECKING:
    from toolchain.conversion.pipeline import Conversion
    from toolchain.program.int_program import IntProgram


def load(path: str | Path) -> IntProgram:
    """The program in a `.net` file, or in a NIR file that `export` has written.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of another tool.
    FormatError
        If the file is missing, damaged, or written by another tool.
    """
    from exports.netx import read_net
    from exports.nir import read_nir

    file = Path(path)
    return read_nir(file) if file.suffix == ".nir" else read_net(file)


def save(program: IntProgram | Conversion, path: str | Path, *, stock: bool = False) -> None:
    """Write a `.net` file, then read it back and compare it.

    Parameters
    ----------
    stock:
        Write plain CUBA layers, which stock lava-dl runs (T = 1).

    Raises
    ------
    OutputError
        If a file of another kind has that name.
    FormatError, TargetError
        If the program cannot be written in this form.
    """
    from exports.netx import write_net, write_stock_net

    file = Path(path)
    check_output(file, NETWORK)
    (write_stock_net if stock else write_net)(as_program(program), file)


def as_program(program: IntProgram | Conversion | str | Path) -> IntProgram:
    """The program: given itself, taken from a conversion, or loaded from a file."""
    if isinstance(program, str | Path):
        return load(program)
    return getattr(program, "program", program)  # type: ignore[arg-type]
