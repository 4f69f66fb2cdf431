"""Sweeps: many conversions of trained networks, compared on one data source.

`grid` (the points) -> `measure` (one point) -> `schedule` (all points, on any workers) -> `store`
(one SQLite file, from which a killed sweep continues) -> `pareto` (the front) -> `plot`.
"""
