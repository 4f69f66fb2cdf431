"""Names and version of the `.net` format; FORMAT.md describes them in words."""

from __future__ import annotations

FORMAT_VERSION = 2
"""Raised whenever a reader of the old version would misread a new file."""
CHAINS_VERSION = 1
"""Had chains only: every layer takes its input from the one before it, and none is a pool."""

LAYERS = "layer"
SIMULATION = "simulation"
OWN = "spikeport"
"""Group of everything stock netx cannot say."""

STOCK_STRING = "S10"
"""Type of `type` datasets in lava-dl's files (lava-dl 0.6.0, export_hdf5 of the slayer blocks)."""

INPUT, CONV, DENSE, FLATTEN, POOL = "input", "conv", "dense", "flatten", "pool"
"""Layer types as stock netx spells them; it skips one it does not know without a word, and raises
NotImplementedError on a pool."""
SYNAPSES = "synapse"
"""Group of a layer's further synapses, inside its own group."""
