"""Writes a program as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from exports.onnx.settled import settled as settled_network
from exports.onnx.step import scan
from toolchain.files import atomic_write
from toolchain.program.int_program import IntProgram


def write_onnx(
    program: IntProgram, path: Path, *, settled: bool = False, qonnx: bool = False
) -> None:
    """Write the program; outputs are the readouts' accumulators, int32 (N, ...).

    Parameters
    ----------
    settled:
        Write the network that it settles to, without time, in place of all its steps.
    qonnx:
        Write that network with QONNX's operators.

    Raises
    ------
    TargetError
        If the program has no exact ONNX graph.
    OutputError
        If the path cannot be written.
    """
    if settled or qonnx:
        model = settled_network(program, qonnx=qonnx)
    else:
        model = scan(program, trace=False)
    atomic_write(path, model.SerializeToString())
