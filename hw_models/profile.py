"""Target profiles: the limits of a chip with their sources, in one TOML file per target.

`[limits.NAME]` are the limits of conversion, `[chip.NAME]` the capacities of a core and a chip;
each has a `value` and a `source`, which is empty where no number is public. A user's own profile is
a file of the same form.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from toolchain.documents import as_error, read_text, typed
from toolchain.errors import TargetError
from toolchain.int_range import TargetLimits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


CHIP_LIMITS = ("cores", "neurons", "in_axons", "out_axons", "synapse_bits")
LARGEST_LIMIT = 1 << 62
LIMITS = {
    "weight_bits": (1, 32),
    "max_weight_exponent": (0, 31),
    "state_bits": (2, 64),
    "threshold_max": (1, LARGEST_LIMIT),
    "bias_max": (0, LARGEST_LIMIT),
    "max_input_bits": (1, 32),
}
"""Limits that conversion needs, with the smallest and largest valid value of each."""
MOST_BYTES = 1 << 20
"""Largest size of a profile, in bytes."""
_REMEDY = "hw_models/profiles/loihi2.toml shows the form"


@dataclass(frozen=True)
class Limit:
    """A number and its source; `source` is empty if none is public."""

    value: int
    source: str


@dataclass(frozen=True)
class _Table:
    """Content of a profile file."""

    description: str
    limits: dict[str, Limit]
    chip: dict[str, Limit | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """A target and its limits by name.

    Attributes
    ----------
    limits:
        Limits of conversion, by name.
    chip:
        Capacities of a core (neurons, in_axons, out_axons, synapse_bits), and the cores per chip;
        empty if the target is no chip.
    shares_kernels:
        Whether a core stores a convolution's kernel once.
    """

    name: str
    description: str
    limits: dict[str, Limit]
    chip: dict[str, Limit] = field(default_factory=dict)
    shares_kernels: bool = False

    def as_target_limits(self) -> TargetLimits:
        """The limits that conversion needs."""
        return TargetLimits(
            name=self.name,
            weight_bits=self.limits["weight_bits"].value,
            max_weight_exponent=self.limits["max_weight_exponent"].value,
            state_bits=self.limits["state_bits"].value,
            threshold_max=self.limits["threshold_max"].value,
            bias_max=self.limits["bias_max"].value,
            max_input_bits=self.limits["max_input_bits"].value,
        )


def _folder() -> Any:
    return resources.files("hw_models") / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if ".toml" in f.name)


def load_profile(name: str) -> Profile:
    """The profile called `name`, or the one in the TOML file of that path.

    Raises
    ------
    TargetError
        If there is no such profile, or the file is not a profile.
    """
    own = name not in profile_names()
    path = Path(name) if own else Path(str(_folder() / f"{name}.toml"))
    if own and (path.suffix != ".toml" or not path.is_file()):
        allowed = f"{', '.join(profile_names())}, or a TOML file"
        raise TargetError("no such target", node=name, allowed=allowed)
    with as_error(TargetError, "is not a profile", name, _REMEDY):
        return _profile(path.stem, typed(_Table, tomllib.loads(read_text(path, MOST_BYTES))))


def _profile(name: str, table: _Table) -> Profile:
    """The checked profile; raises ValueError or TargetError for invalid values."""
    missing = set(LIMITS) - set(table.limits)
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))}")
    for key, limit in table.limits.items():
        low, high = LIMITS.get(key, (0, LARGEST_LIMIT))
        if not low <= limit.value <= high:
            raise ValueError(f"{key} is {limit.value}, not {low} .. {high}")
    rest = dict(table.chip)
    shares = rest.pop("shares_kernels", False)
    chip = {key: limit for key, limit in rest.items() if isinstance(limit, Limit)}
    strange = set(rest) - set(CHIP_LIMITS)
    if strange or (chip and "cores" not in chip):
        raise TargetError(
            "does not describe a chip",
            node=name,
            found=", ".join(rest)[:200],
            allowed=f"cores, and some of {', '.join(CHIP_LIMITS)}",
        )
    if len(chip) != len(rest) or not isinstance(shares, bool):
        raise ValueError("a limit of a chip is a table, shares_kernels true or false")
    for key, limit in chip.items():
        if not 1 <= limit.value <= LARGEST_LIMIT:
            raise ValueError(f"{key} is {limit.value}, not 1 .. {LARGEST_LIMIT}")
    return Profile(name, table.description, table.limits, chip, shares)
