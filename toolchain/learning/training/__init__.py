"""Seeded, resumable training of quantized networks, and the checkpoint they are kept in."""
