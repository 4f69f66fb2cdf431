"""A plain NumPy loop over samples, steps and layers, written from the semantic contract.

It reads the program's arrays and nothing else: convolutions are loops over output positions,
neurons are written out anew.
"""

import numpy as np

from toolchain.program.synapse import ConvSynapse


def convolve(x, weight, stride, padding, dilation, groups):
    """Correlation of one sample x (C, H, W), by its definition."""
    c_out, c_in, k_h, k_w = weight.shape
    padded = np.zeros(
        (x.shape[0], x.shape[1] + 2 * padding[0], x.shape[2] + 2 * padding[1]), dtype=object
    )
    padded[:, padding[0] : padding[0] + x.shape[1], padding[1] : padding[1] + x.shape[2]] = x
    height = (padded.shape[1] - dilation[0] * (k_h - 1) - 1) // stride[0] + 1
    width = (padded.shape[2] - dilation[1] * (k_w - 1) - 1) // stride[1] + 1
    out = np.zeros((c_out, height, width), dtype=object)
    for o in range(c_out):
        first = (o // (c_out // groups)) * c_in
        for row in range(height):
            for column in range(width):
                window = padded[
                    first : first + c_in,
                    row * stride[0] : row * stride[0] + dilation[0] * (k_h - 1) + 1 : dilation[0],
                    column * stride[1] : column * stride[1]
                    + dilation[1] * (k_w - 1)
                    + 1 : dilation[1],
                ]
                out[o, row, column] = int((window * weight[o].astype(object)).sum())
    return out


def current(synapse, spikes):
    """Current into a population from one sample's spikes, as Python integers."""
    spikes = spikes.astype(object)
    if isinstance(synapse, ConvSynapse):
        total = convolve(
            spikes,
            synapse.weight,
            synapse.stride,
            synapse.padding,
            synapse.dilation,
            synapse.groups,
        )
    else:
        total = synapse.weight.astype(object).dot(spikes.reshape(-1))
    return total * 2**synapse.weight_exponent


def run(program, inputs):
    """Spikes and membrane potentials by layer, (T, N, ...), for graded inputs (N, ...)."""
    wake, sleep = program.schedule.wake_steps, program.schedule.sleep_steps
    spikes = {p.name: [] for p in program.populations}
    membrane = {p.name: [] for p in program.populations}
    for sample in inputs:
        v, count = {}, {}
        for p in program.populations:
            start = np.zeros(p.shape, dtype=object)
            if p.neuron.kind != "READOUT":
                for c in range(p.shape[0]):
                    start[c] = start[c] + int(p.neuron.initial_potential[c])
            v[p.name], count[p.name] = start, np.zeros(p.shape, dtype=object)
        per_step_s = {p.name: [] for p in program.populations}
        per_step_v = {p.name: [] for p in program.populations}
        for t in range(1, wake + sleep + 1):
            awake = t <= wake
            sent = {"input": sample if awake else np.zeros_like(sample)}
            for p in program.populations:
                u = v[p.name]
                for synapse in p.synapses:
                    u = u + current(synapse, sent[synapse.source])
                s = np.zeros(p.shape, dtype=object)
                flat_u, flat_s, flat_n = u.reshape(-1), s.reshape(-1), count[p.name].reshape(-1)
                per_channel = flat_u.size // p.shape[0]
                for i in range(flat_u.size):
                    channel = i // per_channel
                    if awake:
                        flat_u[i] += int(p.bias[channel])
                    if p.neuron.kind == "READOUT":
                        continue
                    theta = int(p.neuron.threshold[channel])
                    if p.neuron.kind == "IF":
                        flat_s[i] = 1 if flat_u[i] >= theta else 0
                    else:
                        want = max(-1, min(1, flat_u[i] // theta))
                        if want <= 0 and flat_n[i] <= 0:
                            want = 0
                        if want > 0 and flat_n[i] >= min(t, wake):
                            want = 0
                        flat_s[i] = want
                    flat_n[i] += flat_s[i]
                    flat_u[i] -= theta * flat_s[i]
                v[p.name], count[p.name] = flat_u.reshape(p.shape), flat_n.reshape(p.shape)
                sent[p.name] = flat_s.reshape(p.shape)
                per_step_s[p.name].append(sent[p.name].astype(np.int64))
                per_step_v[p.name].append(v[p.name].astype(np.int64))
        for p in program.populations:
            spikes[p.name].append(np.stack(per_step_s[p.name]))
            membrane[p.name].append(np.stack(per_step_v[p.name]))
    return (
        {k: np.stack(a, axis=1) for k, a in spikes.items()},
        {k: np.stack(a, axis=1) for k, a in membrane.items()},
    )
