"""2,000 files changed at random: lint answers each with findings, whatever HDF5 makes of it."""

import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import h5py
import numpy as np

from exports.netx import write_net
from exports.netx.lint.isolated import Worker
from tests.networks import BLOCKS, branched_program
from tests.netx_files import own_file, stock_file
from toolchain.program.int_program import Schedule

SEED = 20261121
FILES = 2_000
SHARES = 2


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


def look_at_many(seed, count, originals, folder):
    """How often each rule was found in `count` changed files, and the slowest answer in seconds."""
    rng = random.Random(seed)
    path = folder / f"changed-{seed}.net"
    told, slowest = Counter(), 0.0
    with Worker() as worker:
        for _ in range(count):
            data = bytearray(rng.choice(originals))
            if rng.random() < 0.3:
                path.write_bytes(data)
                change_structure(rng, path)
            else:
                for _ in range(rng.choice([1, 1, 3])):
                    rng.choice(BYTES)(rng, data)
                path.write_bytes(data)
            started = time.monotonic()
            findings = worker.lint(path)
            slowest = max(slowest, time.monotonic() - started)
            told.update({f.rule.id for f in findings.found} or {"clean"})
    return told, slowest


def test_ten_thousand_changed_files(tmp_path):
    whole = [
        stock_file(tmp_path / "stock.net"),
        own_file(tmp_path / "if.net"),
        own_file(tmp_path / "cif.net", kind="cif", schedule=Schedule(3, 4)),
        tmp_path / "branched.net",
    ]
    write_net(branched_program(3, "if", sorted(BLOCKS), low=-9, high=9), whole[3])
    originals = [path.read_bytes() for path in whole]
    look = partial(look_at_many, count=FILES // SHARES, originals=originals, folder=tmp_path)
    told, slowest = Counter(), 0.0
    with ProcessPoolExecutor(SHARES, get_context("spawn")) as pool:
        for found, longest in pool.map(look, range(SEED, SEED + SHARES)):
            told, slowest = told + found, max(slowest, longest)
    assert slowest < 30
    # The changes reach everything: files that stay whole, that HDF5 cannot read, that say nonsense.
    assert told["clean"] > FILES / 100
    assert told["unreadable"] > FILES / 100
    assert told["malformed"] > FILES / 100
    assert told["not-this-program"] > FILES / 10
    assert len(told) > 12
