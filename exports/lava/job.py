"""A Lava run as a folder: its input files, its output files, and their removal.

job.json      settings, see `Job`
inputs.npy    graded input spikes in Lava's axis order
net.net       the program
record-*.npz  records of the populations, each of a chunk of samples
progress      one byte per finished sample
group         process id of the interpreter that leads the run's process group, while it runs
processes     ids of the Lava processes, one per line, as they are started
error-*.json  failures, see `Failure`
reserve       space for a failure report if the disk is full
log.txt       output of the interpreter and of Lava
ran           written when all steps have run; Lava's processes may end from then on
done          written last
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from exports.lava.failure import Failure
from exports.lava.models import LavaModels
from exports.lava.resources import SHARED_MEMORY

RESERVED = 1 << 16
"""Size of the file `reserve`, in bytes."""
TIMED_OUT, STOPPED, PROCESS_FAILED = 124, 130, 3
"""Exit statuses of the supervisor, besides those of the interpreter."""
GO = b"g"
"""What the caller sends to the supervisor when the job's files are there."""


@dataclass(frozen=True)
class Plan:
    """Settings that do not depend on the samples.

    Attributes
    ----------
    mode:
        Detail of the recording, see `toolchain.recording.Mode`.
    cuts:
        Indices of the populations that begin a new block.
    chunk:
        Number of samples of a record.
    """

    mode: str
    models: LavaModels
    cuts: tuple[int, ...]
    chunk: int


@dataclass(frozen=True)
class Job:
    """Settings of one run.

    Attributes
    ----------
    token:
        Unique name, part of the names of the run's shared memory segments.
    time_limit:
        Time limit of the run, in seconds.
    """

    folder: str
    token: str
    num_samples: int
    time_limit: float
    plan: Plan

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return Path(self.folder)

    @property
    def net(self) -> Path:
        """The program as a `.net` file."""
        return self.path / "net.net"

    @property
    def inputs(self) -> Path:
        """Graded input spikes, a `.npy` file."""
        return self.path / "inputs.npy"

    @property
    def log(self) -> Path:
        """Output of the interpreter and of Lava."""
        return self.path / "log.txt"

    @property
    def done(self) -> Path:
        """Path of the file that marks success."""
        return self.path / "done"

    @property
    def ran(self) -> Path:
        """File that marks that all steps have run."""
        return self.path / "ran"

    @property
    def group(self) -> Path:
        """File with the id of the process group."""
        return self.path / "group"

    @property
    def shared_memory_prefix(self) -> str:
        """Prefix of the names of this run's shared memory segments."""
        return f"spikeport_{self.token}_"

    @property
    def processes(self) -> Path:
        """File with the ids of the Lava processes."""
        return self.path / "processes"

    @property
    def num_chunks(self) -> int:
        """Number of records of each population."""
        return -(-self.num_samples // self.plan.chunk)

    def record(self, index: int, chunk: int) -> Path:
        """Record file of a chunk of the population with this index."""
        return self.path / f"record-{index}-{chunk}.npz"

    @property
    def progress(self) -> Path:
        """File whose length is the number of finished samples."""
        return self.path / "progress"

    @property
    def reserve(self) -> Path:
        """File that reserves space for a failure report."""
        return self.path / "reserve"

    def report(self, failure: Failure) -> None:
        """Write a failure report, which is complete as soon as it has its name."""
        self.reserve.unlink(missing_ok=True)
        partial = self.path / f"partial-{os.getpid()}"
        partial.write_text(failure.to_json())
        partial.rename(self.path / f"error-{os.getpid()}.json")

    def errors(self) -> list[Path]:
        """Paths of the failure reports that are written to their end."""
        return sorted(self.path.glob("error-*.json"))

    def save(self) -> None:
        """Write `job.json`, and create the reserve."""
        (self.path / "job.json").write_text(json.dumps(asdict(self)))
        self.reserve.write_bytes(bytes(RESERVED))

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read the settings in `job.json`."""
        values = json.loads((folder / "job.json").read_text())
        plan = values.pop("plan")
        models = LavaModels(**plan["models"])
        return cls(**values, plan=Plan(plan["mode"], models, tuple(plan["cuts"]), plan["chunk"]))


def leave_nothing(job: Job, group: int | None = None) -> None:
    """End the run's process group and remove its shared memory; safe to call at any time.

    `group` is its id, if it is known without the job's file.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        group = group or int(job.group.read_text())
        deadline = time.monotonic() + 10.0
        while _kill_group(group) and time.monotonic() < deadline:
            time.sleep(0.02)
    for segment in SHARED_MEMORY.glob(f"{job.shared_memory_prefix}*"):
        segment.unlink(missing_ok=True)


def _kill_group(group: int) -> bool:
    """Send SIGKILL to a process group; False once no process of it is running."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return _group_is_alive(group)


def lost_process(job: Job) -> str | None:
    """Describe a Lava process that has ended too early; None if all are running."""
    if job.ran.is_file() or not job.processes.is_file():
        return None
    # A line that is still being written is read the next time.
    started = job.processes.read_text().rpartition("\n")[0].split()
    for pid in started:
        fields = _stat_fields(Path("/proc") / pid)
        if fields is None or fields[0] in "ZX":
            # The process may have ended because the run is finished.
            return None if job.ran.is_file() else f"Lava process {pid} ended{_how(fields)}"
    return None


def _how(fields: list[str] | None) -> str:
    """How a process ended, if its parent has not asked yet and the kernel still knows."""
    if fields is None:
        return ""
    status = int(fields[49])
    killed = status & 0x7F
    return f" by signal {killed}" if killed else f" with exit code {status >> 8}"


def _stat_fields(process: Path) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on (proc(5)); None if there is no such process."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _group_is_alive(group: int) -> bool:
    """Whether any process of the group is running and no zombie."""
    for entry in Path("/proc").iterdir():
        fields = _stat_fields(entry) if entry.name.isdigit() else None
        if fields is not None and int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False
