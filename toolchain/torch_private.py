"""Interfaces that torch does not promise to keep; no other file uses any.

Those of numba stand in `compiled.py` and `engine/simd.py`, that of multiprocessing in
`exports/lava/worker.py`. tests/house/test_private_interfaces.py holds each against the installed
versions, so that a new version which lacks one is seen before a user sees it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

INT8_SUMS = ("qconv_prepack", "qconv2d_pointwise", "qlinear_prepack", "qlinear_pointwise")
onednn: Any = torch.ops.onednn
"""Quantized sums of oneDNN, the functions `INT8_SUMS`."""


def processor_has(feature: str) -> bool:
    """Whether the processor has "vnni", "amx_tile" or "avx512_bf16"; False where torch cannot say.

    torch.cpu._is_FEATURE_supported, from 2.5 on.
    """
    asked = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(asked and asked())


def int_product(left: Tensor, right: Tensor) -> Tensor:
    """int32 (m, n) of int8 (m, k) and int8 (k, n): torch._int_mm."""
    product: Tensor = torch._int_mm(left, right)
    return product
