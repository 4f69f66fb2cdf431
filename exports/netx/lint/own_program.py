"""Lint for a file of this project: errors of the reader, and proofs that do not hold."""

from __future__ import annotations

from pathlib import Path

from exports.netx.layout import OWN
from exports.netx.lint.findings import Findings
from exports.netx.opened import opened
from exports.netx.reader import program_in
from hw_models.profile import Profile
from toolchain.errors import FormatError, SpikeportError, UnprovedRangeError
from toolchain.program.bounds import prove
from toolchain.program.int_program import IntProgram
from toolchain.program.range_certificate import VERSION, range_certificate
from toolchain.program.target_check import beyond_target
from toolchain.text import is_plain


def look_at_program(path: Path, findings: Findings, profile: Profile | None) -> None:
    """Read the program, prove its ranges again, and compare it with a target's limits."""
    try:
        with opened(path, known=True) as root:
            program = program_in(root)
    except FormatError as error:
        findings.add_error("not-this-program", error)
        return
    _look_at_names(program, findings)
    _look_at_ranges(program, findings)
    _look_at_certificate(path, program, findings)
    if profile is not None:
        _look_at_target(program, profile, findings)


def _look_at_names(program: IntProgram, findings: Findings) -> None:
    for where, name in (("/", program.name), *((p.name, p.name) for p in program.populations)):
        if not is_plain(name):
            findings.add("strange-name", where, name)


def _look_at_ranges(program: IntProgram, findings: Findings) -> None:
    try:
        prove(program)
    except UnprovedRangeError as error:
        rule = "ranges-watched" if program.watch_ranges else "range-not-proved"
        findings.add_error(rule, error)
    except SpikeportError as error:
        findings.add_error("range-not-proved", error)


def _look_at_certificate(path: Path, program: IntProgram, findings: Findings) -> None:
    """Compare the bounds in the file with those that are proved here."""
    with opened(path, known=True) as root:
        own = root.group(OWN)
        if "certificate" not in own.names():
            return
        try:
            claimed = own.json("certificate")
        except FormatError as error:
            findings.add_error("certificate", error)
            return
    if claimed.get("version") != VERSION:
        return
    proved = range_certificate(program)
    for name, bounds in proved["populations"].items():
        held = dict(claimed.get("populations") or {}).get(name)
        if held != bounds:
            findings.add("certificate", name, f"{held}, proved {bounds}")
    for key in ("state_bits", "holds"):
        if claimed.get(key) != proved[key]:
            findings.add("certificate", key, f"{claimed.get(key)}, proved {proved[key]}")


def _look_at_target(program: IntProgram, profile: Profile, findings: Findings) -> None:
    """Compare every number with the limits of the target."""
    for number in beyond_target(program, profile.as_target_limits()):
        told = f"{number.what} {number.found}, {number.allowed} on {profile.name}"
        findings.add("other-target", number.node, told)
