"""Lava processes and their models, written from the semantic contract alone.

No other file may be in this folder: Lava executes every file beside a Process when it looks for
models. Import only after `hw_models.lava_compat.prepare()`.
"""
