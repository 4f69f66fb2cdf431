"""Files of event cameras, read whole: the time, place and polarity of each event.

| suffix | format |
|---|---|
| `.bin` | N-MNIST and N-Caltech101 (Orchard et al., Frontiers in Neuroscience 2015) |
| `.dat` | Prophesee DAT, events of 8 bytes |
| `.raw` | Prophesee EVT 2.0 and 3.0 |
| `.aedat` | AEDAT 3.1, and AEDAT 2.0 of a DVS128 (`aedat`) |
| `.aedat4` | iniVation AEDAT 4, decoded by the package aedat |
| `.npz`, `.npy` | arrays, or fields of a structured array: `t` in microseconds, `x`, `y`, `p` |

Layouts of DAT and EVT are those of Prophesee's documentation, "Data file formats" and "Data
encoding formats"; that of AEDAT 4 is iniVation's, "AEDAT 4.0".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from toolchain.containers import read_npz
from toolchain.documents import as_error
from toolchain.errors import DataError, MissingDependencyError
from toolchain.learning.data.aedat import read_aedat
from toolchain.learning.data.camera_events import Events, Size, records

_log = logging.getLogger(__name__)


def read_events(path: Path) -> Events:
    """The events in a file.

    Raises
    ------
    DataError
        If the format is unknown, or the file is truncated or damaged.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            "no such format of event files",
            node=str(path),
            found=path.suffix or "no suffix",
            allowed=", ".join(READERS),
            remedy="others come by FILE.py:FACTORY, a torch Dataset of frames (T, 2, H, W)",
        )
    return reader(path)


def _bin(path: Path) -> Events:
    """Bytes x, y, and 24 bits: polarity and the time, big-endian.

    A `y` of 240, below every sensor of this format, is no event: from there on times are 2^13
    microseconds later.
    """
    rows = records(path.read_bytes(), np.dtype((np.uint8, 5)), path).astype(np.int64)
    x, y, high, middle, low = rows.T
    over = y == OVERFLOW_ROW
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(over) << 13)
    return Events(t[~over], x[~over], y[~over], (high >> 7 == 1)[~over])


OVERFLOW_ROW = 240
HALF_TURN = 1 << 11
"""Of the upper 12 bits of the time in EVT 3.0 (as in Prophesee's own decoder, OpenEB)."""


def _dat(path: Path) -> Events:
    """Behind the header the type and size of an event, then pairs of 32 bits."""
    header, body = _header(path)
    if not header:
        raise DataError("a DAT file begins with a header", node=str(path), allowed="% ...")
    if len(body) < 2 or body[1] != 8:
        raise DataError(
            "unknown events",
            node=str(path),
            found=f"{body[1]} bytes each" if len(body) > 1 else "nothing behind the header",
            allowed="8 bytes each",
        )
    t, place = records(body[2:], np.dtype(("<u4", 2)), path).astype(np.int64).T
    x, y, p = place & 0x3FFF, place >> 14 & 0x3FFF, place >> 28
    if p.size and int(p.max()) > 1:
        raise DataError("a polarity is 0 or 1", node=str(path), found=int(p.max()))
    size = None
    if "width" in header and "height" in header:
        size = _size(f"{header['width']}x{header['height']}", path)
    return Events(t, x, y, p == 1, size)


def _raw(path: Path) -> Events:
    header, body = _header(path)
    told = header.get("format", header.get("evt", ""))
    parts = dict(part.split("=", 1) for part in told.split(";") if "=" in part)
    geometry = header.get("geometry")
    if "width" in parts and "height" in parts:
        geometry = f"{parts['width']}x{parts['height']}"
    size = None if geometry is None else _size(geometry, path)
    version = told.split(";")[0].strip().upper().removeprefix("EVT")
    decode = {"2": _evt2, "2.0": _evt2, "3": _evt3, "3.0": _evt3}.get(version)
    if decode is None:
        raise DataError(
            "unknown encoding of a RAW file",
            node=str(path),
            found=told or "none in the header",
            allowed="EVT 2.0, EVT 3.0",
        )
    return decode(body, path, size)


def _evt2(body: bytes, path: Path, size: Size | None) -> Events:
    """Words of 32 bits: 4 of type; an event has 6 low bits of time, 11 of x and 11 of y."""
    words = records(body, np.dtype("<u4"), path).astype(np.int64)
    kinds = words >> 28
    high = _latest(kinds == 0x8, words & 0xFFFFFFF)
    (events,) = (kinds <= 0x1).nonzero()
    events = events[_known(_seen(kinds == 0x8)[events], path)]
    w = words[events]
    t = high[events] << 6 | w >> 22 & 0x3F
    return Events(t, w >> 11 & 0x7FF, w & 0x7FF, w >> 28 == 1, size)


def _evt3(body: bytes, path: Path, size: Size | None) -> Events:
    """Words of 16 bits: 4 of type. Events take row and time from earlier words.

    A word has one event (type 2), or one for each bit that is set of 12 or 8 (types 4 and 5): from
    a place on that type 3 gives, and each such word moves. The upper 12 bits of the time begin anew
    after 16.8 s; a step back of less than half their range is none of these.
    """
    words = records(body, np.dtype("<u2"), path).astype(np.int64)
    kinds, low = words >> 12, words & 0xFFF
    wide = np.select([kinds == 0x4, kinds == 0x5], [12, 8], 0)
    before = np.cumsum(wide) - wide
    base = _latest(kinds == 0x3, (words & 0x7FF) - before) + before
    high = kinds == 0x8
    change, turns = np.zeros((2, len(words)), np.int64)
    change[high] = np.diff(low[high], prepend=-1)
    turns[high] = np.cumsum(change[high] <= -HALF_TURN)
    # A new high part begins with a low part of 0, until the next low part comes.
    lower = (kinds == 0x6) | (high & (change != 0))
    time = _latest(high, turns << 24 | low << 12) + _latest(lower, np.where(high, 0, low))
    bits = np.select([kinds == 0x2, kinds == 0x4, kinds == 0x5], [1, low, low & 0xFF], 0)
    known = _seen(high) & _seen(kinds == 0x0) & (_seen(kinds == 0x3) | (kinds == 0x2))
    (events,) = (bits > 0).nonzero()
    events = events[_known(known[events], path)]
    single = kinds[events] == 0x2
    first = np.where(single, words[events] & 0x7FF, base[events])
    on = np.where(single, words[events], _latest(kinds == 0x3, words)[events]) >> 11 & 1
    at, bit = (bits[events, None] >> np.arange(12) & 1).nonzero()
    y = _latest(kinds == 0x0, words & 0x7FF)
    return Events(time[events][at], first[at] + bit, y[events][at], on[at] == 1, size)


def _latest(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """At each place the value at the last place that `where` marks so far; 0 before the first."""
    places = np.maximum.accumulate(np.where(where, np.arange(len(values)), -1))
    return np.where(places >= 0, values[places], 0)


def _seen(where: np.ndarray) -> np.ndarray:
    """Whether a place is at or behind the first that `where` marks."""
    seen: np.ndarray = np.logical_or.accumulate(where)
    return seen


def _known(known: np.ndarray, path: Path) -> np.ndarray:
    """`known`, which says of words of events whether time and place are; says how many are not."""
    lost = int((~known).sum())
    if lost:
        _log.warning(
            "warning: %s: %d words of events before the first time and place left out", path, lost
        )
    return known


def _aedat4(path: Path) -> Events:
    """The stream of events of an AEDAT 4 file, which also has images and other streams.

    The decoder does not miss packets at the end of a file that is cut between two of them; so the
    place of the table behind the packets, which the header states, must lie inside the file.
    """
    if find_spec("aedat") is None:
        raise MissingDependencyError(
            "is not installed",
            node="aedat",
            remedy="pip install aedat, or pip install 'spikeport[aedat]'",
        )
    import aedat

    with as_error(DataError, "not a readable AEDAT 4 file", str(path)):
        with path.open("rb") as file:
            table = _table_place(file.read(AEDAT_HEADER))
        decoder = aedat.Decoder(str(path))
        streams = {k: v for k, v in decoder.id_to_stream().items() if v["type"] == "events"}
        parts = [packet["events"] for packet in decoder if packet["stream_id"] in streams]
    if len(streams) != 1:
        raise DataError(
            "a recording has one stream of events", node=str(path), found=f"{len(streams)} streams"
        )
    if table < 0:
        _log.warning("warning: %s: the recording was not ended; its last events may miss", path)
    elif table >= path.stat().st_size:
        raise DataError(
            "the file is truncated",
            node=str(path),
            found=f"{path.stat().st_size:,} bytes",
            allowed=f"more than {table:,}, where the table of its packets is",
        )
    (told,) = streams.values()
    size = (int(told["width"]), int(told["height"]))
    none = [np.empty(0, np.int64)]
    t, x, y, on = (
        np.concatenate([part[name].astype(np.int64) for part in parts] or none)
        for name in ("t", "x", "y", "on")
    )
    return Events(t, x, y, on == 1, size)


AEDAT_VERSION = b"#!AER-DAT4.0\r\n"
AEDAT_HEADER = 1 << 16
"""Bytes of a file in which the header's numbers lie; its text comes behind them."""


def _table_place(data: bytes) -> int:
    """Where the table of packets begins, -1 if nowhere: field 1 of the header, a FlatBuffer.

    A table of a FlatBuffer begins with the distance back to the list of its fields' places.
    """
    if not data.startswith(AEDAT_VERSION):
        raise ValueError(f"it does not begin with {AEDAT_VERSION!r}")
    start = len(AEDAT_VERSION) + 4
    root = start + int.from_bytes(data[start : start + 4], "little")
    fields = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    place = int.from_bytes(data[fields + 6 : fields + 8], "little")
    if not place:
        return -1
    return int.from_bytes(data[root + place : root + place + 8], "little", signed=True)


def _arrays(path: Path) -> Events:
    """Arrays or fields t, x, y and p."""
    with as_error(DataError, "not a readable file of arrays", str(path)):
        if path.suffix.lower() == ".npz":
            found = read_npz(path, ("t", "x", "y", "p"))
        else:
            array = np.load(path, allow_pickle=False)
            found = {name: array[name] for name in array.dtype.names or ()}
    missing = {"t", "x", "y", "p"} - set(found)
    if missing:
        raise DataError(
            "arrays are missing",
            node=str(path),
            found=", ".join(sorted(found)),
            allowed="t, x, y, p",
        )
    for name in ("t", "x", "y", "p"):
        values = found[name]
        integers = values.dtype.kind in "iu" or (name == "p" and values.dtype.kind == "b")
        if values.ndim != 1 or values.shape != found["t"].shape or not integers:
            raise DataError(
                "t, x, y and p are integers, one of each per event",
                node=f"{path}, {name}",
                found=f"{values.dtype} {values.shape}",
            )
    t, x, y, p = (found[name].astype(np.int64) for name in ("t", "x", "y", "p"))
    kinds = set(np.unique(p).tolist())
    if not (kinds <= {0, 1} or kinds <= {-1, 1}):
        raise DataError(
            "a polarity is 0 or 1, or -1 or 1",
            node=str(path),
            found=f"{min(kinds)} .. {max(kinds)}",
        )
    return Events(t, x, y, p == 1)


READERS: dict[str, Callable[[Path], Events]] = {
    ".bin": _bin,
    ".dat": _dat,
    ".raw": _raw,
    ".aedat": read_aedat,
    ".aedat4": _aedat4,
    ".npz": _arrays,
    ".npy": _arrays,
}


def _header(path: Path) -> tuple[dict[str, str], bytes]:
    """Lines `% key value` at the start of a file, keys in lower case, and what follows them."""
    data, fields = path.read_bytes(), {}
    while data.startswith(b"% "):
        line, _, data = data.partition(b"\n")
        key, _, value = line[2:].decode("ascii", "replace").strip().partition(" ")
        if key == "end":
            break
        fields[key.lower()] = value.strip()
    return fields, data


def _size(text: str, path: Path) -> Size:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise DataError("the header's size of the sensor is none", node=str(path), found=text)
    return (int(width), int(height))
