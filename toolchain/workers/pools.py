"""The three kinds of workers: this process, several processes, the workers of a Dask scheduler."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import BackendRunError, SpikeportError, UsageError
from toolchain.progress import Progress
from toolchain.workers.process import WorkerProcess
from toolchain.workers.work import Work

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
"""Time in which a scheduler must answer and have a worker."""
PARTS_OF_A_WORKER, SMALL_PART = 4, 16
"""Parts per worker, so that workers end at about the same time, and the fewest samples of a part.

Lava's fast models take 16 samples together, and each part starts Lava anew.
"""
PART_BYTES = 4 << 20
"""Most input spikes of a part, in bytes as they travel, if that is more than one sample."""
LOST_SECONDS = 60
"""Time in which a cluster whose workers have all gone must have one again."""
LOOK_SECONDS, POLL_SECONDS = 1.0, 0.01
"""Time from one look at the cluster's workers, and at the finished parts, to the next."""
WAITING = 2
"""Parts at a time for each worker of a cluster: one that it computes, one that travels."""


class Workers:
    """The work of this process, which takes all samples as one part; the base of the others.

    Attributes
    ----------
    is_here:
        Whether all work is done in this process.
    """

    is_here = True

    def split(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Consecutive parts of graded input spikes, int (N, ...)."""
        return [inputs]

    def each(
        self, work: Work, parts: Sequence[Any], progress: Progress | None = None
    ) -> Iterator[tuple[int, Any]]:
        """The results of all parts with their indices, in any order.

        Parameters
        ----------
        progress:
            Called by the function itself where it runs in this process; else by the caller.

        Raises
        ------
        SpikeportError
            What the function raises.
        BackendRunError
            If the workers of a part die, or it fails otherwise outside this process.
        """
        for index, part in enumerate(parts):
            yield index, work(part, progress)

    def over_samples(
        self, work: Work, inputs: np.ndarray, progress: Progress | None = None
    ) -> list[Any]:
        """The results of consecutive parts of graded input spikes, int (N, ...), in their order."""
        parts, wide, done = self.split(inputs), Work(_widened, (work, inputs.dtype)), 0
        results: list[Any] = [None] * len(parts)
        for index, result in self.each(wide, parts, progress):
            results[index] = result
            done += len(parts[index])
            if progress and not self.is_here:
                progress(done, len(inputs))
        return results


def _widened(
    shared: tuple[Work, np.dtype[Any]], part: np.ndarray, progress: Progress | None
) -> Any:
    work, dtype = shared
    return work(part.astype(dtype, copy=False), progress)


class Several(Workers, ABC):
    """Workers outside this process."""

    is_here = False

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of parts that are computed at the same time."""

    def split(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Parts that all workers share, in the narrowest type that has all their values."""
        ends = [np.min_scalar_type(int(end)) for end in (inputs.min(), inputs.max())]
        narrow = np.result_type(*ends)
        of_size = -(-inputs.size * narrow.itemsize // PART_BYTES)
        balanced = min(PARTS_OF_A_WORKER * self.count, len(inputs) // SMALL_PART)
        number = min(len(inputs), max(self.count, balanced, of_size))
        return [part.astype(narrow) for part in np.array_split(inputs, number)]


class Processes(Several):
    """Processes of this machine, of one thread each."""

    def __init__(self, jobs: int) -> None:
        self._processes = [WorkerProcess() for _ in range(jobs)]

    @property
    def count(self) -> int:
        """Number of processes."""
        return len(self._processes)

    def each(
        self, work: Work, parts: Sequence[Any], progress: Progress | None = None
    ) -> Iterator[tuple[int, Any]]:
        """See `Workers.each`."""
        idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        for process in self._processes:
            idle.put(process)
        packed = pickle.dumps(work)

        def compute(numbered: tuple[int, Any]) -> tuple[int, Any]:
            index, part = numbered
            process = idle.get()
            try:
                return index, process.compute(packed, part)
            except SpikeportError:
                raise
            except Exception as error:
                raise _failure(index, len(parts), error) from error
            finally:
                idle.put(process)

        with ThreadPool(self.count) as pool:
            yield from pool.imap_unordered(compute, enumerate(parts))

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.close()


class Cluster(Several):
    """The workers of a Dask scheduler."""

    def __init__(self, client: Client, address: str) -> None:
        self._client, self._address = client, address

    @property
    def count(self) -> int:
        """Number of threads of all workers, which may come and go."""
        return max(1, sum(self._client.nthreads().values()))

    def each(
        self, work: Work, parts: Sequence[Any], progress: Progress | None = None
    ) -> Iterator[tuple[int, Any]]:
        """See `Workers.each`.

        The scheduler has the work, and makes it again where the workers that had it died. It has
        `WAITING` parts for each worker, not all of them.
        """
        import dask
        from distributed import as_completed

        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            there = self._client.submit(pickle.loads, pickle.dumps(work))
            waiting, numbers = iter(enumerate(parts)), dict[Any, int]()
            # Its default is the loop of the newest client of this process, which may be another.
            running = as_completed(loop=self._client.loop)

            def fill() -> None:
                free = max(0, WAITING * self.count - running.count())
                for index, part in islice(waiting, free):
                    future = self._client.submit(_computed, there, part, pure=False)
                    numbers[future.key] = index
                    running.add(future)

            fill()
            for future in self._finished(running):
                index = numbers.pop(future.key)
                try:
                    result = future.result()
                except SpikeportError:
                    raise
                except Exception as error:
                    raise _failure(index, len(parts), error) from error
                fill()
                yield index, result

    def _finished(self, running: Any) -> Iterator[Any]:
        """Futures of `running` as they finish.

        Raises
        ------
        BackendRunError
            If there is no worker for `LOST_SECONDS`: Dask itself waits without end.
        """
        while running.count():
            looked = seen = monotonic()
            while not running.has_ready():
                sleep(POLL_SECONDS)
                now = monotonic()
                if now - looked < LOOK_SECONDS:
                    continue
                looked = now
                if self._client.nthreads():
                    seen = now
                elif now - seen > LOST_SECONDS:
                    raise BackendRunError(
                        "all workers of the cluster are gone",
                        node=self._address,
                        found=f"none for {LOST_SECONDS} s",
                        remedy="dask worker ADDRESS starts one; look at their logs: a worker that "
                        "runs out of memory is killed",
                    )
            yield next(running)


def _computed(work: Work, part: Any) -> Any:
    return work(part)


def _failure(index: int, total: int, error: Exception) -> BackendRunError:
    """What an error of another kind than this project's becomes, with how to go on."""
    told = str(error).splitlines() or [""]
    return BackendRunError(
        "a part of the work failed on a worker",
        node=f"part {index + 1} of {total}",
        found=f"{type(error).__name__}: {told[0]}",
        remedy="every worker needs spikeport and the packages of this process, in the same "
        "versions, and memory for the part",
    )


@contextmanager
def open_workers(jobs: int = 1, scheduler: str | None = None) -> Iterator[Workers]:
    """Workers: this process, `jobs` processes of this machine, or those of a Dask scheduler.

    Raises
    ------
    UsageError
        If `jobs` is less than 1, or both are given.
    BackendRunError
        If the scheduler does not answer, or has no worker, within `CONNECT_SECONDS`.
    """
    if jobs < 1:
        raise UsageError("no number of processes", found=f"jobs={jobs}", allowed=">= 1")
    if jobs > 1 and scheduler is not None:
        raise UsageError("jobs= and scheduler= exclude each other", remedy="leave out one of them")
    with ExitStack() as stack:
        if scheduler is not None:
            yield Cluster(stack.enter_context(_client(scheduler)), scheduler)
        elif jobs > 1:
            yield stack.enter_context(closing(Processes(jobs)))
        else:
            yield Workers()


def _client(scheduler: str) -> Client:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise BackendRunError(
            "the scheduler does not answer",
            node=scheduler,
            found=str(error).splitlines()[0],
            remedy="dask scheduler starts one, dask worker ADDRESS workers; leave out scheduler= "
            "to run here",
        ) from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        client.close()
        raise BackendRunError(
            "the scheduler has no workers",
            node=scheduler,
            remedy="dask worker ADDRESS starts one",
        ) from error
    return client
