"""Writes a program as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from exports.onnx.settled import settled as settled_network
from exports.onnx.step import scan
from toolchain.files import atomic_write
from toolchain.program.int_program import IntProgram


def write_onnx(program: IntProgram, path: Path, *, settled: bool = False) -> None:
    """Write the program; outputs are the readouts' accumulators, int32 (N, ...).

    Parameters
    ----------
    settled:
        Write the network that it settles to, without time, in place of all its steps.

    Raises
    ------
    TargetError
        If the program has no exact ONNX graph.
    OutputError
        If the path cannot be written.
    """
    model = settled_network(program) if settled else scan(program, trace=False)
    atomic_write(path, model.SerializeToString())
