"""Integer programs as modules of other simulators: SpikingJelly, sinabs, snnTorch.

`writer` writes a folder: `network.py`, a torch module whose IF neurons are those of the tool, and
`network.safetensors` beside it. In float64 every spike is that of the integer program.
"""

from exports.simulators.writer import FILES, TOOLS, write_simulator

__all__ = ["FILES", "TOOLS", "write_simulator"]
