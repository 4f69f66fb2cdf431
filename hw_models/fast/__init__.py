"""The fast models: whole blocks of layers in one process, event by event, a batch at a time.

`kernels` (compiled loops) <- `stages` (one population) <- `pipeline` (consecutive populations).
"""
