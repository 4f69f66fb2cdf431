"""HDF5 files, read within bounds and written by way of memory: all formats here that are HDF5.

`limits` says what a network file never needs, `guard` lets another process find out, `reading`
opens a file behind both, `writing` puts one onto the disk.
"""

from exports.hdf5.limits import Excess, beyond_limits
from exports.hdf5.reading import DAMAGED, FILE_LOCKING, opened
from exports.hdf5.writing import changed_hdf5, new_hdf5

__all__ = [
    "DAMAGED",
    "FILE_LOCKING",
    "Excess",
    "beyond_limits",
    "changed_hdf5",
    "new_hdf5",
    "opened",
]
