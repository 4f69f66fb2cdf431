"""Passes over the float program; each is exact in real arithmetic, or raises an error."""
