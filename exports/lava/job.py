"""A Lava run as a folder: what goes in, what comes out, and how to clean up after it.

job.json      settings, see `Job`
inputs.npy    graded input spikes in Lava's axis order
net.net       the program
record-*.npz  what the populations leave behind
progress      a byte for each sample that is done
digests.npz   digests of the samples before, `digestN` of the population N
group         process id of the interpreter that leads the run's process group, while it runs
processes     ids of the Lava processes, one per line, as they are started
error-*.json  what failed, see `Failure`
reserve       makes room for that where the disk is full
log.txt       what the interpreter and Lava printed
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
"""Bytes of the file `reserve`."""
TIMED_OUT, STOPPED, PROCESS_FAILED = 124, 130, 3
"""Exit statuses of the supervisor, beside the interpreter's own."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, whatever the samples.

    Attributes
    ----------
    mode:
        How much to record, see `toolchain.recording.Mode`.
    cuts:
        Indices of the populations that begin a further block.
    """

    mode: str
    models: LavaModels
    cuts: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """Settings of one run.

    Attributes
    ----------
    token:
        Unique; names the run's shared memory segments, so that they can be found again.
    time_limit:
        Seconds from start to end.
    """

    folder: str
    token: str
    num_samples: int
    time_limit: float
    plan: Plan

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def net(self) -> Path:
        """The program as a `.net` file."""
        return self.path / "net.net"

    @property
    def inputs(self) -> Path:
        """Graded input spikes, `.npy`."""
        return self.path / "inputs.npy"

    @property
    def log(self) -> Path:
        """What was printed."""
        return self.path / "log.txt"

    @property
    def done(self) -> Path:
        """Marks success."""
        return self.path / "done"

    @property
    def ran(self) -> Path:
        """Marks that all steps have run."""
        return self.path / "ran"

    @property
    def group(self) -> Path:
        """Holds the id of the process group."""
        return self.path / "group"

    @property
    def shared_memory_prefix(self) -> str:
        """Start of the names of this run's shared memory segments."""
        return f"spikeport_{self.token}_"

    @property
    def processes(self) -> Path:
        """Holds the ids of the Lava processes."""
        return self.path / "processes"

    def record(self, index: int) -> Path:
        """Record of the population with this index."""
        return self.path / f"record-{index}.npz"

    @property
    def progress(self) -> Path:
        """As long as there are samples done."""
        return self.path / "progress"

    @property
    def digests(self) -> Path:
        """Digests of the samples before; missing if there are none."""
        return self.path / "digests.npz"

    @property
    def reserve(self) -> Path:
        """Takes up space that a report may need."""
        return self.path / "reserve"

    def report(self, failure: Failure) -> None:
        """Leave what failed, complete from the moment it has its name."""
        self.reserve.unlink(missing_ok=True)
        partial = self.path / f"partial-{os.getpid()}"
        partial.write_text(failure.to_json())
        partial.rename(self.path / f"error-{os.getpid()}.json")

    def errors(self) -> list[Path]:
        """What failed, complete reports only."""
        return sorted(self.path.glob("error-*.json"))

    def save(self) -> None:
        """Write `job.json`, and take up the reserve."""
        (self.path / "job.json").write_text(json.dumps(asdict(self)))
        self.reserve.write_bytes(bytes(RESERVED))

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read `job.json`."""
        values = json.loads((folder / "job.json").read_text())
        plan = values.pop("plan")
        models = LavaModels(**plan["models"])
        return cls(**values, plan=Plan(plan["mode"], models, tuple(plan["cuts"])))


def leave_nothing(job: Job, group: int | None = None) -> None:
    """End the run's process group and remove its shared memory; safe to call at any time.

    `group` is its id, where that is known without the job's file.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        group = group or int(job.group.read_text())
        deadline = time.monotonic() + 10.0
        while _kill_group(group) and time.monotonic() < deadline:
            time.sleep(0.02)
    for segment in SHARED_MEMORY.glob(f"{job.shared_memory_prefix}*"):
        segment.unlink(missing_ok=True)


def _kill_group(group: int) -> bool:
    """Send SIGKILL to a process group; False once none of it is left running."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return _group_is_alive(group)


def lost_process(job: Job) -> str | None:
    """Describe a Lava process that has ended while the run needs it; None if all are there."""
    if job.ran.is_file() or not job.processes.is_file():
        return None
    # A line that is still being written is left for the next look.
    started = job.processes.read_text().rpartition("\n")[0].split()
    for pid in started:
        fields = _stat_fields(Path("/proc") / pid)
        if fields is None or fields[0] in "ZX":
            # It may have ended because the run is over.
            return None if job.ran.is_file() else f"Lava process {pid} ended{_how(fields)}"
    return None


def _how(fields: list[str] | None) -> str:
    """How a process ended, where its parent has not asked yet and the kernel still knows."""
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
    """Whether any process of the group is more than a zombie."""
    for entry in Path("/proc").iterdir():
        fields = _stat_fields(entry) if entry.name.isdigit() else None
        if fields is not None and int(fields[2]) == group and fields[0] not in "ZX":
            return True
    return False
