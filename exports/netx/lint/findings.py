"""Findings of lint in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exports.netx.lint.rules import RULES, Level, Rule
from toolchain.errors import SpikeportError


@dataclass(frozen=True)
class Finding:
    """A place in a file to which a rule applies.

    Attributes
    ----------
    where:
        Path inside the file, such as /layer/3/weight.
    found:
        Value at this path.
    own_remedy:
        A more specific remedy than that of the rule; else empty.
    """

    rule_id: str
    where: str
    found: str
    own_remedy: str = ""

    @property
    def rule(self) -> Rule:
        """The rule, with its reason and remedy."""
        return RULES[self.rule_id]

    @property
    def remedy(self) -> str:
        """The remedy for this finding."""
        return self.own_remedy or self.rule.remedy

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        rule = self.rule
        return {
            "rule": rule.id,
            "level": rule.level.value,
            "where": self.where,
            "found": self.found,
            "title": rule.title,
            "why": rule.why,
            "remedy": self.remedy,
            "source": rule.source,
        }


@dataclass
class Findings:
    """All findings, in the order of the file.

    Attributes
    ----------
    kind:
        Kind of the file: "spikeport", "stock" (lava-dl), or "unknown".
    """

    file: str
    kind: str = "unknown"
    found: list[Finding] = field(default_factory=list)

    def add(self, rule_id: str, where: str, found: object, own_remedy: str = "") -> None:
        """Add a finding; `where` may begin with the path of the file."""
        place = where.removeprefix(f"{self.file}:") or "/"
        self.found.append(Finding(RULES[rule_id].id, place, str(found), own_remedy))

    def add_error(self, rule_id: str, error: SpikeportError, where: str = "/") -> None:
        """Add the error of a reader, at the error's own place if it has one."""
        found = error.message if error.found is None else f"{error.message}: {error.found}"
        self.add(rule_id, error.node or where, found, error.remedy or "")

    def at(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [f for f in self.found if f.rule.level is level]

    @property
    def sound(self) -> bool:
        """Whether there are no errors."""
        return not self.at(Level.ERROR)

    def as_dict(self) -> dict[str, Any]:
        """All findings as plain values."""
        return {
            "file": self.file,
            "kind": self.kind,
            "sound": self.sound,
            "findings": [f.as_dict() for f in self.found],
        }
