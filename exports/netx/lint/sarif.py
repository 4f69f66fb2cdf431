"""Findings as SARIF 2.1.0, which code hosts and editors display (OASIS, sarif-v2.1.0)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from exports.netx.lint.findings import Finding, Findings
from exports.netx.lint.rules import RULES, Rule
from toolchain.text import visible

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(all_findings: Sequence[Findings], version: str) -> dict[str, Any]:
    """One SARIF run of this version over some files, as plain values for JSON."""
    order = list(RULES)
    results = [
        {
            "ruleId": finding.rule_id,
            "ruleIndex": order.index(finding.rule_id),
            "level": finding.rule.level.value,
            "message": {"text": _plain(finding)},
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


def _plain(finding: Finding) -> str:
    """A finding in one line, without placeholders and links of SARIF (3.11.5, 3.11.6)."""
    rule = finding.rule
    text = visible(f"{rule.title}: {finding.found}. {finding.remedy}")
    return re.sub(r"[{}]", r"\g<0>\g<0>", re.sub(r"[\\\[\]]", r"\\\g<0>", text))


def _location(file: str, where: str) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(os.fsencode(Path(file).as_posix()))}
        },
        "logicalLocations": [{"fullyQualifiedName": where}],
    }
