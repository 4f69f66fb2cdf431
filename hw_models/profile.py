"""Target profiles: the limits of a chip with their sources, in one TOML file per target.

`[limits.NAME]` are the limits of conversion, `[chip.NAME]` the capacities of a core and a chip;
each has a `value` and a `source`, which is empty where no number is public. `[layer_cores.NAME]`,
in place of `[chip]`, are the limits of a chip whose cores hold one whole layer each: `values` are
those of its cores, the largest value, or all that are possible. A user's own profile is a file of
the same form.
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
OF_EVERY_CORE = ("kernel_memory", "neuron_memory", "bias_memory")
"""Limits of `[layer_cores]` with a value for each core; words: weights, states, biases."""
LAYER_LIMITS = (
    *OF_EVERY_CORE,
    *("kernel", "stride", "padding", "pool", "channels", "input_size", "output_size"),
    *("fan_out", "thresholds"),
)
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
OPTIONAL = {"max_spike_bits": (1, 32)}
"""Limits that a profile may lack, as `LIMITS`; then spikes carry no number."""
MOST_BYTES = 1 << 20
"""Largest size of a profile, in bytes."""
_REMEDY = "hw_models/profiles/loihi2.toml shows the form"


@dataclass(frozen=True)
class Limit:
    """A number and its source; `source` is empty if none is public."""

    value: int
    source: str


@dataclass(frozen=True)
class Allowed:
    """Numbers and their source, as of `Limit`."""

    values: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class _Table:
    """Content of a profile file."""

    description: str
    limits: dict[str, Limit]
    chip: dict[str, Limit | bool] = field(default_factory=dict)
    layer_cores: dict[str, Allowed] = field(default_factory=dict)


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
    layer_cores:
        Limits of a chip whose cores hold one layer each, all of `LAYER_LIMITS`; else empty.
    """

    name: str
    description: str
    limits: dict[str, Limit]
    chip: dict[str, Limit] = field(default_factory=dict)
    shares_kernels: bool = False
    layer_cores: dict[str, Allowed] = field(default_factory=dict)

    def as_target_limits(self) -> TargetLimits:
        """The limits that conversion needs."""
        graded = "max_spike_bits" in self.limits
        return TargetLimits(
            name=self.name,
            weight_bits=self.limits["weight_bits"].value,
            max_weight_exponent=self.limits["max_weight_exponent"].value,
            state_bits=self.limits["state_bits"].value,
            threshold_max=self.limits["threshold_max"].value,
            bias_max=self.limits["bias_max"].value,
            max_input_bits=self.limits["max_input_bits"].value,
            max_spike_bits=self.limits["max_spike_bits"].value if graded else 1,
            one_threshold=bool(self.layer_cores) and self.layer_cores["thresholds"].values == (1,),
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
        low, high = (LIMITS | OPTIONAL).get(key, (0, LARGEST_LIMIT))
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
    _check_layer_cores(table)
    return Profile(name, table.description, table.limits, chip, shares, table.layer_cores)


def _check_layer_cores(table: _Table) -> None:
    """Raise ValueError unless `layer_cores` is empty, or has all its limits, and valid ones."""
    if not table.layer_cores:
        return
    if table.chip or set(table.layer_cores) != set(LAYER_LIMITS):
        raise ValueError(f"layer_cores needs {', '.join(LAYER_LIMITS)}, and no chip beside it")
    for key, allowed in table.layer_cores.items():
        if not allowed.values or not all(0 <= value <= LARGEST_LIMIT for value in allowed.values):
            raise ValueError(f"{key} needs numbers in 0 .. {LARGEST_LIMIT}")
    if len({len(table.layer_cores[key].values) for key in OF_EVERY_CORE}) > 1:
        raise ValueError(f"{', '.join(OF_EVERY_CORE)} need as many numbers as there are cores")
