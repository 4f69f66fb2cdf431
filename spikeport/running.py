"""`run`: an integer program over samples, on any backend."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spikeport.backends import Backend, Lava, Reference, open_backend
from spikeport.files import as_program
from spikeport.samples import Data, has_boxes, open_samples
from toolchain.errors import UsageError
from toolchain.learning.data import BoxDataset, Dataset, Samples, input_spikes
from toolchain.learning.data.torch_data import with_labels
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.program.int_program import IntProgram
from toolchain.progress import Progress
from toolchain.recording import Mode, Recording, join
from toolchain.workers import Work, Workers, open_workers

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import ArrayLike

    from toolchain.conversion.pipeline import Conversion


def run(
    program: IntProgram | Conversion | str | Path,
    samples: Data,
    *,
    labels: ArrayLike | None = None,
    backend: str | Backend = "reference",
    record: str = "full",
    jobs: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Recording:
    """Run an integer program on samples and record every layer.

    The recording is the same to the byte, however many workers share the samples.

    Parameters
    ----------
    program:
        A result of `convert` or `load`, or a `.net` file.
    samples:
        A data source ("digits@test[:40]"), an array or tensor (N, ...) of real values or uint8
        pixels, a torch Dataset or DataLoader.
    labels:
        Classes, int (N,), if the samples have none.
    backend:
        "reference", "lava" or the name of another backend; or a backend object, such as
        `Lava("fast")`.
    record:
        Detail of the recording: "full", "counts", "digest" or "events".
    jobs:
        Number of processes of this machine that share the samples, of one thread each; 1 for this
        process, with all its threads.
    scheduler:
        Address of a Dask scheduler, whose workers share the samples. Program and samples are sent
        to them; they need no file, but spikeport, torch and NumPy in the versions of this process.
    progress:
        Called with the samples done and the samples in all.
    options:
        Options of the backend, see `Reference` and `Lava`; limits of memory and time are those of
        each worker.

    Raises
    ------
    SpikeportError
        If the samples do not fit the program, the backend cannot run it, the scheduler does not
        answer, or the workers of one part of the samples die again and again.
    """
    chosen = open_backend(backend, **options)
    loaded = as_program(program)
    data = open_for(loaded, samples)
    if labels is not None:
        if isinstance(data, BoxDataset | Dataset):
            raise UsageError("the samples have labels already", found=data.name)
        data = with_labels(data, labels)
    with open_workers(jobs, scheduler) as workers:
        return run_data(loaded, data, chosen, record, progress, workers)


def run_data(
    program: IntProgram,
    data: Samples,
    backend: Backend,
    record: str,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Recording:
    """Run a program as `run` does, with data, backend and workers already open."""
    inputs = input_spikes(program.input, data)
    recording = run_inputs(program, inputs, backend, _mode(record), progress, workers)
    recording.meta["data"] = data.name
    return replace(recording, labels=data.labels) if isinstance(data, Dataset) else recording


def run_inputs(
    program: IntProgram,
    inputs: np.ndarray,
    backend: Backend,
    mode: Mode,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Recording:
    """Run a program on graded input spikes, int (N, ...), that workers share.

    Raises
    ------
    UsageError
        If several workers are to store finished samples in one folder.
    """
    workers = workers or Workers()
    if isinstance(backend, Reference):
        backend = backend.chosen(program, len(inputs))
    if isinstance(backend, Lava) and (backend.parts or backend.resume) and not workers.is_here:
        raise UsageError(
            "a run that can be resumed keeps the finished samples of one process",
            remedy="leave out resume=, or jobs= and scheduler=",
        )
    work = Work(_run_part, (program, backend, mode))
    return join(workers.over_samples(work, inputs, progress))


def _run_part(
    shared: tuple[IntProgram, Backend, Mode], inputs: np.ndarray, progress: Progress | None
) -> Recording:
    program, backend, mode = shared
    return backend.run(program, inputs, mode=mode, progress=progress)


def _mode(record: str) -> Mode:
    names = [mode.value for mode in Mode]
    if record not in names:
        raise UsageError("no such way to record", found=record, allowed=", ".join(names))
    return Mode(record)


def open_for(program: IntProgram, data: Data) -> Samples:
    """`data`, with images that have boxes scaled to the program's input.

    Raises
    ------
    DataError
        If the source is missing or malformed, or its classes are not those of the detector.
    ProgramError
        If the data have boxes and the program is no detector.
    """
    if not has_boxes(data):
        return open_samples(data)
    spec = DetectorSpec.of(program)
    images = open_samples(data, image_size=program.input.image_size)
    assert isinstance(images, BoxDataset)
    images.check_classes(spec.class_names)
    return images


def quality(program: IntProgram, recording: Recording, data: Samples) -> dict[str, float | None]:
    """Accuracy of a classifier, average precision of a detector; nothing of other networks."""
    if isinstance(data, BoxDataset):
        from toolchain.learning.detection.average_precision import average_precision
        from toolchain.learning.detection.detections import detect, real_outputs

        outputs = real_outputs(program, recording.outputs)
        found = average_precision(detect(DetectorSpec.of(program), outputs, data), data)
        return {"mAP@0.5": found.at_half, "mAP@[.5:.95]": found.mean}
    return {"accuracy": recording.accuracy()} if recording.is_classifier else {}
