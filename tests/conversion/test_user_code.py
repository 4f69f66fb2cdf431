"""FILE.py:FACTORY and package.module:FACTORY are found as Python finds them, and stay apart."""

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeport.trained_network import InputDescription, load_network
from tests.command_line import ok
from toolchain.cli import audit, convert
from toolchain.conversion.frontend.adapters import load_adapter_file
from toolchain.conversion.frontend.trace import trace
from toolchain.conversion.frontend.user_module import outputs
from toolchain.errors import SpikeportError, UnsupportedModuleError
from toolchain.user_code import load_source

SHAPE = (3,)
DESCRIPTION = InputDescription(SHAPE, None, 8, (0.0,), (1.0,))
NETS = """
    from models.parts import Net
    def net():
        return Net()
"""
PARTS = """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, WIDTH)
        def forward(self, x):
            from late import same
            return same(self.layer(x))
"""


@pytest.fixture
def project(tmp_path):
    """Makes a folder with a package and a module beside the file of a factory."""

    def made(name, width):
        folder = tmp_path / name
        (folder / "models").mkdir(parents=True)
        for file, text in {
            "nets.py": NETS,
            "late.py": "def same(x): return x",
            "models/__init__.py": "",
            "models/parts.py": PARTS.replace("WIDTH", str(width)),
        }.items():
            (folder / file).write_text(textwrap.dedent(text))
        return folder

    return made


def test_two_folders_with_packages_of_one_name(project):
    before, path = set(sys.modules), list(sys.path)
    first, second = project("a", 4), project("b", 5)
    networks = [load_network(f"{f}/nets.py:net", None, DESCRIPTION) for f in (first, second)]
    networks += [load_network(f"{first}/nets.py:net", None, DESCRIPTION)]
    # The forwards import what stands beside them only now.
    shapes = [trace(n.model, SHAPE).shapes()["layer"] for n in networks]
    assert shapes == [(4,), (5,), (4,)]
    assert [len(outputs(n.model, torch.zeros(2, 3))[0][0]) for n in networks] == [4, 5, 4]
    assert type(networks[0].model) is type(networks[2].model)
    assert type(networks[0].model) is not type(networks[1].model)
    assert sys.path == path
    assert {
        n for n in set(sys.modules) - before if n.partition(".")[0] in ("models", "late")
    } == set()


def test_a_loaded_module_of_the_same_name_is_not_taken(project, tmp_path, monkeypatch):
    (tmp_path / "models.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    import models  # noqa: F401

    loaded = sys.modules["models"]
    network = load_network(f"{project('a', 4)}/nets.py:net", None, DESCRIPTION)
    assert type(network.model).__module__ == "models.parts"
    assert sys.modules.pop("models") is loaded
    assert "models.parts" not in sys.modules


def test_what_the_code_puts_on_the_path_goes_with_it(project):
    folder = project("a", 4)
    (folder / "inner").mkdir()
    (folder / "inner" / "late_too.py").write_text("VALUE = 7")
    (folder / "nets.py").write_text(
        "import sys\nsys.path.append(__file__.replace('nets.py', 'inner'))\n"
        "def value():\n    from late_too import VALUE\n    return VALUE\n"
    )
    path = list(sys.path)
    assert load_source(f"{folder}/nets.py").call("value") == 7
    assert sys.path == path
    assert "late_too" not in sys.modules


def test_package_module_from_the_working_folder(project, monkeypatch):
    folder = project("a", 6)
    monkeypatch.chdir(folder)
    network = load_network("models.parts:Net", None, DESCRIPTION)
    assert outputs(network.model, torch.zeros(2, 3))[0].shape == (2, 6)


def test_an_adapter_imports_from_its_folder(project):
    folder = project("a", 4)
    (folder / "adapt.py").write_text(
        "from models.parts import Net\n"
        "from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter\n"
        "@activation_adapter('OnlyInThisTest')\n"
        "def read(module):\n    return ActivationSpec(1.0, 4, 0.5)\n"
    )
    load_adapter_file(folder / "adapt.py")


QUANTIZED = """
import torch
from torch import nn

class OwnQuantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return torch.clamp(torch.floor(x / self.step + 0.5), 0, 3) * self.step

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 6), OwnQuantizer(), nn.Linear(6, 3)).KIND()
"""
ADAPTER = """
from toolchain.conversion.frontend.adapters import ActivationSpec, activation_adapter

@activation_adapter("OwnQuantizer")
def read(module):
    return ActivationSpec(module.step * 3, 3, 0.5)
"""


@pytest.mark.parametrize("kind", ["float", "bfloat16", "double"])
def test_convert_and_audit_take_the_same_adapter(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(QUANTIZED.replace("KIND", kind))
    Path("adapt.py").write_text(ADAPTER)
    samples = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 2)).astype(np.uint8)
    np.savez("d.npz", test_samples=samples, test_labels=np.zeros(6, np.int64))
    net, adapters = Path("n.net"), [Path("adapt.py")]
    shape = {"input_shape": (2, 2, 2), "mean": (0.0,), "std": (1.0,)}
    convert.command("nets.py:net", net, steps=3, adapters=adapters, **shape)
    found = Path("a.json")
    how = {"network": "nets.py:net", "adapters": adapters, "lava_samples": 0, "out": found}
    audit.command(net, "npz:d.npz@test", **how)
    accuracy = json.loads(found.read_text())["versions"]["accuracy"]
    assert accuracy["quantized network"]["total"] == 6


def test_what_a_file_prints_is_no_result(project, tmp_path):
    folder = project("a", 4)
    with (folder / "nets.py").open("a") as file:
        file.write("print('HELLO')\n")
    done = ok(
        *["convert", folder / "nets.py:net", "--input-shape", "3", "-o", "n.net", "--json"],
        cwd=tmp_path,
    )
    assert "HELLO" in done.stderr
    assert "HELLO" not in done.stdout


@pytest.mark.parametrize(
    ("text", "factory", "message"),
    [
        ("1 / 0", "net", r"(?s)the file fails.*ZeroDivisionError.*nets.py:1\)"),
        ("def f(:", "net", r"(?s)the file fails.*SyntaxError.*nets.py, line 1"),
        (
            "import sys\nsys.exit(3)",
            "net",
            r"(?s)the file fails.*SystemExit: 3.*nets.py:2.*__main__",
        ),
        (
            "import nowhere_at_all",
            "net",
            r"(?s)No module named 'nowhere_at_all'.*nets.py:1.*install",
        ),
        ("def net():\n    raise KeyError('k')", "net", r"(?s)factory fails.*KeyError.*nets.py:2\)"),
        ("def net(width): ...", "net", r"(?s)without arguments.*needs width"),
        ("def other(): ...\nfrom os import getcwd", "net", r"(?s)no such factory.*allowed: other$"),
        ("def net(): return 3", "net", r"(?s)must return an nn.Module.*int"),
        ("from torch import nn\ndef net(): return nn.Linear(2, 2).cuda()", "net", r"(?s)leave out"),
    ],
)
def test_whose_code_failed_and_where(tmp_path, text, factory, message):
    (tmp_path / "nets.py").write_text(text)
    with pytest.raises(UnsupportedModuleError, match=message):
        load_network(f"{tmp_path}/nets.py:{factory}", None, DESCRIPTION)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nets.py", r"(?s)needs the name of a factory.*nets.py:net, .*nets.py:other"),
        ("done.net", r"(?s)converted already.*run"),
        ("weights.pt", r"(?s)FILE.py:FACTORY, weights="),
        ("nowhere.module:net", r"(?s)cannot be imported"),
        ("model:resnet51", r"(?s)no such model.*resnet50"),
    ],
)
def test_sources_that_are_no_network(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text("def net(): ...\ndef other(): ...\n")
    for name in ("done.net", "weights.pt"):
        (tmp_path / name).touch()
    with pytest.raises(SpikeportError, match=message):
        load_network(source, None, DESCRIPTION)
