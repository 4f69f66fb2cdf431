"""RESULTS.md of this project, and the papers' figures, from what its benchmarks left.

python -m benchmarks.report benchmarks/papers --speed benchmarks/speed --figures docs/results
"""
