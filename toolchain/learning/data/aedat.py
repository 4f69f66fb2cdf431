"""AEDAT 2.0 and 3.1, the formats of iniLabs' DVS128 and of cAER.

Layouts are those of iniVation's documentation, "AEDAT 2.0" and "AEDAT 3.1", and of the DVS128 in
jAER, which wrote the recordings: its bit of polarity is 0 for brighter ("AEDAT 1.0" says 1). AEDAT
4 is another format, see `event_files`.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from toolchain.errors import DataError
from toolchain.learning.data.camera_events import Events, Size, records

DVS128 = (128, 128)
_log = logging.getLogger(__name__)


def read_aedat(path: Path) -> Events:
    """The events in a file of AEDAT 2.0 or 3.1.

    Raises
    ------
    DataError
        If it is of another version, of an unknown camera, truncated or damaged.
    """
    version, lines, body = _header(path.read_bytes())
    if version.startswith("2."):
        return _version2(lines, body, path)
    if version.startswith("3."):
        return _version3(lines, body, path)
    raise DataError(
        "unknown version of AEDAT",
        node=str(path),
        found=version or "no line #!AER-DAT at the start",
        allowed="2.0, 3.1; AEDAT 4 has the suffix .aedat4",
    )


VERSION = "#!AER-DAT"
END = "#!END-HEADER"


def _header(data: bytes) -> tuple[str, list[str], bytes]:
    """Version, further lines of the header, and what follows them."""
    lines: list[str] = []
    while data.startswith(b"#") and END not in lines:
        line, _, data = data.partition(b"\n")
        lines.append(line.decode("ascii", "replace").strip())
    if not lines or not lines[0].startswith(VERSION):
        return "", lines, data
    return lines[0].removeprefix(VERSION), lines[1:], data


EXTERNAL = 1 << 15
"""In an address of a DVS128: no event of a pixel."""


def _version2(lines: list[str], body: bytes, path: Path) -> Events:
    """Pairs of 32 bits, big-endian: address and time.

    An address has the polarity, 7 bits of x and 7 of y, which counts from the bottom. Other cameras
    of 128x128 pixels, whose names in jAER have the number, write the same.
    """
    chips = [line for line in lines if "AEChip" in line and "128" not in line]
    if chips:
        raise DataError("unknown camera", node=str(path), found=chips[0], allowed="a DVS128")
    address, t = records(body, np.dtype((">i4", 2)), path).astype(np.int64).T
    if ((address < 0) | (address > 0xFFFF)).any():
        raise DataError(
            "no address of a DVS128", node=str(path), found=int(address.max()), allowed="16 bits"
        )
    events = address & EXTERNAL == 0
    _told(int((~events).sum()), "signals of the camera's plug", path)
    address, t = address[events], t[events]
    height = DVS128[1]
    y = height - 1 - (address >> 8 & 127)
    return Events(t, address >> 1 & 127, y, address & 1 == 0, DVS128)


PACKET = np.dtype(
    [
        ("kind", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),
        ("time_offset", "<i4"),
        ("overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)
POLARITY = 1
KINDS = 14
"""Packets of other kinds, 0 to 13, have no events of pixels: signals, images, motion and so on."""


def _version3(lines: list[str], body: bytes, path: Path) -> Events:
    """Packets of events of 8 bytes, of 32 bits each: y, x, polarity and validity, and the time."""
    forms = [line for line in lines if line.startswith("#Format:")]
    if any("RAW" not in form for form in forms):
        raise DataError("unknown packets", node=str(path), found=forms[0], allowed="#Format: RAW")
    parts, kinds, place = [], set(), 0
    while place < len(body):
        if place + PACKET.itemsize > len(body):
            raise _truncated(path, len(body) - place, PACKET.itemsize)
        head = np.frombuffer(body, PACKET, 1, place)[0]
        kind, size, number = (int(head[name]) for name in ("kind", "size", "number"))
        room = int(head["capacity"])
        if not 0 <= kind < KINDS or size < 0 or number < 0 or room != number:
            raise DataError(
                "no packet of events",
                node=str(path),
                found=f"kind {kind}, {number} events of {size} bytes, with room for {room}, at "
                f"byte {place} of the data",
                allowed=f"kinds 0 to {KINDS - 1}, and as many events as there is room for",
            )
        if kind == POLARITY and size != 8:
            raise DataError("unknown events", node=str(path), found=f"{size} bytes", allowed=8)
        place += PACKET.itemsize
        if place + size * number > len(body):
            raise _truncated(path, len(body) - place, size * number)
        kinds.add(kind)
        if kind == POLARITY:
            words = np.frombuffer(body, "<u4", 2 * number, place).reshape(-1, 2).astype(np.int64)
            parts.append(np.stack([words[:, 0], words[:, 1] + (int(head["overflow"]) << 31)]))
        place += size * number
    if not parts:
        raise DataError(
            "the file has no packets of events of pixels",
            node=str(path),
            found=f"packets of kind {', '.join(map(str, sorted(kinds)))}" if kinds else "none",
            allowed=f"kind {POLARITY}",
        )
    data, t = np.concatenate(parts, axis=1)
    valid = data & 1 == 1
    _told(int((~valid).sum()), "events that the camera calls invalid", path)
    data, t = data[valid], t[valid]
    x, y = data >> 17 & 0x7FFF, data >> 2 & 0x7FFF
    return Events(t, x, y, data >> 1 & 1 == 1, _size(lines))


def _size(lines: list[str]) -> Size | None:
    """Of the camera, where it is one whose size does not need a word."""
    cameras = [line for line in lines if line.startswith("#Source")]
    return DVS128 if cameras and all("DVS128" in line for line in cameras) else None


def _truncated(path: Path, found: int, wanted: int) -> DataError:
    return DataError(
        "the file is truncated",
        node=str(path),
        found=f"{found} bytes at the end",
        allowed=f"{wanted} bytes of a packet",
    )


def _told(count: int, what: str, path: Path) -> None:
    if count:
        _log.warning("warning: %s: %d %s left out", path, count, what)
