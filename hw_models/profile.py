"""Target profiles: the limits of a chip, each with its source, in one TOML file a target."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import resources
from typing import Any

from toolchain.errors import TargetError
from toolchain.int_range import TargetLimits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Limit:
    """One number with the place it was taken from; `source` is empty where none is public."""

    value: int
    source: str


@dataclass(frozen=True)
class Profile:
    """A target and its limits by name."""

    name: str
    description: str
    limits: dict[str, Limit]

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
    """The profile called `name`.

    Raises
    ------
    TargetError
        If there is none.
    """
    if name not in profile_names():
        raise TargetError("no such target", node=name, allowed=", ".join(profile_names()))
    table = tomllib.loads((_folder() / f"{name}.toml").read_text())
    limits = {k: Limit(int(v["value"]), str(v["source"])) for k, v in table["limits"].items()}
    return Profile(name, str(table["description"]), limits)
