"""Fewer groups for the same convolution: neighbouring groups become one with zeros between them."""

from __future__ import annotations

import numpy as np


def merge_groups(weight: np.ndarray, groups: int, most: int) -> tuple[np.ndarray, int]:
    """The same grouped convolution in at most `most` groups.

    Groups are merged in runs of the smallest size that divides them evenly; inside a merged
    group the kernels stand in blocks on a diagonal and all others are 0, which adds nothing.

    Parameters
    ----------
    weight:
        Integers, (C_out, C_in/groups, K_h, K_w).

    Returns
    -------
    Integers of the same type, (C_out, C_in/merged, K_h, K_w), and the number of merged groups.
    """
    if groups <= most:
        return weight, groups
    run = next(r for r in range(2, groups + 1) if groups % r == 0 and groups // r <= most)
    c_out, per_group, *kernel = weight.shape
    merged = np.zeros((c_out, per_group * run, *kernel), weight.dtype)
    for channel in range(c_out):
        block = channel // (c_out // groups) % run
        merged[channel, block * per_group : (block + 1) * per_group] = weight[channel]
    return merged, groups // run
