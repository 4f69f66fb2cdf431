"""Runs a written folder in SANA-FE, in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from exports.sanafe.writer import RUN
from toolchain.errors import BackendRunError, MissingDependencyError


def run_folder(folder: Path, *, time_limit: float, potentials: bool = False) -> dict[str, Any]:
    """What SANA-FE finds for the samples of a folder.

    Returns
    -------
    `sanafe`, its version, and `samples`: of each the `spikes`, the neurons that fire at each local
    step by layer; the readouts' `outputs`; `energy` in J by part, with the `total`; simulated
    `seconds`; numbers of `messages`, `synops`, `updates` of neurons and `events`, spikes sent; with
    `potentials` those after each local step by layer.

    Raises
    ------
    MissingDependencyError
        If SANA-FE is not installed.
    BackendRunError
        If it fails, or takes longer than `time_limit` seconds.
    """
    if find_spec("sanafe") is None:
        raise MissingDependencyError(
            "SANA-FE is not installed", remedy="pip install sanafe==2.2.9 (under the GPL)"
        )
    with tempfile.TemporaryDirectory(prefix="spikeport-") as place:
        results = Path(place) / "results.json"
        command = [sys.executable, str(folder / RUN), str(results)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                [*command, *(["potentials"] if potentials else [])],
                capture_output=True,
                text=True,
                timeout=time_limit,
                env=environment,
                cwd=place,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendRunError(
                "SANA-FE exceeded its time limit",
                found=f"more than {time_limit:g} s",
                remedy="fewer samples, or a larger time_limit=",
            ) from error
        if done.returncode or not results.is_file():
            told = [*done.stderr.splitlines(), *done.stdout.splitlines()]
            raise BackendRunError("SANA-FE failed", found="\n".join(told[-3:]))
        found: dict[str, Any] = json.loads(results.read_text())
        return found
