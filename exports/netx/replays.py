"""Replays stored in a `.net` file: JSON under /spikeport/replays, outside the program's hash."""

from __future__ import annotations

from pathlib import Path

import h5py

from exports.hdf5 import changed_hdf5
from exports.netx.layout import OWN
from exports.netx.opened import opened
from exports.netx.reader import difference, read_net
from exports.netx.seal import checked_own, write_seal
from toolchain.canonical import canonical_json
from toolchain.errors import FormatError
from toolchain.recording.replay import Replay

REPLAYS = "replays"


def read_replays(path: Path) -> list[Replay]:
    """The replays in the file at `path`; empty for older files.

    Raises
    ------
    FormatError
        If the file or its replays are damaged.
    """
    with opened(path) as root:
        own = checked_own(root)
        if REPLAYS not in own.names():
            return []
        where = own.where(REPLAYS)
        held = own.json(REPLAYS)
        try:
            return [Replay.from_description(fields) for fields in held["runs"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(
                "does not describe replays", node=where, found=f"{type(error).__name__}: {error}"
            ) from error


def add_replay(path: Path, replay: Replay) -> None:
    """Add a replay to the file, replacing one of the same data; the program stays unchanged.

    Raises
    ------
    FormatError
        If the file is damaged.
    OutputError
        If the file cannot be written.
    """
    before = read_net(path)
    kept = [r for r in read_replays(path) if r.data_sha256 != replay.data_sha256]
    runs = [r.describe() for r in (*kept, replay)]

    def change(file: h5py.File) -> None:
        own = file[OWN]
        if REPLAYS in own:
            del own[REPLAYS]
        own[REPLAYS] = canonical_json({"runs": runs})
        write_seal(file)

    with changed_hdf5(path, change) as temporary:
        if difference(temporary, before):
            raise FormatError("the program changed when a replay was added", node=str(path))
