"""The chip of a target profile, for cuts and places."""

from __future__ import annotations

from hw_models.profile import load_profile
from toolchain.audit.chip_fit import PER_CORE, Chip, ChipLimit
from toolchain.errors import TargetError


def chip_of(target: str) -> Chip:
    """The chip of a target; raises TargetError if the profile describes no chip."""
    profile = load_profile(target)
    limits = {k: ChipLimit(v.value, v.source) for k, v in profile.chip.items()}
    if "cores" not in limits:
        raise TargetError(
            "is no chip",
            node=target,
            found="limits of numbers only",
            remedy='target="loihi1", target="loihi2", or a TOML file with [chip.cores]',
        )
    per_core = {k: limits[k] for k in PER_CORE if k in limits}
    return Chip(
        profile.name,
        limits["cores"],
        per_core,
        profile.shares_kernels,
        profile.as_target_limits(),
        {name: limit.source for name, limit in profile.limits.items()},
    )
