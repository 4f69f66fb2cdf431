"""The fast engine: it gives the same bits as the reference simulator, layer by layer.

At local step t a population takes its sources' spikes of local step t. So a whole block of steps
can run through one layer before the next: time becomes part of the convolutions' batch, and the
time loop of the neurons stays in the CPU cache. Blocks never mix wake and sleep steps.

From the bottom up:

- `spike_encoding`: spikes as bytes, channels last. `kernels`: compiled loops of the neurons, in the
  layout of `neuron_layout`.
- `dense_sums`: sums of whole planes. `events`: sums of single spikes, with the loops of
  `event_loops` and `simd`. `pool_factoring`: sums over windows first. `dispatch`: the choice
  between them per plane.
- `synaptic_sum`: exact synaptic sums. `identity_synapses`: spikes that reach one neuron.
- `layers`: one population over a block. `engine`: the whole program. `device_layers` and
  `device_sums` do the same with tensors on a GPU.
"""
