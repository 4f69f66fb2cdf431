"""Decoded images kept as uint8, so that a folder or zip of images is decoded once.

Entries lie in `$SPIKEPORT_CACHE`, else `$XDG_CACHE_HOME/spikeport`, else `~/.cache/spikeport`.
The name of an entry is a hash of where the images came from, their sizes and times, and the
version of the decoder's rules; a changed file has another name. Deleting the folder is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.containers import read_npz
from toolchain.documents import as_error, parse_json
from toolchain.errors import DataError, OutputError
from toolchain.files import atomic_path, make_folder
from toolchain.learning.data.dataset import Dataset

CACHE_VERSION = 1
"""Raised whenever decoding or the order of images changes."""


def cache_folder() -> Path:
    """Where decoded data are kept."""
    own = os.environ.get("SPIKEPORT_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spikeport"


def cached(identity: dict[str, Any], decode: Callable[[], Dataset]) -> Dataset:
    """`decode()`, or what it gave before for the same `identity` (JSON).

    A damaged entry is decoded again, and a cache that cannot be written is done without: it only
    saves time.
    """
    text = json.dumps({"version": CACHE_VERSION, **identity}, sort_keys=True)
    entry = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
    found = _read(entry)
    if found is not None:
        return found
    dataset = decode()
    try:
        make_folder(entry.parent)
        with atomic_path(entry) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                samples=dataset.samples,
                labels=dataset.labels,
                header=json.dumps({"name": dataset.name, "class_names": dataset.class_names}),
            )
    except OutputError:
        return dataset
    return dataset


def _read(entry: Path) -> Dataset | None:
    try:
        with as_error(DataError, "a damaged entry", str(entry)):
            arrays = read_npz(entry)
            header = parse_json(str(arrays["header"]))
            samples, labels = arrays["samples"], arrays["labels"]
            return Dataset(header["name"], samples, 255, labels, tuple(header["class_names"]))
    except DataError:
        return None
