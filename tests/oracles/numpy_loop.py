"""A plain NumPy loop over samples, steps and layers, written from the semantic contract.

It reads the program's arrays and nothing else: convolutions are loops over output positions,
pools over real elements only, neurons are written out anew.
"""

import numpy as np

from toolchain.program.synapse import ConvSynapse


def convolve(x, weight, stride, padding, dilation, groups, upsample=(1, 1), overhang=(0, 0)):
    """Correlation of one sample x (C, H, W), by its definition.

    Every value stands `upsample` from the next; below and to the right there is `overhang` more.
    """
    c_out, c_in, k_h, k_w = weight.shape
    sizes = [
        (size - 1) * step + 1 + 2 * pad + more
        for size, step, pad, more in zip(x.shape[1:], upsample, padding, overhang, strict=True)
    ]
    padded = np.zeros((x.shape[0], *sizes), dtype=object)
    for row, column in np.ndindex(*x.shape[1:]):
        y, z = padding[0] + row * upsample[0], padding[1] + column * upsample[1]
        padded[:, y, z] = x[:, row, column]
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
            synapse.upsample,
            synapse.overhang,
        )
    else:
        total = synapse.weight.astype(object).dot(spikes.reshape(-1))
    return total * 2**synapse.weight_exponent


def largest_in_windows(counts, synapse):
    """Max pool of counts (C, H, W), by its definition: over the real elements of each window."""
    (k_h, k_w), (s_h, s_w) = synapse.kernel, synapse.stride
    (p_h, p_w), (d_h, d_w) = synapse.padding, synapse.dilation
    channels, height, width = counts.shape
    down, right = synapse.overhang
    rows = (height + 2 * p_h + down - d_h * (k_h - 1) - 1) // s_h + 1
    columns = (width + 2 * p_w + right - d_w * (k_w - 1) - 1) // s_w + 1
    out = np.zeros((channels, rows, columns), np.int64)
    for c, row, column in np.ndindex(out.shape):
        places = [
            (row * s_h - p_h + i * d_h, column * s_w - p_w + j * d_w)
            for i in range(k_h)
            for j in range(k_w)
        ]
        out[c, row, column] = max(
            counts[c, y, x] for y, x in places if 0 <= y < height and 0 <= x < width
        )
    return out


def fire(neuron, u, theta, count, wake_steps_so_far):
    """Spike of one neuron, from the equations of docs/METHODS.md, in Python integers."""
    kind = neuron.kind
    if kind == "READOUT":
        return 0
    if kind == "IF":
        return 1 if u >= theta else 0
    if kind == "GRADED_IF":
        return max(0, min(neuron.max_spike, u // theta))
    want = max(-1, min(1, u // theta))
    if want <= 0 and count <= 0:
        return 0
    if want > 0 and count >= wake_steps_so_far:
        return 0
    return want


def run_sample(program, sample):
    """Spikes and membrane potentials by layer, (T, ...), for one graded sample, or a sequence."""
    wake, steps = program.schedule.wake_steps, program.schedule.num_steps
    v, sums, theta = {}, {}, {}
    spikes = {p.name: [] for p in program.populations}
    membrane = {p.name: [] for p in program.populations}
    for p in program.populations:
        size, channels = int(np.prod(p.shape)), p.shape[0]
        of = [i // (size // channels) for i in range(size)]
        fires = p.neuron.kind in ("IF", "CIF", "GRADED_IF")
        v[p.name] = [int(p.neuron.initial_potential[c]) if fires else 0 for c in of]
        theta[p.name] = [int(p.neuron.threshold[c]) if fires else 0 for c in of]
        sums[p.name] = np.zeros(p.shape, np.int64)
    for t in range(1, steps + 1):
        awake = t <= wake
        now = sample[min(t, wake) - 1] if program.input.per_step else sample
        sent = {"input": now if awake else np.zeros_like(now)}
        for p in program.populations:
            if p.neuron.kind == "LIPOOL":
                (synapse,) = p.synapses
                largest = largest_in_windows(sums[synapse.source], synapse)
                s, v[p.name] = largest - sums[p.name], largest
            else:
                total = sum(current(s, sent[s.source]) for s in p.synapses).reshape(-1)
                s = step_of_all(
                    p, total, awake, v[p.name], theta[p.name], sums[p.name], min(t, wake)
                )
            sent[p.name] = s.reshape(p.shape)
            sums[p.name] = sums[p.name] + sent[p.name]
            spikes[p.name].append(sent[p.name])
            membrane[p.name].append(np.array(v[p.name], np.int64).reshape(p.shape))
    return spikes, membrane


def step_of_all(p, total, awake, v, theta, sums, wake_steps_so_far):
    """Spikes of all neurons of one layer for its summed current, (F,); changes `v`."""
    if p.neuron.kind == "RELAY":
        return np.array([int(x) for x in total], np.int64)
    s = np.zeros(total.size, np.int64)
    per_channel = total.size // p.shape[0]
    counts = sums.reshape(-1)
    for i in range(total.size):
        u = v[i] + int(total[i])
        u += int(p.bias[i // per_channel]) if awake else 0
        s[i] = fire(p.neuron, u, theta[i], int(counts[i]), wake_steps_so_far)
        v[i] = u - theta[i] * int(s[i])
    return s


def run(program, inputs):
    """Spikes and membrane potentials by layer, (T, N, ...), for graded inputs (N, ...)."""
    results = [run_sample(program, sample) for sample in inputs]
    return tuple(
        {p.name: np.stack([r[which][p.name] for r in results], 1) for p in program.populations}
        for which in (0, 1)
    )
