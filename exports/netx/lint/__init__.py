"""Finds what is wrong with a netx file, of this project or of lava-dl, before anything runs it.

`rules` says what is looked for, why it hurts and what helps; `limits` keeps hostile files from
costing memory or time; `stock_layers` and `own_program` look; `isolated` does so in a process of
its own; `sarif` writes the findings for other tools.
"""

from exports.netx.lint.findings import Finding, Findings
from exports.netx.lint.isolated import lint_file
from exports.netx.lint.rules import RULES, Level, Rule

__all__ = ["RULES", "Finding", "Findings", "Level", "Rule", "lint_file"]
