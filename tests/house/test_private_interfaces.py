"""What torch, numba and Python do not promise: used in few files, and there in these versions."""

import re
from multiprocessing import shared_memory
from pathlib import Path

import torch
from numba.core import caching, cgutils, event

from tests.command_line import ROOT
from toolchain import torch_private
from toolchain.conversion.frontend.exported import FUNCTIONS

HOMES = {
    "toolchain/torch_private.py": r"torch\.(?:\w+\.)*_[a-z]\w*|torch\.ops\b|torch\._C",
    "toolchain/(compiled|engine/simd).py": r"numba\.core\b",
    "exports/lava/worker.py": r"\b_make_filename\b",
}


def test_no_other_file_uses_any():
    for home, pattern in HOMES.items():
        used = {
            path.relative_to(ROOT).as_posix()
            for package in ("spikeport", "toolchain", "hw_models", "exports")
            for path in (ROOT / package).rglob("*.py")
            if re.search(pattern, path.read_text())
        }
        assert used
        assert all(re.fullmatch(home, path) for path in used), used


def test_torch_has_them():
    assert all(callable(getattr(torch_private.onednn, n)) for n in torch_private.INT8_SUMS)
    assert all(str(operator).startswith("aten.") for operator in FUNCTIONS)
    (flags, *_) = re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    for feature in ("avx512_vnni", "amx_tile", "avx512_bf16"):
        asked = feature.replace("avx512_vnni", "vnni")
        assert hasattr(torch.cpu, f"_is_{asked}_supported")
        assert torch_private.processor_has(asked) == (feature in flags.split())
    assert not torch_private.processor_has("imaginary_unit")
    tensor = torch.zeros(2)
    before = torch_private.write_count(tensor)
    tensor[:1].add_(1)
    assert torch_private.write_count(tensor) == before + 1
    left = torch.tensor([[127, -128]] * 32, dtype=torch.int8).repeat(1, 8)
    right = torch.full((16, 8), -128, dtype=torch.int8)
    assert torch_private.int_product(left, right).tolist() == [[8 * (127 - 128) * -128] * 8] * 32


def test_numba_and_python_have_them():
    kept = ("_load_index", "_save_index", "_load_data", "_save_data", "_open_for_write", "_dump")
    assert all(callable(getattr(caching.IndexDataCacheFile, name)) for name in kept)
    for name in ("load_overload", "save_overload"):
        assert callable(getattr(caching.FunctionCache, name))
    assert callable(event.register)
    assert callable(cgutils.for_range)
    assert shared_memory._make_filename().startswith("/")  # type: ignore[attr-defined]
