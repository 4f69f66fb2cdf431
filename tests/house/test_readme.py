"""What README and the pages tell a newcomer to type works as it stands there."""

import os
import re
import subprocess
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from exports.netx import read_net
from spikeport import QCFS
from tests.command_line import ROOT, ok
from toolchain.simulator.reference import simulate


def blocks(document, language):
    fences = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / document).read_text(), re.S | re.M)
    return [text for name, text in fences if name == language]


def test_your_own_network(tmp_path):
    """The commands of "Your own network", on random images in place of Fashion-MNIST."""
    code, adapter = blocks("docs/QUICKSTART.md", "python")
    (lava,) = blocks("docs/LAVA.md", "python")
    (tmp_path / "nets.py").write_text(code)
    (tmp_path / "adapter.py").write_text(adapter)
    weights = "import nets; from safetensors.torch import save_file; import torch\n"
    weights += "torch.manual_seed(0); save_file(nets.small().state_dict(), 'small.safetensors')\n"
    subprocess.run([sys.executable, "-c", weights], cwd=tmp_path, check=True)
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        test_samples=rng.integers(0, 256, (3, 28, 28)).astype(np.uint8),
        test_labels=np.arange(3),
    )
    (commands,) = [b for b in blocks("docs/QUICKSTART.md", "") if "nets.py:small" in b]
    for line in commands.strip().splitlines():
        arguments = line.replace("fashion-mnist@test[:100]", "npz:images.npz").split()
        assert arguments[0] == "spikeport"
        shown = ok(*arguments[1:], cwd=tmp_path).stdout
    assert "0 mismatches" in shown
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", lava],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # The table, and the readout of a black image, which the bias alone decides.
    assert result.stdout.startswith("|   Type   |")
    (logits,) = simulate(read_net(tmp_path / "small.net"), np.zeros((1, 1, 28, 28), int)).logits
    assert result.stdout.rpartition("|\n")[2].strip("[] \n").replace(".", "").split() == [
        str(value) for value in logits
    ]
    arguments = "convert nets.py:small --input-shape 1,28,28 -o a.net --adapter adapter.py"
    ok(*arguments.split(), cwd=tmp_path)


def test_ten_lines_from_a_module_to_lava(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), QCFS(levels=4), nn.Flatten(), nn.Linear(144, 10)
    )
    images = torch.rand(24, 1, 8, 8)
    train_set = TensorDataset(images, torch.arange(24) % 10)
    test_set = TensorDataset(images[:5], torch.arange(5))
    monkeypatch.chdir(tmp_path)
    (lines,) = blocks("README.md", "python")
    exec(compile(lines, "README.md", "exec"), locals())
    assert ", 0 mismatches" in capsys.readouterr().out
    assert (tmp_path / "audit.html").is_file()


def test_the_tutorial(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks("docs/TUTORIAL.md", "python"))
    exec(compile(code, "TUTORIAL.md", "exec"), {})
    shown = capsys.readouterr().out
    assert " values compared, 0 mismatches" in shown
    accuracies = [float(found) for found in re.findall(r"([\d.]+) %", shown)]
    one_step = [accuracies.pop(10), accuracies.pop(10)]
    assert len(accuracies) == 11
    assert min(accuracies) > 90
    assert one_step[1] > one_step[0] + 5
