"""`run`: an integer program over samples, on any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spikeport.backends import Backend, Progress, open_backend
from spikeport.files import as_program
from spikeport.samples import Data, has_boxes, open_samples
from toolchain.errors import UsageError
from toolchain.learning.data import BoxDataset, Dataset, Samples, input_spikes
from toolchain.learning.data.torch_data import with_labels
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.program.int_program import IntProgram
from toolchain.recording import Mode, Recording

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike

    from toolchain.conversion.pipeline import Conversion


def run(
    program: IntProgram | Conversion | str | Path,
    samples: Data,
    *,
    labels: ArrayLike | None = None,
    backend: str | Backend = "reference",
    record: str = "full",
    progress: Progress | None = None,
    **options: Any,
) -> Recording:
    """Run an integer program on samples and record every layer.

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
    progress:
        Called with the samples done and the samples in all.
    options:
        Options of the backend, see `Reference` and `Lava`.

    Raises
    ------
    SpikeportError
        If the samples do not fit the program, or the backend cannot run it.
    """
    chosen = open_backend(backend, **options)
    loaded = as_program(program)
    data = open_for(loaded, samples)
    if labels is not None:
        if isinstance(data, BoxDataset | Dataset):
            raise UsageError("the samples have labels already", found=data.name)
        data = with_labels(data, labels)
    return run_data(loaded, data, chosen, record, progress)


def run_data(
    program: IntProgram,
    data: Samples,
    backend: Backend,
    record: str,
    progress: Progress | None = None,
) -> Recording:
    """Run a program as `run` does, with data and backend already open."""
    recording = backend.run(
        program,
        input_spikes(program.input, data),
        mode=_mode(record),
        labels=data.labels if isinstance(data, Dataset) else None,
        progress=progress,
    )
    recording.meta["data"] = data.name
    return recording


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
