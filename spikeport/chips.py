"""The chip of a target profile, for cuts and places."""

from __future__ import annotations

from hw_models.profile import load_profile
from toolchain.audit.chip_fit import PER_CORE, Chip, ChipLimit
from toolchain.audit.layer_cores import MEMORIES, LayerChip, LayerLimit
from toolchain.errors import TargetError
from toolchain.program.int_program import IntProgram


def chip_of(target: str) -> Chip | LayerChip:
    """The chip of a target; raises TargetError if the profile describes no chip."""
    profile = load_profile(target)
    numbers = profile.as_target_limits()
    sources = {name: limit.source for name, limit in profile.limits.items()}
    if profile.layer_cores:
        layers = {k: LayerLimit(v.values, v.source) for k, v in profile.layer_cores.items()}
        sources["thresholds"] = layers["thresholds"].source
        return LayerChip(profile.name, layers, numbers, sources)
    limits = {k: ChipLimit(v.value, v.source) for k, v in profile.chip.items()}
    if "cores" not in limits:
        raise TargetError(
            "is no chip",
            node=target,
            found="limits of numbers only",
            remedy='target="loihi1", target="loihi2", or a TOML file with [chip.cores]',
        )
    per_core = {k: limits[k] for k in PER_CORE if k in limits}
    cores, shares = limits["cores"], profile.shares_kernels
    return Chip(profile.name, cores, per_core, shares, numbers, sources)


def cut_chip(target: str) -> Chip:
    """A chip whose cores hold pieces of layers; raises TargetError for others."""
    chip = chip_of(target)
    if isinstance(chip, LayerChip):
        raise TargetError(
            "places whole layers on cores, and has no partition",
            node=target,
            remedy="the audit tells the core of each layer",
        )
    return chip


def check_layers(program: IntProgram, target: str) -> tuple[str, ...]:
    """Notes on the core of each layer, for a chip whose cores hold one each; else none.

    Raises
    ------
    TargetError
        If the program does not fit it.
    """
    if not load_profile(target).layer_cores:
        return ()
    found = chip_of(target).fit(program).describe()
    if found["problems"]:
        raise TargetError(
            f"does not fit {found['chip']}",
            node=program.name,
            found="\n".join(f"{p['layer']} needs {p['told']}" for p in found["problems"]),
            allowed="; ".join(dict.fromkeys(p["source"] for p in found["problems"])),
            remedy="smaller layers, or another target=",
        )
    return tuple(
        f"{layer['name']} is on core {layer['core']} of {found['chip']}, with "
        + ", ".join(f"{used:,} {MEMORIES[name]}" for name, used in layer["use"].items())
        for layer in found["layers"]
    )
