"""A hash of all texts under /spikeport: the program's own says nothing of where it came from."""

from __future__ import annotations

import h5py

from exports.netx.group import Group
from exports.netx.layout import OWN
from toolchain.canonical import SEAL, check_seal, sealed
from toolchain.errors import FormatError


def write_seal(file: h5py.File) -> None:
    """Write the hash of what is there, in place of an earlier one."""
    texts = sealed(Group(file, "").group(OWN).texts())
    if SEAL in file[OWN]:
        del file[OWN][SEAL]
    file[OWN][SEAL] = texts[SEAL]


def checked_own(root: Group) -> Group:
    """The group /spikeport, held against its hash; files from before there was one lack it.

    Raises
    ------
    FormatError
        If a text was changed, removed or added.
    """
    own = root.group(OWN)
    if SEAL in own.names():
        texts = {**own.texts(), SEAL: own.text(SEAL)}
        check_seal(
            texts, FormatError, own.where(SEAL), "convert again; a changed file needs a new one"
        )
    return own
