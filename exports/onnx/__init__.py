"""Integer programs as ONNX graphs, which onnxruntime and other tools run to the same integers.

`graph` writes one local step as operators and repeats it by a `Scan`; `settled` writes the network
that a CIF network settles to, without time. `writer` writes files, `runner` runs graphs.
"""

from exports.onnx.writer import write_onnx

__all__ = ["write_onnx"]
