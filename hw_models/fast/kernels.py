"""Compiled event-driven kernels of the fast models: their work grows with the spikes.

Arrays are in Lava's order after the batch axis, (B, W, H, C). Sums are int32, whose bounds
are proved before a run. The code follows the semantic contract and shares nothing with a simulator.
"""

from __future__ import annotations

import numpy as np

from toolchain.compiled import compiled


@compiled
def add_run(total, to, weight, at, length, spike):  # type: ignore[no-untyped-def]
    """Compute `total[to : to + length] += spike * weight[at : at + length]`, both flat.

    Slices avoid the check for negative indices in the loop, which would prevent vectorisation.
    """
    into, row = total[to : to + length], weight[at : at + length]
    for k in range(into.shape[0]):
        into[k] += spike * row[k]


@compiled
def convolve(spikes, weight, reached, runs, out_shape, total):  # type: ignore[no-untyped-def]
    """Add the currents of each spike of (B, W, H, C) to `total`.

    Parameters
    ----------
    weight:
        Flat array of (G, K_w, C/G, K_h reversed, C'/G).
    reached:
        (W, K_w): column of the target for each position and tap, or -1 for none.
    runs:
        (H, R, 3): per row, the runs of targets that are consecutive in memory: the first target,
        the first of the reversed taps, and the length; a length of 0 ends the list.
    out_shape:
        (G, C/G, K_w, K_h, H', C').
    total:
        int32, flat array of (B, W', H', C').
    """
    groups, per_group, taps_x, taps_y, height, sent_to = out_shape
    of_group = sent_to // groups
    by_tap, by_channel = per_group * taps_y * of_group, taps_y * of_group
    sample = total.shape[0] // spikes.shape[0]
    for b in range(spikes.shape[0]):
        for x in range(spikes.shape[1]):
            for y in range(spikes.shape[2]):
                for channel in range(spikes.shape[3]):
                    spike = np.int32(spikes[b, x, y, channel])
                    if spike == 0:
                        continue
                    group, c = divmod(channel, per_group)
                    for i in range(taps_x):
                        column = reached[x, i]
                        if column < 0:
                            continue
                        base = b * sample + column * height * sent_to + group * of_group
                        row = (group * taps_x + i) * by_tap + c * by_channel
                        for r in range(runs.shape[1]):
                            count = runs[y, r, 2]
                            if count == 0:
                                break
                            to = base + runs[y, r, 0] * sent_to
                            at = row + runs[y, r, 1] * of_group
                            add_run(total, to, weight, at, count * of_group, spike)


@compiled
def convolve_depthwise(spikes, weight, reached_x, reached_y, total):  # type: ignore[no-untyped-def]
    """Convolve as `convolve`, with one weight per channel and tap, (K_w, K_h, C).

    `total` is int32 (B, W', H', C); `reached_x`, (W, K_w), has the target columns, and `reached_y`,
    (H, K_h), the target rows.
    """
    for b in range(spikes.shape[0]):
        for x in range(spikes.shape[1]):
            for y in range(spikes.shape[2]):
                for i in range(weight.shape[0]):
                    for j in range(weight.shape[1]):
                        column, row = reached_x[x, i], reached_y[y, j]
                        if column >= 0 and row >= 0:
                            # Arrays are not sliced: each slice would count its uses.
                            for k in range(weight.shape[2]):
                                current = np.int32(spikes[b, x, y, k]) * np.int32(weight[i, j, k])
                                total[b, column, row, k] += current


@compiled
def connect(spikes, weight, outputs, total):  # type: ignore[no-untyped-def]
    """Add the currents of each spike of (B, F) to `total`, int32, a flat array of (B, F').

    `weight` is a flat array of (F, F'); `outputs` is F'.
    """
    for b in range(spikes.shape[0]):
        for f in range(spikes.shape[1]):
            spike = np.int32(spikes[b, f])
            if spike != 0:
                add_run(total, b * outputs, weight, f * outputs, outputs, spike)


@compiled
def connect_delayed(spikes, weight, delays, now, total):  # type: ignore[no-untyped-def]
    """Connect as `connect`, with weights and delays in steps, both (F, F'), into a ring of steps.

    `total` is int32 (B, R, F'), whose row `now` is the step without delay.
    """
    for b in range(spikes.shape[0]):
        for f in range(spikes.shape[1]):
            spike = np.int32(spikes[b, f])
            if spike != 0:
                for k in range(weight.shape[1]):
                    at = (now + delays[f, k]) % total.shape[1]
                    total[b, at, k] += spike * np.int32(weight[f, k])


@compiled
def fire_if(total, bias, threshold, v, spikes):  # type: ignore[no-untyped-def]
    """Compute one IF step of (N, C) neurons; returns the extremes of v before firing."""
    low = high = np.int32(0)
    for n in range(v.shape[0]):
        for k in range(v.shape[1]):
            u = v[n, k] + total[n, k] + bias[k]
            low, high = min(low, u), max(high, u)
            fires = u >= threshold[k]
            spikes[n, k] = np.int8(fires)
            v[n, k] = u - threshold[k] if fires else u
    return low, high


@compiled
def fire_graded(total, bias, threshold, most, v, spikes):  # type: ignore[no-untyped-def]
    """Compute one step of (N, C) graded IF neurons, whose largest spike is `most`."""
    low = high = np.int32(0)
    for n in range(v.shape[0]):
        for k in range(v.shape[1]):
            u = v[n, k] + total[n, k] + bias[k]
            low, high = min(low, u), max(high, u)
            s = np.int32(0)
            if u >= threshold[k]:
                s = np.int32(min(u // threshold[k], most))
            spikes[n, k] = np.int8(s)
            v[n, k] = u - s * threshold[k]
    return low, high


@compiled
def fire_cif(total, bias, threshold, v, counts, wakes, spikes):  # type: ignore[no-untyped-def]
    """Compute one CIF step of (N, C) neurons; `wakes` counts the wake steps, this one included."""
    low = high = np.int32(0)
    for n in range(v.shape[0]):
        for k in range(v.shape[1]):
            u = v[n, k] + total[n, k] + bias[k]
            low, high = min(low, u), max(high, u)
            s = np.int32(0)
            if u >= threshold[k] and counts[n, k] < wakes:
                s = np.int32(1)
            elif u < 0 and counts[n, k] > 0:
                s = np.int32(-1)
            spikes[n, k] = np.int8(s)
            counts[n, k] += s
            v[n, k] = u - s * threshold[k]
    return low, high


@compiled
def fire_lipool(  # type: ignore[no-untyped-def]
    arrived, kernel, stride, padding, dilation, counts, largest, spikes
):
    """Compute one LIPool step: update counts (B, W, H, C) and `largest` (B, W', H', C).

    Returns the extremes of the counts.
    """
    low = high = np.int32(0)
    width, height = counts.shape[1], counts.shape[2]
    now = np.empty(counts.shape[3], np.int32)
    for b in range(counts.shape[0]):
        for x in range(width):
            for y in range(height):
                for k in range(counts.shape[3]):
                    count = counts[b, x, y, k] + np.int32(arrived[b, x, y, k])
                    low, high = min(low, count), max(high, count)
                    counts[b, x, y, k] = count
        for x in range(largest.shape[1]):
            for y in range(largest.shape[2]):
                for k in range(now.shape[0]):
                    now[k] = np.iinfo(np.int32).min
                for i in range(kernel[0]):
                    column = x * stride[0] - padding[0] + i * dilation[0]
                    for j in range(kernel[1]):
                        row = y * stride[1] - padding[1] + j * dilation[1]
                        if 0 <= column < width and 0 <= row < height:
                            for k in range(now.shape[0]):
                                now[k] = max(now[k], counts[b, column, row, k])
                for k in range(now.shape[0]):
                    spikes[b, x, y, k] = np.int8(now[k] - largest[b, x, y, k])
                    largest[b, x, y, k] = now[k]
    return low, high
