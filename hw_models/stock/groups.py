"""Merging of neighbouring groups of a convolution into fewer groups."""

from __future__ import annotations

import numpy as np


def merge_groups(weight: np.ndarray, groups: int, most: int) -> tuple[np.ndarray, int]:
    """An equal grouped convolution with at most `most` groups.

    Groups are merged in runs of the smallest size that divides them evenly; inside a merged
    group the kernels form blocks on the diagonal, and all other weights are 0.

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
