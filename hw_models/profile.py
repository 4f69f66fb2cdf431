"""Target profiles: the limits of a chip, each with its source, in one TOML file a target.

`[limits.NAME]` are what conversion keeps to, `[chip.NAME]` what a core and a chip hold; each has a
`value` and a `source`, which is empty where no number is public. A user's own profile is a file of
the same form.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from toolchain.errors import TargetError
from toolchain.int_range import TargetLimits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


CHIP_LIMITS = ("cores", "neurons", "in_axons", "out_axons", "synapse_bits")


@dataclass(frozen=True)
class Limit:
    """One number with the place it was taken from; `source` is empty where none is public."""

    value: int
    source: str


@dataclass(frozen=True)
class Profile:
    """A target and its limits by name.

    Attributes
    ----------
    limits:
        What conversion keeps to.
    chip:
        What a core holds (neurons, in_axons, out_axons, synapse_bits), and cores a chip has; empty
        where a target is no chip.
    shares_kernels:
        Whether a core keeps a convolution's kernel once.
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
    """The profile called `name`, or in the TOML file of that path.

    Raises
    ------
    TargetError
        If there is none, or the file is not a profile.
    """
    if name in profile_names():
        return _read(name, (_folder() / f"{name}.toml").read_text())
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        allowed = f"{', '.join(profile_names())}, or a TOML file"
        raise TargetError("no such target", node=name, allowed=allowed)
    return _read(path.stem, path.read_text())


def _read(name: str, text: str) -> Profile:
    try:
        table = tomllib.loads(text)
        limits = {k: _limit(v) for k, v in table["limits"].items()}
        rest = dict(table.get("chip", {}))
        shares = rest.pop("shares_kernels", False)
        chip = {k: _limit(v) for k, v in rest.items()}
        profile = Profile(name, str(table["description"]), limits, chip, bool(shares))
        profile.as_target_limits()
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise TargetError(
            "is not a profile",
            node=name,
            found=f"{type(error).__name__}: {error}",
            remedy="hw_models/profiles/loihi2.toml shows the form",
        ) from error
    strange = set(chip) - {*CHIP_LIMITS}
    if strange or (chip and "cores" not in chip):
        raise TargetError(
            "does not describe a chip",
            node=name,
            found=", ".join(chip),
            allowed=f"cores, and some of {', '.join(CHIP_LIMITS)}",
        )
    return profile


def _limit(entry: dict[str, Any]) -> Limit:
    return Limit(int(entry["value"]), str(entry["source"]))
