"""Runs of a program on Lava in a fresh interpreter, with a recording as the result.

Samples follow each other without a pause, and are recorded chunk by chunk.

No Lava process, shared memory segment or temporary file outlives a call, whether it ends in
success, an exception in a model, a time-out, Ctrl-C, or SIGKILL of the caller.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from exports.lava.axes import to_lava
from exports.lava.chip_blocks import ChipBlocks
from exports.lava.failure import CHECK, Failure
from exports.lava.job import GO, TIMED_OUT, Job, Plan, leave_nothing
from exports.lava.models import ATRLIF, FIXED_PT, STOCK, LavaModels
from exports.lava.partition import even_cuts
from exports.lava.process_recorder import read_record
from exports.lava.resources import remedy_for
from exports.netx import write_net
from hw_models import lava_compat
from hw_models.stock.atrlif_limits import check_atrlif
from hw_models.stock.limits import check_runnable
from toolchain.canonical import content_hash
from toolchain.errors import BackendRunError
from toolchain.program.int_program import IntProgram
from toolchain.progress import Progress
from toolchain.recording import LayerRecord, Mode, Recording, build, join
from toolchain.recording.parts import PROGRAM, Parts
from toolchain.recording.recording import RECORDING_VERSION

_log = logging.getLogger(__name__)
BACKEND = "lava"
CHUNK_BYTES = 1 << 30
"""Bytes of the inputs and records of a chunk of samples; each chunk is recorded by itself."""
CHUNK_SAMPLES = 256
"""Most samples of a chunk: a crash loses those of unfinished chunks only, if parts are stored."""
INPUT_BYTES = 1 << 28
"""Bytes of the inputs of an interpreter; more chunks are run in several."""
POLL_SECONDS = 0.1


def run_on_lava(
    program: IntProgram,
    inputs: np.ndarray,
    *,
    models: LavaModels = STOCK,
    mode: Mode = Mode.FULL,
    labels: np.ndarray | None = None,
    time_limit: float = 600.0,
    progress: Progress | None = None,
    parts: Path | None = None,
    resume: bool = False,
) -> Recording:
    """Run `program` on graded spikes `inputs`, int (N, *sample_shape), sample after sample.

    Parameters
    ----------
    models:
        Stock synapses or the fast models, own neurons or stock ones: all give the same bits.
    time_limit:
        Time limit of the whole call, in seconds.
    progress:
        Called with the samples done and the samples in all.
    parts:
        Folder that contains the finished chunks of samples until the recording is written.
    resume:
        Continue with the chunks in `parts` of an interrupted run with the same settings.

    Raises
    ------
    RecordingError
        If the parts to continue with are of another run, or damaged.
    BackendRunError
        If a model failed (with its traceback), a process died, or the time limit passed.
    MissingDependencyError
        If lava-nc is missing or of an unknown version.
    TargetError
        If stock Lava synapses or neurons would change a result.
    ProgramError, ValueRangeError
        If the inputs do not fit the program, or a value is out of range.
    """
    lava_compat.require_lava()
    if models.tag == FIXED_PT:
        check_runnable(program)
    if models.neurons == ATRLIF:
        check_atrlif(program, watch=models.watch_ranges)
    if isinstance(models.blocks, ChipBlocks):
        cuts = models.blocks.cuts(program)
        models = replace(models, blocks=len(cuts) + 1)
    else:
        cuts = even_cuts(program, models.blocks)
    program.check_inputs(inputs)
    deadline = time.monotonic() + time_limit
    each = _sample_bytes(program, mode) + 4 * prod(program.sample_shape)
    samples = min(CHUNK_SAMPLES, CHUNK_BYTES // each)
    chunk = max(1, samples // models.batch) * models.batch
    plan = Plan(mode.value, models, cuts, chunk)
    repairs = lava_compat.needed_repairs()
    _log.debug("%s: chunks of %d samples, %s", program.name, chunk, models)
    _log.debug("repairs of Lava: %s", ", ".join(repairs) or "none")
    kept = None
    if parts is not None:
        kept = Parts(parts, _identity(program, inputs, models, mode, chunk), resume=resume)
    made_by = {
        "backend": BACKEND,
        "versions": {"lava-nc": lava_compat.LAVA_NC, "numpy": np.__version__},
        "repairs": list(repairs),
        "models": asdict(models),
    }
    recordings = []
    limits = (deadline, time_limit)
    with closing(_chunks(program, inputs, plan, kept, limits, progress)) as chunks:
        for where, records in chunks:
            known = None if labels is None else labels[where]
            recordings.append(build(program, mode, inputs[where], records, known, made_by))
    return join(recordings)


def _chunks(
    program: IntProgram,
    inputs: np.ndarray,
    plan: Plan,
    kept: Parts | None,
    limits: tuple[float, float],
    progress: Progress | None,
) -> Generator[tuple[slice, dict[str, LayerRecord]], None, None]:
    """The records of all chunks in order, each kept or run; neighbours run in one interpreter."""
    number, total, chunk = 0, -(-len(inputs) // plan.chunk), plan.chunk
    narrow = np.result_type(*(np.min_scalar_type(int(e)) for e in (inputs.min(), inputs.max())))
    together = max(1, INPUT_BYTES // (inputs[0].size * narrow.itemsize * chunk))
    while number < total:
        where = slice(number * chunk, (number + 1) * chunk)
        records = kept.load(number) if kept else None
        if records is not None:
            yield where, records
            number += 1
            continue
        end = number + 1
        while end < min(total, number + together) and not (kept and kept.has(end)):
            end += 1

        def report(done: int, start: int = where.start) -> None:
            if progress:
                progress(start + done, len(inputs))

        part = inputs[where.start : end * chunk].astype(narrow)
        with closing(_run(program, part, plan, limits, report)) as found:
            for records in found:
                if kept:
                    kept.save(number, records)
                yield slice(number * chunk, (number + 1) * chunk), records
                number += 1


def _identity(
    program: IntProgram, inputs: np.ndarray, models: LavaModels, mode: Mode, chunk: int
) -> dict[str, Any]:
    """All settings that decide the content of a chunk."""
    return {
        PROGRAM: program.hash,
        "inputs": content_hash({}, {"inputs": inputs}),
        "models": asdict(models),
        "mode": mode.value,
        "chunk": chunk,
        "recording_version": RECORDING_VERSION,
    }


def _sample_bytes(program: IntProgram, mode: Mode) -> int:
    """Estimated memory of a Lava run's records per sample, in bytes."""
    neurons = sum(prod(p.shape) for p in program.populations)
    if mode is Mode.FULL:
        return neurons * (5 * program.schedule.num_steps + 4)
    if mode is Mode.EVENTS:
        return neurons * 16 * program.schedule.num_steps
    outputs = sum(prod(p.shape) for p in program.readouts)
    return neurons * 4 if mode is Mode.COUNTS else 8 * outputs


@contextmanager
def _job(num_samples: int, time_limit: float, plan: Plan) -> Iterator[Job]:
    with _setting_up():
        folder = Path(tempfile.mkdtemp(prefix="spikeport-lava-"))
    job = Job(str(folder), secrets.token_hex(4), num_samples, time_limit, plan)
    try:
        yield job
    finally:
        leave_nothing(job)
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    program: IntProgram,
    inputs: np.ndarray,
    plan: Plan,
    limits: tuple[float, float],
    report: Callable[[int], None],
) -> Generator[dict[str, LayerRecord], None, None]:
    """Run all of `inputs` in one interpreter; yields the records of each chunk when it is done."""
    deadline, time_limit = limits
    with (
        _job(len(inputs), max(deadline - time.monotonic(), 0.0), plan) as job,
        _supervisor(job) as supervisor,
    ):
        with _setting_up():
            job.save()
            write_net(program, job.net)
            np.save(job.inputs, to_lava(inputs, program.input.channel_axis))
        assert supervisor.stdin is not None
        # A supervisor that has ended has said why in its log.
        with suppress(BrokenPipeError):
            os.write(supervisor.stdin.fileno(), GO)
        number, status = 0, None
        while status is None:
            with suppress(subprocess.TimeoutExpired):
                status = supervisor.wait(timeout=POLL_SECONDS)
            report(job.progress.stat().st_size if job.progress.is_file() else 0)
            while number < job.num_chunks and _is_complete(job, program, number):
                yield _read_records(job, program, number)
                number += 1
        if status != 0 or not job.done.is_file():
            raise _failure(job, status, time_limit)
        if number < job.num_chunks:
            _read_records(job, program, number)
        report(len(inputs))


@contextmanager
def _supervisor(job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """The running supervisor, which is stopped by closing its pipe at the end of the block.

    It waits for `GO` before it reads the job, and removes the job's folder if this process ends
    before.
    """
    with _setting_up(), job.log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "exports.lava.supervisor", job.folder],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_environment(),
        )
    assert supervisor.stdin is not None
    try:
        yield supervisor
    finally:
        supervisor.stdin.close()
        supervisor.wait()


def _environment() -> dict[str, str]:
    """Environment with one BLAS thread per Lava process, one heap, and this project importable.

    Otherwise each of the many threads takes 64 MB of address space for its own heap, as long as the
    limit allows, and the last threads may have no space for their stacks.
    """
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "MALLOC_ARENA_MAX": "1", "PYTHONPATH": path}


def _failure(job: Job, status: int, time_limit: float) -> BackendRunError:
    log = job.log.read_text(errors="replace").rstrip()
    if status == TIMED_OUT:
        return BackendRunError(
            f"the Lava run did not end within {time_limit:g} s and was stopped",
            node="lava",
            found=log.rpartition("\n")[2] or None,
            remedy="fewer samples, or a larger time_limit=",
        )
    reports = job.errors()
    if reports:
        return Failure.from_json(reports[0].read_text()).error()
    told = f"status {status}: {log}" if log else f"status {status}"
    return Failure.of_text("the Lava run ended early", told).error()


@contextmanager
def _setting_up() -> Iterator[None]:
    """Turn errors of the system in this block, such as a full disk, into BackendRunError."""
    try:
        yield
    except OSError as error:
        raise BackendRunError(
            "the Lava run could not be set up",
            node="lava",
            found=str(error),
            allowed="a folder for temporary files (TMPDIR) with room in it, and another process",
            remedy=remedy_for(str(error)) or CHECK,
        ) from error


def _is_complete(job: Job, program: IntProgram, chunk: int) -> bool:
    return all(job.record(i, chunk).is_file() for i in range(len(program.populations)))


def _read_records(job: Job, program: IntProgram, chunk: int) -> dict[str, LayerRecord]:
    """The records of a chunk, whose files are then removed."""
    records = {}
    for index, population in enumerate(program.populations):
        path = job.record(index, chunk)
        try:
            records[population.name] = read_record(path)
        except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
            raise BackendRunError(
                "a population did not run all its steps", node=population.name, found=str(error)
            ) from error
        path.unlink()
    return records
