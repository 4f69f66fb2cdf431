"""Check of one file in this process; `isolated` is for untrusted files."""

from __future__ import annotations

from pathlib import Path

import h5py

from exports.hdf5 import DAMAGED, FILE_LOCKING, beyond_limits
from exports.hdf5.missing import check_is_file
from exports.netx.group import Group
from exports.netx.layout import LAYERS, OWN
from exports.netx.lint.findings import Findings
from exports.netx.lint.own_program import look_at_program
from exports.netx.stock_layers import NoInputShape, walk
from hw_models.profile import Profile
from toolchain.errors import FormatError, SpikeportError


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
                _look_at_layers(Group(file, str(path)), findings)
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


def _look_at_layers(root: Group, findings: Findings) -> None:
    def report(rule: str, error: FormatError, _: bool) -> None:
        if isinstance(error, NoInputShape):
            return  # whoever runs the file gives it
        if rule == "malformed":
            findings.add_error(rule, error)
        else:
            findings.add(rule, error.node or "/", error.found)

    for _ in walk(root, report):
        pass
