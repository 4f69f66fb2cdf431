"""Names and version of the `.net` format, which FORMAT.md describes."""

from __future__ import annotations

FORMAT_VERSION = 6
"""Version of the format, raised whenever an older reader would misread a new file."""
SEQUENCES_VERSION = 5
"""Version without graded IF neurons, but with inputs per step."""
UPSAMPLING_VERSION = 4
"""Version without inputs per step, but with `upsample` and `overhang` of convolutions."""
OVERHANG_VERSION = 3
"""Version without `upsample` and `overhang` of convolutions, but with the overhang of pools."""
BRANCHES_VERSION = 2
"""Version without the overhang of pools. A program is written in the lowest version it needs."""
CHAINS_VERSION = 1
"""Version with chains only: every layer takes its input from the previous one, without pools."""

LAYERS = "layer"
SIMULATION = "simulation"
OWN = "spikeport"
"""Group of all data for which stock netx has no place."""

STOCK_STRING = "S10"
"""Type of `type` datasets in lava-dl's files (lava-dl 0.6.0, `export_hdf5` of slayer blocks)."""

INPUT, CONV, DENSE, FLATTEN, POOL = "input", "conv", "dense", "flatten", "pool"
"""Names of layer types in stock netx.

Its loader silently skips an unknown type, and raises NotImplementedError for a pool.
"""
SYNAPSES = "synapse"
"""Group of a layer's further synapses, inside the layer's group."""
