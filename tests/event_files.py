"""Small files of event cameras, written from the documents of their formats."""

import struct

import numpy as np

FIELDS = [("t", "<i8"), ("x", "<i8"), ("y", "<i8"), ("p", "<i8")]


def moving_square(direction, seed=0, size=(34, 34), start=1000, steps=40, tick=700):
    """Events (t, x, y, p) of a square that moves right (0), left (1), down (2) or up (3).

    What it covers becomes brighter, what it leaves darker. A structured array in the order of time.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    side, along = 6, 2 * min(size) // 3
    across = int(rng.integers(0, min(size) - side))
    events = []
    for step in range(steps):
        front = int(step * along / steps)
        now = start + step * tick
        for place in range(side):
            for position, p in ((front + side, 1), (front, 0)):
                a, b = min(position, min(size) - 1), across + place
                x, y = {
                    0: (a, b),
                    1: (width - 1 - a, b),
                    2: (b, a),
                    3: (b, height - 1 - a),
                }[direction]
                events.append((now + int(rng.integers(0, tick // 2)), x, y, p))
    return np.sort(np.array(events, FIELDS), order="t", kind="stable")


def bin_file(events):
    """N-MNIST: x, y, polarity and 23 bits of time."""
    return b"".join(
        bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events.tolist()
    )


def dat_file(events, size=(34, 34)):
    """Prophesee DAT, version 2."""
    header = f"% Data file containing CD events.\n% Version 2\n% Width {size[0]}\n"
    data = f"{header}% Height {size[1]}\n".encode() + bytes([0x0C, 8])
    for t, x, y, p in events.tolist():
        data += struct.pack("<II", t, p << 28 | y << 14 | x)
    return data


def evt2_file(events, size=(34, 34)):
    """EVT 2.0: the high bits of time as often as they change, and an external trigger."""
    data = f"% evt 2.0\n% geometry {size[0]}x{size[1]}\n% end\n".encode()
    high = None
    for t, x, y, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            data += struct.pack("<I", 0x8 << 28 | high)
            data += struct.pack("<I", 0xA << 28 | 1)
        data += struct.pack("<I", p << 28 | (t & 63) << 22 | x << 11 | y)
    return data


def evt3_file(events, size=(34, 34)):
    """EVT 3.0: single events, and runs of neighbours of one time, row and polarity as vectors.

    Cameras repeat the upper part of the time, so that no turn of its 12 bits goes unseen.
    """
    words = []
    rows = events.tolist()
    high = low = row = None
    index = 0
    while index < len(rows):
        t, x, y, p = rows[index]
        if t >> 12 != high:
            between = range(t >> 12 if high is None else high + 1, t >> 12, 1024)
            words += [0x8 << 12 | h & 0xFFF for h in (*between, t >> 12)]
            high, low = t >> 12, None
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(0x6 << 12 | low)
        if y != row:
            row = y
            words += [0x0 << 12 | y, 0xE << 12 | 5]
        run = [x]
        while index + len(run) < len(rows) and rows[index + len(run)] == (t, run[-1] + 1, y, p):
            run.append(run[-1] + 1)
        index += len(run)
        if len(run) == 1:
            words.append(0x2 << 12 | p << 11 | x)
            continue
        words.append(0x3 << 12 | p << 11 | run[0])
        left = len(run)
        while left > 0:
            wide = 12 if left > 8 else 8
            bits = (1 << min(left, wide)) - 1
            words.append((0x4 if wide == 12 else 0x5) << 12 | bits)
            left -= wide
    header = f"% evt 3.0\n% format EVT3;height={size[1]};width={size[0]}\n% end\n".encode()
    return header + np.array(words, "<u2").tobytes()


def aedat3_packet(events, kind=1, size=8, valid=1):
    """A packet of AEDAT 3.1; `size` is of an event, and `valid` its lowest bit."""
    head = struct.pack("<hhiiiiii", kind, 1, size, 4, 0, len(events), len(events), len(events))
    rows = (struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for t, x, y, p in events)
    return head + b"".join(rows)


def aedat3_file(events, packet=50, camera="DVS128"):
    """AEDAT 3.1, in packets of so many events, with a packet of signals among them."""
    rows = events.tolist()
    data = f"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: {camera}\r\n".encode()
    data += b"#Start-Time: 2016-05-01 12:00:00 (TZ+0200)\r\n#!END-HEADER\r\n"
    data += aedat3_packet([(0, 0, 0, 1)], kind=0)
    for first in range(0, len(rows), packet):
        data += aedat3_packet(rows[first : first + packet])
    return data


def aedat2_file(events, chip="ch.unizh.ini.jaer.chip.retina.DVS128"):
    """AEDAT 2.0 of a DVS128: y counts from the bottom, the bit of polarity is 0 for brighter."""
    data = f"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n# AEChip: {chip}\r\n".encode()
    for t, x, y, p in events.tolist():
        data += struct.pack(">II", (127 - y) << 8 | x << 1 | (1 - p), t)
    return data


WRITERS = {"bin": bin_file, "dat": dat_file, "raw2": evt2_file, "raw3": evt3_file}
SUFFIXES = {"bin": ".bin", "dat": ".dat", "raw2": ".raw", "raw3": ".raw"}


def frames_of(events, steps, size, frame_of, down=1):
    """Counts (T, 2, H, W) by a plain loop; `frame_of(index, t)` is the frame of an event."""
    counts = np.zeros((steps, 2, size[1] // down, size[0] // down), np.int64)
    for index, (t, x, y, p) in enumerate(events.tolist()):
        frame = frame_of(index, t)
        if frame < steps:
            counts[frame, p, y // down, x // down] += 1
    return counts
