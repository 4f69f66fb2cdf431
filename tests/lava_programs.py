"""Programs that import Lava, each in a process of its own.

Lava's import changes the process. A program's process is forked from one that has imported Lava and
lava-dl's loader, with torch, already: these imports take longer than most of the programs.
"""

import atexit
import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.command_line import ROOT

SECONDS = 300
_SERVER = f"""
import json, os, sys
from multiprocessing import Process
from hw_models.lava_compat import import_stock_netx
import_stock_netx()
import exports.network, hw_models.run_config, lava.proc.conv.models, lava.proc.io.sink
hw_models.run_config.load_kernels()

def become(code, arguments, *streams):
    for number, name in enumerate((os.devnull, *streams)):
        os.dup2(os.open(name, os.O_RDWR), number)
    sys.argv = ["-c", *arguments]
    exec(code, {{"__name__": "__main__"}})

for line in sys.stdin:
    process = Process(target=become, args=json.loads(line))
    process.start()
    process.join({SECONDS})
    process.kill()
    process.join()
    print(process.exitcode, flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    command, pipe = [sys.executable, "-c", _SERVER], subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
    atexit.register(server.communicate)
    return server


def run_program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `python -c code arguments` gives, in the folder of the project."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("out", "err")]
        for stream in streams:
            stream.touch()
        print(json.dumps([code, arguments, *map(str, streams)]), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, *(s.read_text() for s in streams))
