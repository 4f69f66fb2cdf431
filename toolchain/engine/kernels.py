"""Compiled loops over the neurons of one layer and a block of steps; exact integers throughout.

Neurons are arranged in rows of `width` neurons, with their parameters beside them, so that the
inner loop is long and free of branches and the row's state stays in the cache over all steps.

- A current has one step (equal at every step) or several, followed by zeros. It begins with the row
  `base` and is in units of `unit`, a power of two.
- `direct`, (T or 1, rows, width) or empty, are spikes of a population of the same shape, sent with
  `zero` added. Each reaches one neuron with the weight `gain`, (width,): see `arrive`.
- `initial`, (width,) or empty, is the potential before the first step, if the block begins there.
- `v`, (rows, width), is the potential, which is written only if `kept`.
- `trace`, (T, rows, width) or empty, gets the potential after each step.

Every kernel runs over the rows `start .. stop` and returns the lowest and highest value of the
current and of the state before firing, which the caller checks. The equations are in
`toolchain.program.neurons`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from toolchain.compiled import compiled, compiled_with

Kernel = Callable[..., tuple[int, int, int, int]]
"""`kernel(*arguments, start, stop)` returns the extremes."""


@compiled
def copy_row(into, values):  # type: ignore[no-untyped-def]
    """Copy (width,) values; a slice of an array would compile slowly because of its check."""
    for k in range(into.shape[0]):
        into[k] = values[k]


@compiled
def accumulate(total, current, unit, first, start, stop):  # type: ignore[no-untyped-def]
    """Add `current * unit` to `total`, int (T, rows, width); the `first` one overwrites it."""
    one = total.dtype.type(unit)
    for row in range(start, stop):
        for t in range(total.shape[0]):
            into = total[t, row]
            if first:
                into[:] = 0
            if current.shape[0] > 1 and t >= current.shape[0]:
                continue
            drive = current[t if current.shape[0] > 1 else 0, row]
            for k in range(into.shape[0]):
                into[k] += into.dtype.type(drive[k]) * one
    return 0, 0, 0, 0


@compiled
def heard(current, t):  # type: ignore[no-untyped-def]
    """Index of the current's step that applies at step t, or -1 for none."""
    if current.shape[0] == 1:
        return 0
    return t if t < current.shape[0] else -1


@compiled
def arrive(into, current, base, unit, direct, zero, gain, t, row):  # type: ignore[no-untyped-def]
    """Write the input of a row at step t, the current and the direct spikes, into `into`."""
    kind = into.dtype.type
    step = heard(current, t)
    if step < 0:
        into[:] = 0
    else:
        drive = current[step, row - base]
        for k in range(into.shape[0]):
            into[k] = kind(drive[k]) * kind(unit)
    if direct.shape[0]:
        spikes = direct[t if direct.shape[0] > 1 else 0, row]
        for k in range(into.shape[0]):
            into[k] += gain[k] * (kind(spikes[k]) - kind(zero))


@compiled
def begin(potential, initial, v, kept, row):  # type: ignore[no-untyped-def]
    """Set a row's potential to its value before a block."""
    if initial.shape[0]:
        copy_row(potential, initial)
    elif not kept:
        copy_row(potential, v[row])


@compiled
def fire(potential, drive, unit, bias, threshold, fired, reach):  # type: ignore[no-untyped-def]
    """Compute one step of a row of IF neurons, with the current `drive * unit`."""
    kind = potential.dtype.type
    one = kind(unit)
    low_current, high_current, low, high = reach[0], reach[1], reach[2], reach[3]
    for k in range(potential.shape[0]):
        i = kind(kind(drive[k]) * one)
        u = kind(potential[k] + i + bias[k])
        low_current, high_current = min(low_current, i), max(high_current, i)
        low, high = min(low, u), max(high, u)
        fires = u >= threshold[k]
        fired[k] = np.uint8(fires)
        potential[k] = u - threshold[k] if fires else u
    reach[0], reach[1], reach[2], reach[3] = low_current, high_current, low, high


@compiled_with(error_model="numpy")
def fire_graded(  # type: ignore[no-untyped-def]
    potential, drive, unit, bias, threshold, most, fired, reach
):
    """Compute one step as `fire`, of neurons that send up to `most` spikes as one.

    The quotient of two integers of 32 bits that is below 128 is never rounded to the next integer:
    it differs from it by 2^-31 or more, and float64 has 45 bits behind the point there.
    """
    kind = potential.dtype.type
    one = kind(unit)
    low_current, high_current, low, high = reach[0], reach[1], reach[2], reach[3]
    for k in range(potential.shape[0]):
        i = kind(kind(drive[k]) * one)
        u = kind(potential[k] + i + bias[k])
        low_current, high_current = min(low_current, i), max(high_current, i)
        low, high = min(low, u), max(high, u)
        thresholds = min(max(np.float64(u) / np.float64(threshold[k]), 0.0), np.float64(most))
        spikes = np.int32(thresholds)
        fired[k] = np.uint8(spikes)
        potential[k] = u - threshold[k] * kind(spikes)
    reach[0], reach[1], reach[2], reach[3] = low_current, high_current, low, high


@compiled
def fire_up_to(  # type: ignore[no-untyped-def]
    potential, drive, unit, bias, threshold, most, fired, reach
):
    """Compute one step as `fire`, or as `fire_graded` if `most` is above 1."""
    if most == 1:
        fire(potential, drive, unit, bias, threshold, fired, reach)
    else:
        fire_graded(potential, drive, unit, bias, threshold, most, fired, reach)


@compiled
def integrate_and_fire(  # type: ignore[no-untyped-def]
    current,
    unit,
    base,
    direct,
    zero,
    gain,
    bias,
    threshold,
    most,
    initial,
    v,
    kept,
    spikes,
    trace,
    start,
    stop,
):
    """Run IF neurons, which send up to `most` spikes of a step as one."""
    reach = np.zeros(4, v.dtype)
    arriving, spare = np.empty(v.shape[1], v.dtype), np.empty(v.shape[1], v.dtype)
    for row in range(start, stop):
        potential = v[row] if kept else spare
        begin(potential, initial, v, kept, row)
        for t in range(spikes.shape[0]):
            step, fired = heard(current, t), spikes[t, row]
            if direct.shape[0] or step < 0:
                arrive(arriving, current, base, unit, direct, zero, gain, t, row)
                fire_up_to(potential, arriving, 1, bias, threshold, most, fired, reach)
            else:
                drive = current[step, row - base]
                fire_up_to(potential, drive, unit, bias, threshold, most, fired, reach)
            if trace.shape[0]:
                copy_row(trace[t, row], potential)
    return reach[0], reach[1], reach[2], reach[3]


@compiled
def fire_consistently(  # type: ignore[no-untyped-def]
    potential, count, cap, drive, unit, bias, threshold, fired, reach
):
    """Compute one step of a row of CIF neurons, with the current `drive * unit`.

    Returns whether any neuron has fired.
    """
    kind = potential.dtype.type
    one = kind(unit)
    low_current, high_current, low, high = reach[0], reach[1], reach[2], reach[3]
    busy = False
    for k in range(potential.shape[0]):
        i = kind(kind(drive[k]) * one)
        u = kind(potential[k] + i + bias[k])
        low_current, high_current = min(low_current, i), max(high_current, i)
        low, high = min(low, u), max(high, u)
        n = np.int32(count[k])
        up = (u >= threshold[k]) & (n < cap)
        down = (u < 0) & (n > 0)
        busy |= up | down
        # Numba widens integers to 64 bits; in this form LLVM recognises that 32 and 8 are enough.
        rose, fell = np.int32(up), np.int32(down)
        fired[k] = np.uint8(1 + rose - fell)
        count[k] = n + rose - fell
        potential[k] = u - (threshold[k] & -kind(rose)) + (threshold[k] & -kind(fell))
    reach[0], reach[1], reach[2], reach[3] = low_current, high_current, low, high
    return busy


@compiled
def consistent_integrate_and_fire(  # type: ignore[no-untyped-def]
    current,
    unit,
    base,
    direct,
    zero,
    gain,
    bias,
    threshold,
    initial,
    v,
    kept,
    counts,
    wakes,
    awake,
    spikes,
    trace,
    start,
    stop,
):
    """Run CIF neurons; `wakes` are the wake steps before this block, spikes are sent as 1 + s.

    On sleep steps, a current that is equal at every step is zero. A row that has not fired in a
    step does not fire again until a spike arrives.
    """
    last = 0 if current.shape[0] == 1 else current.shape[0] - 1
    if awake or direct.shape[0]:
        last = spikes.shape[0]
    reach = np.zeros(4, v.dtype)
    arriving, spare = np.empty(v.shape[1], v.dtype), np.empty(v.shape[1], v.dtype)
    for row in range(start, stop):
        potential, count = v[row] if kept else spare, counts[row]
        begin(potential, initial, v, kept, row)
        if initial.shape[0]:
            count[:] = 0
        for t in range(spikes.shape[0]):
            cap = np.int32(wakes + t + 1 if awake else wakes)
            fired = spikes[t, row]
            step = heard(current, t)
            if direct.shape[0] or step < 0:
                arrive(arriving, current, base, unit, direct, zero, gain, t, row)
                busy = fire_consistently(
                    potential, count, cap, arriving, 1, bias, threshold, fired, reach
                )
            else:
                drive = current[step, row - base]
                busy = fire_consistently(
                    potential, count, cap, drive, unit, bias, threshold, fired, reach
                )
            if trace.shape[0]:
                copy_row(trace[t, row], potential)
            if t >= last and not busy:
                spikes[t:, row] = 1
                for later in range(t + 1, trace.shape[0]):
                    copy_row(trace[later, row], potential)
                break
    return reach[0], reach[1], reach[2], reach[3]


@compiled
def read_out(  # type: ignore[no-untyped-def]
    current, unit, base, direct, zero, gain, bias, initial, v, trace, start, stop
):
    """Run a readout; `trace` gets the accumulator after each step."""
    kind = v.dtype.type
    low_current = high_current = kind(0)
    low = high = kind(0)
    arriving = np.empty(v.shape[1], v.dtype)
    for row in range(start, stop):
        accumulator = v[row]
        begin(accumulator, initial, v, True, row)
        for t in range(trace.shape[0]):
            arrive(arriving, current, base, unit, direct, zero, gain, t, row)
            for k in range(accumulator.shape[0]):
                i = arriving[k]
                u = kind(accumulator[k] + i + bias[k])
                low_current, high_current = min(low_current, i), max(high_current, i)
                low, high = min(low, u), max(high, u)
                accumulator[k] = u
            copy_row(trace[t, row], accumulator)
    return low_current, high_current, low, high


@compiled
def relay(  # type: ignore[no-untyped-def]
    current, unit, base, direct, zero, gain, offset, spikes, start, stop
):
    """Run a relay: it sends the current as a graded spike, with `offset` added."""
    low = high = np.int64(0)
    arriving = np.empty(spikes.shape[2], gain.dtype)
    for row in range(start, stop):
        for t in range(spikes.shape[0]):
            arrive(arriving, current, base, unit, direct, zero, gain, t, row)
            fired = spikes[t, row]
            for k in range(fired.shape[0]):
                i = np.int64(arriving[k])
                low, high = min(low, i), max(high, i)
                fired[k] = np.uint8(i + offset)
    return low, high, low, high


@compiled
def count_up(incoming, t, sample, offset, counts):  # type: ignore[no-untyped-def]
    """Add bytes (T, n, H, W, C), less `offset`, to int32 `counts`; returns their extremes."""
    low = high = np.int32(0)
    for y in range(counts.shape[1]):
        for x in range(counts.shape[2]):
            for k in range(counts.shape[3]):
                arrived = np.int32(incoming[t, sample, y, x, k]) - np.int32(offset)
                n = counts[sample, y, x, k] + arrived
                low, high = min(low, n), max(high, n)
                counts[sample, y, x, k] = n
    return low, high


@compiled
def largest_of_window(  # type: ignore[no-untyped-def]
    counts, sample, top, left, kernel, dilation, largest
):
    """Write the maximum of one window of `counts`, (n, H, W, C), and 0 into `largest`, (C,)."""
    for k in range(largest.shape[0]):
        largest[k] = 0
    for a in range(kernel[0]):
        row = top + a * dilation[0]
        for b in range(kernel[1]):
            column = left + b * dilation[1]
            if 0 <= row < counts.shape[1] and 0 <= column < counts.shape[2]:
                for k in range(largest.shape[0]):
                    largest[k] = max(largest[k], counts[sample, row, column, k])


@compiled
def lipool(  # type: ignore[no-untyped-def]
    incoming, offset, kernel, stride, padding, dilation, counts, largest, spikes, trace, start, stop
):
    """Run LIPool on `incoming` bytes (T, n, H, W, C), for the samples `start .. stop`.

    `counts`, int32 (n, H, W, C), are the source's; `largest`, int32 (n, H_out, W_out, C), the sum
    of the spikes sent so far; `spikes` are sent with `offset` added.
    """
    low = high = np.int32(0)
    now = np.zeros(counts.shape[3], np.int32)
    for sample in range(start, stop):
        for t in range(spikes.shape[0]):
            arriving = t if incoming.shape[0] > 1 else 0
            lowest, highest = count_up(incoming, arriving, sample, offset, counts)
            low, high = min(low, lowest), max(high, highest)
            for y in range(spikes.shape[2]):
                for x in range(spikes.shape[3]):
                    top, left = y * stride[0] - padding[0], x * stride[1] - padding[1]
                    largest_of_window(counts, sample, top, left, kernel, dilation, now)
                    for k in range(now.shape[0]):
                        rise = now[k] - largest[sample, y, x, k]
                        spikes[t, sample, y, x, k] = np.uint8(rise + offset)
                        largest[sample, y, x, k] = now[k]
                        if trace.shape[0]:
                            trace[t, sample, y, x, k] = now[k]
    return low, high, low, high
