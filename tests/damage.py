"""Files as a bad disk, a bad tool or a bad neighbour leaves them, from a seed."""

import copy
import json

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
