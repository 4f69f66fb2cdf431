"""600 files changed at random: lint answers each with findings, whatever HDF5 makes of it."""

import random
import time
from collections import Counter

from exports.netx import write_net
from exports.netx.lint.isolated import Worker
from tests.damage import BYTES, change_structure
from tests.networks import BLOCKS, branched_program
from tests.netx_files import own_file, stock_file
from toolchain.program.int_program import Schedule

SEED = 20261122
FILES = 600


def test_changed_files(tmp_path):
    whole = [
        stock_file(tmp_path / "stock.net"),
        own_file(tmp_path / "if.net"),
        own_file(tmp_path / "cif.net", kind="cif", schedule=Schedule(3, 4)),
        tmp_path / "branched.net",
    ]
    write_net(branched_program(3, "if", sorted(BLOCKS), low=-9, high=9), whole[3])
    originals = [path.read_bytes() for path in whole]
    rng = random.Random(SEED)
    path = tmp_path / "changed.net"
    told, slowest = Counter(), 0.0
    with Worker() as worker:
        for _ in range(FILES):
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
    assert slowest < 30
    # The changes reach everything: files that stay whole, that HDF5 cannot read, that say nonsense.
    assert told["clean"] > FILES / 100
    assert told["unreadable"] > FILES / 100
    assert told["malformed"] > FILES / 100
    assert told["not-this-program"] > FILES / 10
    assert len(told) > 12
