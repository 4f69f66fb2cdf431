"""Check of one file in this process; `isolated` is for untrusted files."""

from __future__ import annotations

from pathlib import Path

import h5py

from exports.hdf5 import DAMAGED, FILE_LOCKING, beyond_limits
from exports.hdf5.missing import check_is_file
from exports.netx.cuba_reader import NoInputShape, layers_in
from exports.netx.group import Group
from exports.netx.layout import LAYERS, OWN
from exports.netx.lint.findings import Findings
from exports.netx.lint.own_program import look_at_program
from exports.netx.lint.stock_layers import StockLinter
from hw_models.profile import Profile
from toolchain.errors import SpikeportError


def look_at(path: Path, profile: Profile | None = None) -> Findings:
    """All findings of the file at `path`.

    Raises
    ------
    FormatError
        If there is no such file.
    """
    check_is_file(path)
    findings = Findings(str(path))
    try:
        with h5py.File(path, "r", locking=FILE_LOCKING) as file:
            for excess in beyond_limits(file):
                findings.add("hostile", *excess)
            if findings.found:
                return findings
            own = OWN in file
            findings.kind = "spikeport" if own else "stock" if LAYERS in file else "unknown"
            if findings.kind == "stock":
                root = Group(file, str(path))
                StockLinter(findings).look(root)
                _read(root, findings)
            elif not own:
                names = ", ".join(file) or "nothing"
                findings.add("no-network", "/", names)
        if own:
            look_at_program(path, findings, profile)
    except SpikeportError as error:
        findings.add_error("malformed", error)
    except MemoryError:
        raise  # `isolated` reports the amount
    except DAMAGED as error:
        first, *_ = str(error).splitlines() or [""]
        findings.add("unreadable", "/", f"{type(error).__name__}: {first}")
    return findings


def _read(root: Group, findings: Findings) -> None:
    """Add the reader's error, if the findings so far would let it read the file."""
    if not findings.sound or any(f.rule_id == "only-there" for f in findings.found):
        return
    try:
        for _ in layers_in(root):
            pass
    except NoInputShape:
        pass  # the reader of such a file reports it
    except SpikeportError as error:
        findings.add_error("malformed", error)
