"""Placed IF networks for SANA-FE, which simulates Loihi's energy, latency and messages.

`writer` writes a folder: one network per sample in SANA-FE's format, and `run.py`, which runs them
there. SANA-FE is under the GPL and no part of this project: `runner` starts `run.py` in an
interpreter of its own, and nothing else uses it.
"""

from exports.sanafe.runner import run_folder
from exports.sanafe.writer import RUN, file_names, write_sanafe

__all__ = ["RUN", "file_names", "run_folder", "write_sanafe"]
