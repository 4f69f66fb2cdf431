"""Looks into a file of this project: what the reader refuses, and proofs that do not hold."""

from __future__ import annotations

from pathlib import Path

from exports.netx.layout import OWN
from exports.netx.lint.findings import Findings
from exports.netx.opened import opened
from exports.netx.reader import read_net
from hw_models.profile import Profile
from toolchain.errors import FormatError, SpikeportError, UnprovedRangeError
from toolchain.int_range import IntRange
from toolchain.program.bounds import prove
from toolchain.program.int_program import IntProgram
from toolchain.program.range_certificate import VERSION, range_certificate
from toolchain.program.synapse import WindowSynapse


def look_at_program(path: Path, findings: Findings, profile: Profile | None) -> None:
    """Read the program, prove its ranges anew, and hold it against a target's limits."""
    try:
        program = read_net(path)
    except FormatError as error:
        findings.add_error("not-this-program", error)
        return
    _look_at_ranges(program, findings)
    _look_at_certificate(path, program, findings)
    if profile is not None:
        _look_at_target(program, profile, findings)


def _look_at_ranges(program: IntProgram, findings: Findings) -> None:
    try:
        prove(program)
    except UnprovedRangeError as error:
        rule = "ranges-watched" if program.watch_ranges else "range-not-proved"
        findings.add_error(rule, error)
    except SpikeportError as error:
        findings.add_error("range-not-proved", error)


def _look_at_certificate(path: Path, program: IntProgram, findings: Findings) -> None:
    """The bounds that the file claims against those that are proved here."""
    with opened(path) as root:
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
    """Every parameter against the limits that conversion keeps to."""
    limits = profile.as_target_limits()
    weights = IntRange.signed(limits.weight_bits)
    bias = IntRange(-limits.bias_max, limits.bias_max)

    def say(name: str, what: str, low: int, high: int, allowed: object) -> None:
        findings.add("other-target", name, f"{what} {low} .. {high}, {allowed} on {profile.name}")

    if program.input.bits > limits.max_input_bits:
        bits = program.input.bits
        say("input", "input bits", bits, bits, f"at most {limits.max_input_bits}")
    if program.state_bits > limits.state_bits:
        bits = program.state_bits
        say("/", "state bits", bits, bits, f"at most {limits.state_bits}")
    for population in program.populations:
        name = population.name
        for synapse in population.synapses:
            if isinstance(synapse, WindowSynapse):
                continue
            low, high = int(synapse.weight.min()), int(synapse.weight.max())
            if not weights.contains(low, high):
                say(name, "weights", low, high, str(weights))
            exponent = synapse.weight_exponent
            if exponent > limits.max_weight_exponent:
                allowed = f"at most {limits.max_weight_exponent}"
                say(name, "weight exponent", exponent, exponent, allowed)
        low, high = int(population.bias.min()), int(population.bias.max())
        if not bias.contains(low, high):
            say(name, "bias", low, high, str(bias))
        threshold = getattr(population.neuron, "threshold", None)
        if threshold is not None and int(threshold.max()) > limits.threshold_max:
            allowed = f"at most {limits.threshold_max}"
            say(name, "thresholds", int(threshold.min()), int(threshold.max()), allowed)
