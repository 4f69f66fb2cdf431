"""HDF5 files, read within bounds and written through memory, for all formats that use HDF5.

`limits` defines the bounds of a network file, `guard` checks a file in another process, `reading`
opens a checked file, and `writing` writes one to disk.
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
