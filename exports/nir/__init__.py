"""NIR, the neuromorphic intermediate representation (Pedersen et al., Nature Communications 2024).

`graph` makes a NIR graph of a program, `writer` a file of that, `reader` takes the program out
again, `ledger` says what NIR has no
words for. See `ledger` for what a graph means to a tool that does not know this project. `foreign`
reads graphs of other tools as float programs, to be converted like any other.
"""

from exports.nir.foreign import Reset, is_ours, read_foreign_nir
from exports.nir.ledger import Entry, ledger
from exports.nir.reader import has_hash, read_nir
from exports.nir.writer import write_nir

__all__ = [
    "Entry",
    "Reset",
    "has_hash",
    "is_ours",
    "ledger",
    "read_foreign_nir",
    "read_nir",
    "write_nir",
]
