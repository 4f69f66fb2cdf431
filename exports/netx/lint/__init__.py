"""Lint for netx files of this project and of lava-dl, before anything runs them.

`rules` defines each rule with its reason and remedy. `exports.hdf5.limits` keeps hostile files from
costing memory or time. `check_file` checks a file: the layers of lava-dl by `netx.stock_layers`,
which the reader uses too, this project's program by `own_program`. `isolated` does so in a separate
process, and `sarif` writes the findings for other tools.
"""

from exports.netx.lint.findings import Finding, Findings
from exports.netx.lint.isolated import lint_file
from exports.netx.lint.rules import RULES, Level, Rule

__all__ = ["RULES", "Finding", "Findings", "Level", "Rule", "lint_file"]
