"""Names in a NIR graph and its metadata."""

from __future__ import annotations

KEY = "spikeport"
"""Of the graph's metadata; its value is JSON."""
HASH = "program_hash"
"""Of the JSON; files from before it was written lack it."""
VERSION = 1
INPUT, OUTPUT = "input", "output"
LARGEST_EXACT = 1 << 24
"""Integers up to here are exact in float32, which NIR tools compute in."""


def synapse_node(population: str, index: int) -> str:
    """Node of a population's synapse, by index."""
    return f"{population}:synapse{index}"


def flatten_node(population: str, index: int) -> str:
    """Node that flattens the source of a dense synapse."""
    return f"{population}:flatten{index}"
