"""NIR, the neuromorphic intermediate representation (Pedersen et al., Nature Communications 2024).

`graph` converts a program into a NIR graph, `writer` writes it to a file, and `reader` reads the
program back. `ledger` lists the properties that NIR cannot express, and how a tool that does not
know this project reads a graph. `foreign` reads graphs of other tools as float programs, which are
then converted like any other network.
"""

from exports.nir.foreign import Reset, is_ours, read_foreign_nir
from exports.nir.ledger import ledger
from exports.nir.reader import has_hash, read_nir
from exports.nir.writer import write_nir

__all__ = [
    "Reset",
    "has_hash",
    "is_ours",
    "ledger",
    "read_foreign_nir",
    "read_nir",
    "write_nir",
]
