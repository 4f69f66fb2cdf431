"""No command listens on the network: the sockets of its processes are looked at while it runs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import START, ok, started

LISTEN = "0A"
POLL_SECONDS = 0.05
DATA = "digits@test[:20]"


def listening():
    """Inode and local address (hexadecimal) of every listening TCP socket of the machine."""
    found = {}
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            _, address, _, state, *rest = line.split()
            if state == LISTEN:
                found[rest[5]] = address
    return found


def inodes(pid):
    """Those of the sockets of a process and of all that descend from it."""
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found |= inodes(child)
    except OSError:  # it ended meanwhile
        pass
    return found


def addresses_of(pid, status):
    """Where a process and its children listened at any moment, and its exit status."""
    seen = set()
    while status() is None:
        held, open_now = inodes(pid), listening()
        seen |= {address for inode, address in open_now.items() if inode in held}
        time.sleep(POLL_SECONDS)
    return seen, status()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sockets")
    how = ("--model", "mlp", "--activation", "qcfs", "--levels", "4", "--epochs", "1", *START)
    ok("train", "--data", "digits", *how, "--out", "run", cwd=folder)
    ok("convert", "run", "-o", "net.net", "--steps", "2", cwd=folder)
    return folder


def test_a_listening_child_is_seen(tmp_path):
    server = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {server!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path) as process:
        seen, status = addresses_of(process.pid, process.poll)
    assert status == 0
    assert [address.partition(":")[0] for address in seen] == ["0100007F"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("sweep", "run", "--data", DATA, "--steps", "1,2", "-o", "s.sqlite", "--jobs", "2"),
        ("audit", "net.net", "--data", DATA, "--lava", "0", "--html", "a.html"),
        ("run", "net.net", "--data", DATA, "-o", "fast.npz"),
        ("run", "net.net", "--data", DATA, "--backend", "lava", "-o", "lava.npz"),
        ("evaluate", "run", "--data", DATA, "--steps", "1"),
        ("lint", "net.net"),
    ],
    ids=["sweep", "audit", "run", "lava", "evaluate", "lint"],
)
def test_nothing_listens(folder, arguments):
    process = started(*arguments, cwd=folder)
    seen, status = addresses_of(process.pid, lambda: process.exitcode)
    assert status == 0
    assert seen == set()
