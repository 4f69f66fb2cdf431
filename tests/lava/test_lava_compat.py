"""Each repair is needed and mends what it says; unknown versions are refused.

Lava changes the process it is imported into, so each question is asked in a fresh interpreter.
"""

import subprocess
import sys

import numpy as np
import pytest

from hw_models import lava_compat
from toolchain.errors import MissingDependencyError

NUMPY = tuple(int(p) for p in np.__version__.split(".")[:2])

WITHOUT = """
import warnings
warnings.simplefilter("error", DeprecationWarning)
from hw_models import lava_compat
lava_compat.REPAIRS = tuple(r for r in lava_compat.REPAIRS if r.name != {name!r})
lava_compat.prepare()
"""

EXERCISE = {
    "dataclass-defaults": """
import lava.magma.compiler.var_model as m
a, b = m.CoreEncoder(), m.CoreEncoder()
a.x.base = 5
print("WORKS", b.x.base, b.y == m.ByteEncoder())
""",
    "reshape-keyword": """
import numpy as np
from lava.magma.core.process.ports.ports import OutPort
port = OutPort((2, 3)).flatten()
print("WORKS", port.get_transform_func_fwd()(np.arange(6).reshape(2, 3)).shape,
      port.get_transform_func_bwd()(np.arange(6)).shape)
""",
    "wide-conv": """
import numpy as np
from lava.proc.conv import utils
i8 = lambda *v: np.array(v, np.int8)
out = utils.conv(np.ones((130, 4, 1), np.int32), np.ones((1, 3, 3, 1), np.int32),
                 i8(3, 3), i8(1, 1), i8(1, 1), i8(1, 1), np.int8(1))
print("WORKS", out.shape, out[0, 0, 0], out[64, 2, 0])
""",
}
EXPECTED = {
    "dataclass-defaults": "WORKS 0 True",
    "reshape-keyword": "WORKS (6,) (2, 3)",
    "wide-conv": "WORKS (130, 4, 1) 4 9",
}


def ask(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", [r.name for r in lava_compat.REPAIRS])
def test_with_the_repair(name):
    answer = ask(WITHOUT.format(name="") + EXERCISE[name])
    assert answer.stdout.strip() == EXPECTED[name], answer.stderr


@pytest.mark.parametrize("name", lava_compat.needed_repairs())
def test_fails_without_the_repair(name):
    answer = ask(WITHOUT.format(name=name) + EXERCISE[name])
    assert answer.returncode != 0
    assert "WORKS" not in answer.stdout


def test_only_what_is_needed_is_applied():
    needed = set(lava_compat.needed_repairs())
    assert ("dataclass-defaults" in needed) == (sys.version_info >= (3, 11))
    assert ("reshape-keyword" in needed) == (NUMPY >= (2, 1))
    assert ("wide-conv" in needed) == (NUMPY >= (2, 0))
    answer = ask("from hw_models.lava_compat import prepare; print(prepare(), prepare())")
    assert answer.stdout.strip() == f"{lava_compat.needed_repairs()} {lava_compat.needed_repairs()}"


def test_dataclass_is_itself_again_afterwards():
    answer = ask(
        "import dataclasses; before = dataclasses.dataclass\n"
        "from hw_models.lava_compat import prepare; prepare()\n"
        "print(dataclasses.dataclass is before)"
    )
    assert answer.stdout.strip() == "True"


def test_unknown_and_missing_versions(monkeypatch):
    monkeypatch.setattr(lava_compat, "installed_version", lambda package: "0.11.0")
    with pytest.raises(MissingDependencyError, match=r"lava-nc: is of a version") as error:
        lava_compat.prepare()
    assert "0.11.0" in str(error.value)
    monkeypatch.setattr(lava_compat, "installed_version", lambda package: None)
    with pytest.raises(MissingDependencyError, match=r"lava-nc: is not installed") as error:
        lava_compat.prepare()
    assert "--ignore-requires-python lava-nc==0.10.0" in str(error.value)


@pytest.mark.stock
def test_stock_netx_without_torchvision_and_opencv():
    answer = ask(
        "import sys\n"
        "sys.modules['torchvision'] = sys.modules['cv2'] = None\n"
        "from hw_models.lava_compat import import_stock_netx\n"
        "print(import_stock_netx().Network.__name__)"
    )
    assert answer.stdout.strip().endswith("Network"), answer.stderr
