"""The settled CIF network as a plain integer network, without a time axis.

`N = clip(floor((v0 + X) / theta), 0, Q)` with X = weights times the source's counts plus Q times
the bias; the input's count is Q times its graded spike, or the sum of a sequence. A LIPool's count
is the largest settled count of its window, a relay's the weighted sum of its sources' counts.
In one step, graded IF neurons send the same with their largest spike in place of Q.
Source: docs/METHODS.md, "Settled CIF is lossless".
"""

import numpy as np

from tests.oracles.numpy_loop import current, largest_in_windows


def counts_and_logits(program, sample):
    """Spike counts by layer and the only readout's value for one graded sample."""
    counts, outputs = counts_and_outputs(program, sample)
    (logits,) = outputs.values()
    return counts, logits


def counts_and_outputs(program, sample):
    """Spike counts by layer and the value of every readout for one graded sample."""
    q = program.schedule.wake_steps
    given = sum(sample[t].astype(np.int64) for t in range(q)) if program.input.per_step else None
    counts = {"input": sample.astype(np.int64) * q if given is None else given}
    outputs = {}
    for p in program.populations:
        if p.neuron.kind == "LIPOOL":
            (synapse,) = p.synapses
            counts[p.name] = largest_in_windows(counts[synapse.source], synapse)
            continue
        shape = (-1, *([1] * (len(p.shape) - 1)))
        total = sum(current(s, counts[s.source]) for s in p.synapses)
        if p.neuron.kind == "RELAY":
            counts[p.name] = total.astype(np.int64)
            continue
        total = total + q * p.bias.astype(object).reshape(shape)
        if p.neuron.kind == "READOUT":
            outputs[p.name] = total.astype(np.int64)
            continue
        theta = p.neuron.threshold.astype(object).reshape(shape)
        start = p.neuron.initial_potential.astype(object).reshape(shape)
        most = q * (p.neuron.max_spike if p.neuron.kind == "GRADED_IF" else 1)
        counts[p.name] = np.clip((start + total) // theta, 0, most).astype(np.int64)
    return counts, outputs
