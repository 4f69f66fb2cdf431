"""`Network`: a `.net` file as a Lava process, in place of `lava.lib.dl.netx.hdf5.Network`.

Lava executes every file beside a Process when it looks for models, so no other file may be here.
Import only after `hw_models.lava_compat.prepare()`.
"""

from exports.network.network import Network

__all__ = ["Network"]
