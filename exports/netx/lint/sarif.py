"""Findings as SARIF 2.1.0, which code hosts and editors show (OASIS, sarif-v2.1.0)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exports.netx.lint.findings import Findings
from exports.netx.lint.rules import RULES, Rule

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(all_findings: Sequence[Findings], version: str) -> dict[str, Any]:
    """One run of this version over some files, as a plain value for JSON."""
    order = list(RULES)
    results = [
        {
            "ruleId": finding.rule_id,
            "ruleIndex": order.index(finding.rule_id),
            "level": finding.rule.level.value,
            "message": {"text": f"{finding.rule.title}: {finding.found}. {finding.remedy}"},
            "locations": [_location(findings.file, finding.where)],
        }
        for findings in all_findings
        for finding in findings.found
    ]
    driver = {"name": "spikeport lint", "version": version, "rules": _rules()}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _rules() -> list[dict[str, Any]]:
    return [_rule(rule) for rule in RULES.values()]


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.why} (known from: {rule.source})"},
        "help": {"text": rule.remedy},
        "defaultConfiguration": {"level": rule.level.value},
    }


def _location(file: str, where: str) -> dict[str, Any]:
    return {
        "physicalLocation": {"artifactLocation": {"uri": Path(file).as_posix()}},
        "logicalLocations": [{"fullyQualifiedName": where}],
    }
