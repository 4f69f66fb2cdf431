"""Sweeps: many conversions of trained networks on one data source, side by side.

`grid` (what is tried) -> `measure` (one point, anywhere) -> `schedule` (many, by threads here or on
Dask) -> `store` (one SQLite file that a killed sweep goes on from) -> `pareto` (which are worth
having) -> `plot`.
"""
