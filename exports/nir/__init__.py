"""NIR, the neuromorphic intermediate representation (Pedersen et al., Nature Communications 2024).

`writer` puts a program into a NIR graph, `reader` takes it out again, `ledger` says what NIR has no
words for. See `ledger` for what a graph means to a tool that does not know this project. `foreign`
reads graphs of other tools as float programs, to be converted like any other.
"""

from exports.nir.foreign import Reset, is_ours, read_foreign_nir
from exports.nir.ledger import Entry, ledger
from exports.nir.reader import read_nir
from exports.nir.writer import write_nir

__all__ = [
    "Entry",
    "Reset",
    "is_ours",
    "ledger",
    "read_foreign_nir",
    "read_nir",
    "write_nir",
]
