"""Hash of all texts under /spikeport, since the program's hash does not cover its origin."""

from __future__ import annotations

import h5py

from exports.netx.group import Group
from exports.netx.layout import OWN
from toolchain.canonical import SEAL, check_seal, sealed
from toolchain.errors import FormatError


def write_seal(file: h5py.File) -> None:
    """Write the hash of the present texts, replacing an earlier one."""
    texts = sealed(Group(file, "").group(OWN).texts())
    if SEAL in file[OWN]:
        del file[OWN][SEAL]
    file[OWN][SEAL] = texts[SEAL]


def checked_own(root: Group) -> Group:
    """The group /spikeport, checked against its hash; older files have no hash.

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
