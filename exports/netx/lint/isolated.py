"""Lint in a separate process, with bounded memory and time.

The HDF5 library crashes on some damaged files, and a few bytes can request any amount of
memory. The end of the worker is a finding, not the end of the caller.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from exports.hdf5.missing import check_is_file
from exports.netx.lint.findings import Finding, Findings
from hw_models.profile import Profile, load_profile
from toolchain.errors import BackendRunError

MEMORY = 1 << 30
"""Bytes of address space for any file."""
MEMORY_FOR_A_BYTE = 64
"""Additional bytes for each byte of the file: int8 weights are read as int64, bounds need
temporaries."""
SECONDS = 20.0
SECONDS_FOR_A_MEGABYTE = 0.5


class Worker:
    """A process that checks files one after the other, and is restarted when a file ends it."""

    def __init__(self, profile: str | None = None) -> None:
        self._profile = profile
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def lint(self, path: Path) -> Findings:
        """All findings of one file.

        Raises
        ------
        FormatError
            If there is no such file.
        BackendRunError
            If lint itself fails, which is a bug.
        """
        check_is_file(path)
        size = path.stat().st_size
        seconds = SECONDS + SECONDS_FOR_A_MEGABYTE * size / 1e6
        answer = self._ask({"path": str(path.resolve()), "memory": _memory(size)}, seconds)
        findings = Findings(str(path))
        if isinstance(answer, str):
            findings.add("crash", "/", answer)
            return findings
        if "failed" in answer:
            raise BackendRunError(
                "lint failed on this file",
                node=str(path),
                found=answer["failed"],
                remedy="please report it, with the file",
            )
        findings.kind = answer["kind"]
        findings.found = [Finding(*one) for one in answer["found"]]
        return findings

    def _ask(self, question: dict[str, object], seconds: float) -> dict[str, Any] | str:
        """The worker's answer, or how the worker ended."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return f"the process ended with {self._stop()}"
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if ready else b""
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        ended = f"no answer in {seconds:.0f} s" if not ready else ""
        code = self._stop()
        return ended or f"the process ended with {code}"

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", __spec__.name, *filter(None, [self._profile])]
        root = Path(__file__).resolve().parents[3]
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
        with suppress(BrokenPipeError):
            process.communicate()
        return process.returncode


def _memory(size: int) -> int:
    return MEMORY + MEMORY_FOR_A_BYTE * size


def lint_file(path: Path | str, profile: str | None = None) -> Findings:
    """All findings of the file at `path`, checked in a separate process.

    Parameters
    ----------
    profile:
        Target whose limits the program is also compared with.

    Raises
    ------
    FormatError
        If there is no such file.
    TargetError
        If there is no such profile.
    """
    if profile is not None:
        load_profile(profile)
    with Worker(profile) as worker:
        return worker.lint(Path(path))


def serve(profile: Profile | None) -> None:
    """Answer one request per line until the input ends."""
    from exports.netx.lint.check_file import look_at

    for line in sys.stdin:
        question = json.loads(line)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + question["memory"], hard))
        try:
            findings = look_at(Path(question["path"]), profile)
            found = [(f.rule_id, f.where, f.found, f.own_remedy) for f in findings.found]
            answer = {"kind": findings.kind, "found": found}
        except MemoryError:
            place = f"needs more than {question['memory']:,} bytes"
            answer = {"kind": "unknown", "found": [("crash", "/", place)]}
        except Exception:  # noqa: BLE001 (a bug; the caller raises it)
            answer = {"failed": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(load_profile(sys.argv[1]) if len(sys.argv) > 1 else None)
