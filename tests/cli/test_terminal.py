"""What commands show on terminals of several widths: no number broken, nothing cut short."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from exports.netx import write_net
from tests.command_line import ROOT, ok
from tests.networks import branched_program, random_program

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERASED = "\x1b[2K"
PROGRESS = """
import time
from toolchain.cli.output import Output
with Output().progress("audit: a program with a long name, m[v2] [/] " + "x" * 40) as task:
    for done in range(20):
        task.update(123400 + done, 7654321, "accuracy of each version, epoch 12/300, loss 0.123")
        time.sleep(0.1)
"""


def on_terminal(width, *arguments, cwd=None):
    """What a Python program prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        told = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal of a process that ended
                break
            if not part:
                break
            told += part
    os.close(ours)
    assert process.returncode == 0, told
    return told.decode().replace("\r\n", "\n")


def plain(text):
    """Without colours and the like."""
    return CONTROL.sub("", text)


TABLE = """
from toolchain.cli.output import Output
words = "propagated quantization unevenness".split()
prose = "a cell of more words than stand on one line of a column: " + "0123456789abcdef" * 4
Output().table(
    ("layer", *words, "state (any input)", "meaning"),
    [("blocks.0.branch", "+0.1", "-2.25", "", "-2147483648 .. 2147483647", prose)],
    "a title that is longer than a narrow table, with numbers to the end: 12345",
)
"""


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_table_keeps_words_and_numbers(width):
    lines = plain(on_terminal(width, "-c", TABLE)).split("\n")
    assert all(len(line) <= width for line in lines)
    shown = "\n".join(lines)
    for whole in ("blocks.0.branch", "+0.1", "-2.25", "-2147483648 .. 2147483647", "12345"):
        assert whole in shown
    is_table = "┏" in shown
    assert is_table == (width > 100)
    for word in ("propagated", "quantization", *(["unevenness"] if is_table else [])):
        assert word in shown
    assert "0123456789abcdef" * 4 in re.sub(r"[\s│]", "", shown)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "program", [random_program(3), branched_program(5)], ids=["chain", "graph"]
)
def test_inspect_breaks_no_number(program, width, tmp_path):
    write_net(program, tmp_path / "net.net")
    shown = on_terminal(width, "-m", "toolchain.cli", "inspect", "net.net", cwd=tmp_path)
    table = plain(shown)
    report = json.loads(ok("inspect", "net.net", "--json", cwd=tmp_path).stdout)
    assert "…" not in table
    for layer in report["layers"]:
        assert layer["name"] in table
        low, high = layer["state_bound"]
        assert f"{low} .. {high}" in table
        assert "x".join(str(size) for size in layer["shape"]) in table
    drawn = [line for line in table.split("\n") if line[:1] in "┏┃┡│└"]
    assert all(len(line) <= width for line in drawn)


@pytest.mark.parametrize("width", [60, 80])
def test_bars_keep_their_numbers(width):
    shown = on_terminal(width, "-c", PROGRESS)
    counts = re.findall(r"\b(\d+)/7654321 (-:--:--|\d+:\d\d:\d\d|\d+ days?)", plain(shown))
    assert len(counts) >= 5
    assert {int(done) for done, _ in counts} <= set(range(123400, 123420))
    assert "audit: a" in shown
    # The bar vanishes: its lines are erased behind its last picture.
    assert ERASED in shown[shown.rindex("/7654321") :]
