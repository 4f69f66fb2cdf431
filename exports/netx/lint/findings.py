"""What lint found in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exports.netx.lint.rules import RULES, Level, Rule
from toolchain.errors import SpikeportError


@dataclass(frozen=True)
class Finding:
    """One place where a rule applies.

    Attributes
    ----------
    where:
        Path inside the file, such as /layer/3/weight.
    found:
        What stands there.
    own_remedy:
        What helps here, where a reader knows better than the rule; else empty.
    """

    rule_id: str
    where: str
    found: str
    own_remedy: str = ""

    @property
    def rule(self) -> Rule:
        """The rule, with why it hurts and what helps."""
        return RULES[self.rule_id]

    @property
    def remedy(self) -> str:
        """What helps."""
        return self.own_remedy or self.rule.remedy

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
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
        What the file is: "spikeport", "stock" (lava-dl), or "unknown".
    """

    file: str
    kind: str = "unknown"
    found: list[Finding] = field(default_factory=list)

    def add(self, rule_id: str, where: str, found: object, own_remedy: str = "") -> None:
        """Note that a rule applies; `where` may begin with the file's own path."""
        place = where.removeprefix(f"{self.file}:") or "/"
        self.found.append(Finding(RULES[rule_id].id, place, str(found), own_remedy))

    def add_error(self, rule_id: str, error: SpikeportError, where: str = "/") -> None:
        """Note what a reader refused, at the error's own place if it has one."""
        found = error.message if error.found is None else f"{error.message}: {error.found}"
        self.add(rule_id, error.node or where, found, error.remedy or "")

    def at(self, level: Level) -> list[Finding]:
        """Those of one level."""
        return [f for f in self.found if f.rule.level is level]

    @property
    def sound(self) -> bool:
        """Whether there are no errors."""
        return not self.at(Level.ERROR)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "file": self.file,
            "kind": self.kind,
            "sound": self.sound,
            "findings": [f.as_dict() for f in self.found],
        }
