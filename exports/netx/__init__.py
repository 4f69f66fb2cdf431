"""netx HDF5 files (`.net`): written, verified and read back. The format is in FORMAT.md."""

from exports.netx.layout import FORMAT_VERSION
from exports.netx.reader import read_net
from exports.netx.stock import write_stock_net
from exports.netx.writer import write_net

__all__ = ["FORMAT_VERSION", "read_net", "write_net", "write_stock_net"]
