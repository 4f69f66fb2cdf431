"""From a trained quantized PyTorch network to an exact integer spiking program.

Importing this package loads neither torch nor lava; each submodule imports what it needs.
"""

from toolchain.moved import lead_on

__version__ = "0.2.0"

__all__ = ["__version__"]

lead_on()
