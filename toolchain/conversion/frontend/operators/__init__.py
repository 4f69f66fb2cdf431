"""Handlers of traced operations, one file a family; `table.py` says which handles what."""
