"""One package per target: netx HDF5 files, NIR graphs, and Lava processes on the CPU simulator.

`from exports import Network` also prepares Lava, so import it before anything of lava.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exports.network import Network

__all__ = ["Network"]


def __getattr__(name: str) -> Any:
    if name == "Network":
        from hw_models import lava_compat

        lava_compat.prepare()
        from exports.network import Network

        return Network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
