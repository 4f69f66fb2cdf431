"""Files as a bad disk, a bad tool or a bad neighbour leaves them, from a seed."""

import copy
import json

import h5py
import numpy as np

NASTY = (
    *(None, True, 0, -1, 1, 3, 10**9, 10**30, -(10**30), 1e308, -0.5, 1e-320),
    *("", "x", "../x", "\x1b[31m", "é" * 300, [], {}, [[]], [0], {"a": 1}),
    *([1e308] * 3, [[[[[[[[]]]]]]]], "9" * 5000),
)


def damaged_bytes(data, rng):
    """One of: flipped bits, an overwritten run, a copied piece, a cut, an insertion."""
    data = bytearray(data)
    at = rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind < 2:
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        size = min(rng.choice([1, 2, 4, 8, 64]), len(data) - at)
        data[at : at + size] = bytes([rng.choice([0, 0xFF, 0x7F, rng.randrange(256)])]) * size
    elif kind == 3:
        piece = data[at : at + rng.choice([8, 64, 512])]
        to = rng.randrange(len(data))
        data[to : to + len(piece)] = piece
    elif kind == 4:
        del data[at:]
    else:
        data[at:at] = rng.randbytes(rng.choice([1, 8, 100]))
    return bytes(data)


def places(value, path=()):
    """Paths of everything inside a JSON value; of long lists, the first items."""
    items = value.items() if isinstance(value, dict) else ()
    items = list(enumerate(value))[:3] if isinstance(value, list) else items
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def damaged_document(document, rng):
    """A JSON document with one value replaced, removed or renamed."""
    document = copy.deepcopy(document)
    *way, last = rng.choice(list(places(document)))
    inner = document
    for key in way:
        inner = inner[key]
    kind = rng.randrange(8)
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, dict):
        inner[f"{last}x"] = inner.pop(last)
    else:
        inner[last] = rng.choice(NASTY)
    return document


def deep(depth):
    return json.dumps(0).join(["[" * depth, "]" * depth])


def flip(rng, data):
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng, data):
    start = rng.randrange(len(data))
    value = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
    size = rng.choice([1, 2, 4, 8, 64])
    data[start : start + size] = bytes([value]) * len(data[start : start + size])


def copy_over(rng, data):
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    size = rng.choice([8, 64, 512])
    piece = data[source : source + size]
    data[target : target + len(piece)] = piece


def cut(rng, data):
    del data[rng.randrange(len(data)) :]


def insert(rng, data):
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice([1, 8, 100]))


BYTES = (flip, flip, flip, overwrite, overwrite, copy_over, cut, insert)


def datasets(file):
    names = []
    file.visititems(lambda name, item: names.append(name))
    return names


STRANGE = (
    np.nan,
    np.inf,
    -1,
    0,
    1 << 40,
    2.5,
    b"x",
    "\u2603",
    True,
    np.zeros(0),
    np.zeros((2, 3, 4, 5, 6)),
    np.arange(7, dtype=np.uint64) + (1 << 63),
    np.zeros(3, np.complex64),
    np.zeros(2, [("a", "i4")]),
    h5py.Empty("f4"),
)


def change_structure(rng, path):
    """A dataset or group replaced, removed or moved, by means of HDF5 itself."""
    with h5py.File(path, "r+") as file:
        for _ in range(rng.choice([1, 1, 2, 5])):
            names = datasets(file)
            if not names:
                return
            name = rng.choice(names)
            how = rng.randrange(4)
            if how == 0:
                del file[name]
            elif how == 1:
                del file[name]
                file[name] = rng.choice(STRANGE)
            elif how == 2:
                target = f"{name}-{rng.randrange(99)}"
                if target not in file:
                    file.move(name, target)
            elif isinstance(file[name], h5py.Dataset) and file[name].shape:
                values = file[name][()]
                if values.dtype.kind in "iuf" and values.size:
                    worst = rng.choice([-(1 << 31), 255, 300, 1 << 20, 0, -4])
                    values.reshape(-1)[rng.randrange(values.size)] = (
                        worst if values.dtype.itemsize > 2 else worst % 100
                    )
                    file[name][...] = values
