"""Names in a NIR graph and its metadata."""

from __future__ import annotations

KEY = "spikeport"
"""Key of the graph's metadata; its value is JSON."""
HASH = "program_hash"
"""Key of the program's hash in the JSON; older files lack it."""
VERSION = 2
"""Version of the metadata, raised whenever an older reader would misread a new file."""
STATIC_VERSION = 1
"""Version without inputs per step. A program is written in the lowest version it needs."""
INPUT, OUTPUT = "input", "output"
LARGEST_EXACT = 1 << 24
"""Integers up to this are exact in float32, in which NIR tools compute."""


def synapse_node(population: str, index: int) -> str:
    """Name of the node of a population's synapse, by index."""
    return f"{population}:synapse{index}"


def flatten_node(population: str, index: int) -> str:
    """Name of the node that flattens the source of a dense synapse."""
    return f"{population}:flatten{index}"
