"""Conditions under which an audit fails, such as `mismatches=0` or `drop<=0.5`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolchain.errors import DataError

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_FORM = re.compile(r"^\s*(\w+)\s*(<=|>=|<|>|=)\s*(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*$")
METRICS = {
    "mismatches": "values in which Lava differs from the integer reference",
    "drop": "accuracy (or mAP@0.5) of the float network less that of the integer one, in points",
    "accuracy": "of the integer network, in %, or mAP@0.5 of detectors",
    "agreement": "samples that float and integer network answer alike, in %",
    "headroom": "smallest headroom of any state, in bits",
    "synops": "synaptic operations per sample",
    "cores": "cores of the target",
    "chips": "chips of the target",
    "chip_errors": "limits of the target that are passed",
}
"""Metrics of gates, with their meaning."""
ALL_METRICS = "; ".join(f"{name} = {meaning}" for name, meaning in METRICS.items())
"""All metrics in one line, for the help text."""
NEEDS = {
    "mismatches": "samples on Lava (lava_samples=)",
    "drop": "the network it was converted from (network=)",
    "agreement": "the network it was converted from (network=)",
}
"""Input that some metrics require."""


@dataclass(frozen=True)
class Gate:
    """One condition on a metric."""

    metric: str
    relation: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """The gate of a text METRIC<=NUMBER.

        Raises
        ------
        DataError
            If the text has another form, or names no metric.
        """
        found = _FORM.match(text)
        if found is None:
            raise DataError(
                "is not a gate", node=text, allowed="METRIC=NUMBER, or with <=, >=, <, >"
            )
        metric, relation, value = found.groups()
        if metric not in METRICS:
            raise DataError("no such metric", node=metric, allowed=", ".join(METRICS))
        try:
            return cls(metric, relation, float(value))
        except ValueError as error:
            raise DataError("is not a number", node=text, found=value) from error

    def check(self, metrics: Mapping[str, float | None]) -> dict[str, Any]:
        """The result as JSON; a metric that was not measured does not pass."""
        found = metrics.get(self.metric)
        passed = found is not None and _COMPARE[self.relation](found, self.value)
        return {
            "gate": f"{self.metric}{self.relation}{self.value:g}",
            "found": found,
            "passed": passed,
            "meaning": METRICS[self.metric],
            "needs": NEEDS.get(self.metric, ""),
        }
