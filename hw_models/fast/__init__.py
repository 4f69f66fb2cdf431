"""The fast models: a block of layers per process, event by event, in batches.

`kernels`, `event_sums` (compiled loops) <- `events` (one synapse) <- `stages` (one population) <-
`pipeline` (consecutive populations).
"""
