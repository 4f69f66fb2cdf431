"""Private interfaces of torch; no other file uses any.

Those of numba are in `compiled.py` and `engine/simd.py`, that of multiprocessing in
`exports/lava/worker.py`. tests/house/test_private_interfaces.py checks each against the installed
versions, so that a new version without one is noticed before a user notices it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree
from torch import Tensor

INT8_SUMS = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")
onednn: Any = torch.ops.onednn
"""Quantized products of oneDNN, the functions in `INT8_SUMS`."""
aten: Any = torch.ops.aten
"""Operators of which torch.export makes its graphs."""


def processor_has(feature: str) -> bool:
    """Whether the CPU has "vnni", "amx_tile" or "avx512_bf16"; False if torch cannot say.

    Uses torch.cpu._is_FEATURE_supported, which exists since torch 2.5.
    """
    asked = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(asked and asked())


def int_product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product int32 (m, n) of int8 (m, k) and int8 (k, n), by torch._int_mm."""
    product: Tensor = torch._int_mm(left, right)
    return product


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Nested tuples, lists and dictionaries with each value replaced, by torch's tree_map."""
    return torch.utils._pytree.tree_map(function, values)


def write_count(tensor: Tensor) -> int:
    """How often operations have written into a tensor or a view of it, by Tensor._version."""
    return int(tensor._version)
