"""The number of windows of a convolution or pool."""

from __future__ import annotations


def conv_output(
    size: int, kernel: int, stride: int, padding: int, dilation: int, *, ceil_mode: bool = False
) -> int:
    """Length of the output of a convolution or pool along one axis (torch's formula)."""
    steps, rest = divmod(size + 2 * padding - dilation * (kernel - 1) - 1, stride)
    # torch drops the window that ceil_mode adds if it would begin behind the values.
    added = ceil_mode and rest > 0 and (steps + 1) * stride < size + padding
    return steps + 1 + added
