"""From an ONNX graph to a torch module of the same operations, which the frontend traces."""
