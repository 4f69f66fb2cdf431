"""The fast models: a block of layers per process, event by event, in batches.

`kernels` (compiled loops) <- `stages` (one population) <- `pipeline` (consecutive populations).
"""
