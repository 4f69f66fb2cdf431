"""The fast engine: the reference simulator's bits, layer by layer instead of step by step.

At local step t a population takes its sources' spikes of local step t, so a whole block of steps
can be run through one layer before the next: time folds into the batch of the convolutions, and
the time loop of the neurons stays in the processor's cache. Blocks never mix wake and sleep steps.

`coded` (spikes as bytes, channels last) <- `sums` (exact synaptic sums) <- `kernels` (compiled
loops of the neurons) <- `layers` (one population over a block) <- `blocks` (the whole program).
"""
