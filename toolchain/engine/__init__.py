"""The fast engine: the reference simulator's bits, layer by layer instead of step by step.

At local step t a population takes its sources' spikes of local step t, so a whole block of steps
can be run through one layer before the next: time folds into the batch of the convolutions, and
the time loop of the neurons stays in the processor's cache. Blocks never mix wake and sleep steps.

`coded` (spikes as bytes, channels last) and `kernels` (compiled loops of the neurons, laid out by
`rows`) <- `products` (sums of whole planes), `events` (of single spikes, with the loops of
`event_loops` and `vectors`), `pooled` (of windows before) and `planes` (which way is best for each)
<- `sums` (exact synaptic sums) and `direct` (spikes that reach one neuron) <- `layers` (one
population over a block) <- `blocks` (the whole program). `device_*` do the same with tensors.
"""
