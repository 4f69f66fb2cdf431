"""Handlers of traced operations, one file per family; `table.py` lists which handles what."""
