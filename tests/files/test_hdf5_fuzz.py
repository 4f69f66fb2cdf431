"""Changed files through the readers that every command uses: a clean result or our own error."""

import random
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import h5py
import nir
import pytest

from exports.netx import read_net, write_net
from exports.netx.cuba_reader import is_stock_net, read_cuba_net
from exports.netx.replays import add_replay, read_replays
from exports.nir import Reset, read_foreign_nir, read_nir, write_nir
from exports.nir.graph import as_graph
from tests.command_line import ROOT
from tests.damage import BYTES, change_structure
from tests.networks import branched_program, random_program
from tests.netx_files import HOSTILE, own_file, stock_file
from toolchain.errors import FormatError, SpikeportError
from toolchain.program.int_program import Schedule
from toolchain.recording.replay import Replay

SEED = 20261125
FILES = 300
SECONDS = 2.0
"""Of computing; the files are small."""
MEMORY = 500 << 20
ORIGIN = {"seed": 7, "detector": {"anchors": [[1.5, 2.0]]}}


def a_net(path):
    program = branched_program(3, "if", ["max", "overhang"], low=-9, high=9)
    write_net(replace(program, provenance=ORIGIN), path)
    add_replay(path, Replay("digits", "0" * 64, 3, "0" * 64, {"conv0": "0" * 64}, {}))


def a_graph(path):
    program = random_program(1, hidden=(4,), schedule=Schedule(1))
    write_nir(replace(program, provenance=ORIGIN), path)


def a_foreign_graph(path):
    graph = as_graph(random_program(2, hidden=(4,), schedule=Schedule(1)))
    graph.metadata.clear()
    nir.write(str(path), graph)


def meaning(program):
    return program.hash, program.name, program.provenance_json()


def read_own(path):
    found = meaning(read_net(path))
    with h5py.File(path) as file:
        certificate = file["spikeport/certificate"][()]
    return *found, str(read_replays(path)), certificate


def read_stock(path):
    is_stock_net(path)
    read_cuba_net(path)


def read_graph(path):
    return meaning(read_nir(path))


def read_foreign(path):
    read_foreign_nir(path, 2, Reset.SUBTRACT)[0].shapes()


FORMATS = {
    "net": (a_net, read_own),
    "stock": (stock_file, read_stock),
    "nir": (a_graph, read_graph),
    "foreign nir": (a_foreign_graph, read_foreign),
}


def used():
    """Seconds of this process and its children."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, both))


def texts_in(path):
    """All strings of any length that are one value."""
    found = []

    def look(_, item):
        if isinstance(item, h5py.Dataset) and item.dtype.hasobject and item.shape == ():
            found.append(item[()])

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def damaged(rng, data, texts):
    """One byte of a text changed, or bytes anywhere."""
    changed = bytearray(data)
    if texts and rng.random() < 0.4:
        text = rng.choice(texts)
        changed[data.index(text) + rng.randrange(len(text))] ^= rng.randrange(1, 256)
    else:
        rng.choice(BYTES)(rng, changed)
    return changed


def read_many(name, folder):
    """What changed files mean, how many are refused, most seconds for one, bytes more in memory."""
    make, read = FORMATS[name]
    path = folder / "x"
    make(path)
    data, texts, rng = path.read_bytes(), texts_in(path), random.Random(SEED)
    meanings, refused, slowest = {read(path)}, 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(FILES):
        if rng.random() < 0.3:
            path.write_bytes(data)
            change_structure(rng, path)
        else:
            path.write_bytes(damaged(rng, data, texts))
        started = used()
        try:
            meanings.add(read(path))
        except SpikeportError:
            refused += 1
        slowest = max(slowest, used() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return meanings, refused, slowest, grown


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_are_read_or_refused(name, tmp_path):
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        meanings, refused, slowest, grown = pool.submit(read_many, name, tmp_path).result()
    # What is read is what was written: a change that matters is refused.
    assert len(meanings) == 1
    assert FILES / 10 < refused < FILES
    assert slowest < SECONDS
    assert grown < MEMORY


def one_string(file):
    """A string of 2 GB that a file of some kilobytes declares."""
    del file["layer/0/type"]
    file["layer/0"].create_dataset("type", (1,), f"S{(1 << 31) - 1}", chunks=(1,), compression=4)


def in_pieces(file):
    """Many datasets that are each small enough."""
    for index in range(9):
        file.create_dataset(f"{index}", (4000, 4000), "i1", fillvalue=1, chunks=(4000, 4000))


def one_chunk(file):
    """One number in a chunk of a gigabyte."""
    del file["layer/0/shape"]
    file["layer/0"].create_dataset("shape", (3,), "i8", maxshape=(None,), chunks=(1 << 27,))


BOMBS = {**HOSTILE, "string": one_string, "many pieces": in_pieces, "chunk": one_chunk}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_hostile_files_are_refused_by_every_reader(name, bomb, tmp_path):
    make, read = FORMATS[name]
    path = tmp_path / "x"
    stock_file(path)
    if name != "stock":
        other = tmp_path / "other"
        make(other)
        with h5py.File(path, "a") as file, h5py.File(other) as source:
            for key in source:
                if key not in file:
                    source.copy(key, file)
    with h5py.File(path, "r+") as file:
        BOMBS[bomb](file)
    with pytest.raises(FormatError, match="more than a network file needs"):
        read(path)


def test_a_loop_inside_the_library_ends(tmp_path):
    """The tree of a group whose node is its own neighbour and child."""
    path = own_file(tmp_path / "x.net")
    data = bytearray(path.read_bytes())
    loops = 0
    start = data.find(b"TREE")
    while start >= 0:
        # Version 1 B-tree of groups: level at byte 5, siblings at 8 and 16, a child at 32.
        for offset in (8, 16, 32):
            data[start + offset : start + offset + 8] = start.to_bytes(8, "little")
        data[start + 5] = 1
        loops += 1
        start = data.find(b"TREE", start + 4)
    assert loops > 0
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(FormatError):
        read_net(path)
    assert time.process_time() - started < SECONDS


FULL_DISK = """
import resource, sys
from pathlib import Path
from exports.netx import write_net
from exports.nir import write_nir
from tests.networks import random_program
from toolchain.errors import OutputError
from toolchain.program.int_program import Schedule
program = random_program(1, hidden=(4,), schedule=Schedule(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (write_net, write_nir):
    try:
        write(program, Path(sys.argv[1]))
    except OutputError:
        continue
    sys.exit(3)
"""


def test_a_disk_that_is_full_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "x")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not list(tmp_path.iterdir())
