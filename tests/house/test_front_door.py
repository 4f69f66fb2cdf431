"""`import spikeport`: what a person with a trained module types."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import spikeport
from tests.command_line import ROOT
from tests.networks import random_inputs, random_program
from toolchain.errors import (
    CheckpointError,
    ConversionError,
    DataError,
    SpikeportError,
    UnsupportedModuleError,
    UsageError,
)
from toolchain.learning.data import Samples
from toolchain.moved import MOVED
from toolchain.program.int_program import Schedule

LEVELS = 4


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        spikeport.QCFS(levels=LEVELS),
        nn.Flatten(),
        nn.Linear(4 * 6 * 6, 5),
    )


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (20, 1, 6, 6)).astype(np.uint8)


@pytest.fixture(scope="module")
def program(model, pixels):
    return spikeport.convert(model, calibrate=pixels).program


def test_importing_it_is_cheap():
    code = (
        "import sys, time; start = time.perf_counter(); import spikeport; "
        "print(time.perf_counter() - start, sorted({'torch', 'lava', 'numpy'} & {*sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = run.stdout.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 1.0  # tenths of it on a machine with nothing else to do


@pytest.mark.parametrize("name", ["exports.py", "toolchain/__init__.py", "hw_models/x.py"])
def test_a_file_of_the_users_that_hides_a_package(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine = 1\n")
    (tmp_path / "script.py").write_text("import spikeport\nprint(len(spikeport.__all__))\n")
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if name == "hw_models/x.py":  # a folder without __init__.py hides nothing
        assert run.stdout.strip() == str(len(spikeport.__all__)), run.stderr
    else:
        hidden = name.partition("/")[0].removesuffix(".py")
        assert f"spikeport has a package `{hidden}`" in run.stderr
        assert str(tmp_path / name) in run.stderr


def test_every_public_name_is_there_and_documented():
    assert dir(spikeport) == sorted(set(spikeport.__all__))
    for name in spikeport.__all__:
        value = getattr(spikeport, name)
        assert name.startswith("__") or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spikeport.nothing


def test_examples_in_docstrings_run():
    import doctest

    for name in spikeport.__all__:
        home = getattr(getattr(spikeport, name), "__module__", "")
        if home.startswith("spikeport."):
            assert doctest.testmod(import_module(home)).failed == 0


def test_a_module_is_left_as_it_was(model, pixels):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    model[1].eval()
    spikeport.convert(model, calibrate=pixels)
    assert [m.training for m in model] == [True, False, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Images(torch.utils.data.Dataset):
    """Images that no transform made tensors of."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Image.new("L", (6, 6)), 1


class Stream(IterableDataset):
    def __init__(self, samples, labels):
        self.pairs = list(zip(samples, labels, strict=True))

    def __iter__(self):
        return iter(self.pairs)


class Listed(torch.utils.data.Dataset):
    def __init__(self, samples, labels):
        self.samples, self.labels = samples, labels

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return torch.from_numpy(self.samples[index]), int(self.labels[index])


FORMS = {
    "array": lambda x, y: x,
    "tensor": lambda x, y: torch.from_numpy(x),
    "samples": lambda x, y: Samples.of(x, "mine"),
    "dataset": lambda x, y: TensorDataset(torch.from_numpy(x), torch.from_numpy(y)),
    "without labels": lambda x, y: TensorDataset(torch.from_numpy(x)),
    "loader": lambda x, y: DataLoader(
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8
    ),
    "stream": Stream,
    "list": Listed,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_samples_in_every_form_are_the_same(form, program, pixels):
    labels = np.arange(20) % 5
    data = FORMS[form](pixels, labels)
    plain = spikeport.run(program, pixels, labels=labels)
    given = {"labels": labels} if form in ("array", "tensor", "samples", "without labels") else {}
    found = spikeport.run(program, data, **given)
    assert np.array_equal(found.labels, labels)
    assert spikeport.compare(plain, found).equal


@pytest.mark.parametrize("form", list(FORMS))
def test_calibration_in_every_form(form, model, pixels, program):
    data = FORMS[form](pixels, np.arange(20) % 5)
    assert spikeport.convert(model, calibrate=data).program.hash == program.hash
    few = spikeport.convert(model, calibrate=data, calibration_samples=17)
    integers = few.program.provenance["integers"]
    assert integers["calibration_samples"] == 17


def test_an_array_is_real_values_and_pixels_are_fractions(program, pixels):
    real = spikeport.run(program, pixels / 255)
    assert spikeport.compare(spikeport.run(program, pixels), real).equal
    half = torch.from_numpy(np.full((1, 1, 6, 6), 0.5)).bfloat16()
    assert spikeport.compare(
        spikeport.run(program, half), spikeport.run(program, np.full((1, 1, 6, 6), 0.5))
    ).equal


def test_shape_and_range_come_from_the_calibration_samples(model):
    samples = np.random.default_rng(0).normal(0.5, 2, (32, 1, 6, 6))
    conversion = spikeport.convert(model, calibrate=samples)
    quantizer = conversion.program.input
    extreme = max(samples.max(), -samples.min())
    assert quantizer.shape == (1, 6, 6)
    assert quantizer.signed
    assert quantizer.scale == pytest.approx(extreme / 127)
    (note,) = conversion.notes
    assert f"{samples.min():.6g} .. {samples.max():.6g}" in note
    with pytest.raises(DataError, match="nothing is clipped"):
        spikeport.run(conversion, 1.1 * samples)
    said = spikeport.convert(model, calibrate=samples, input_range=(-20, 20))
    assert said.program.input.scale == pytest.approx(20 / 127)
    assert said.notes == ()


def test_files_and_programs_are_alike(program, pixels, tmp_path):
    spikeport.save(program, tmp_path / "a.net")
    assert spikeport.load(tmp_path / "a.net").hash == program.hash
    assert spikeport.lint(tmp_path / "a.net").found == []
    recordings = [spikeport.run(p, pixels) for p in (program, tmp_path / "a.net")]
    assert spikeport.compare(*recordings).equal
    kept = spikeport.verify(tmp_path / "a.net", pixels, record=True)
    assert kept.verified
    again = spikeport.verify(tmp_path / "a.net", pixels)
    assert again.verified
    assert again.replayed == kept.replayed


def test_a_nir_file_is_the_program_again(tmp_path):
    program = random_program(1, schedule=Schedule(1))
    entries = spikeport.export(program, tmp_path / "a.nir")
    assert {entry.where for entry in entries} <= {p.name for p in program.populations} | {
        "input",
        "everywhere",
    }
    assert spikeport.load(tmp_path / "a.nir").hash == program.hash


def test_an_audit_of_a_module_in_hand(model, program, pixels, tmp_path):
    data = TensorDataset(torch.from_numpy(pixels), torch.arange(20) % 5)
    audit = spikeport.audit(program, data, network=model, gates=["mismatches=0"], lava_samples=2)
    assert audit.passed
    assert audit.document["lava"]["mismatches"] == 0
    steps = audit.document["chain"]["steps"]
    x = torch.from_numpy(pixels).float() / 255
    with torch.no_grad():
        right = (model.eval()(x).argmax(1) == torch.arange(20) % 5).float().mean()
    assert steps[-1]["accuracy"] - sum(s["change"] for s in steps[1:]) == pytest.approx(
        steps[0]["accuracy"]
    )
    quantized = audit.document["versions"]["accuracy"]["quantized network"]["accuracy"]
    assert quantized == pytest.approx(float(right))
    for name in ("a.html", "a.json"):
        audit.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    other = nn.Sequential(*model[:4], nn.Linear(144, 5))
    with pytest.raises(CheckpointError, match="not what the file was converted from"):
        spikeport.audit(program, data, network=other, lava_samples=0)


def test_a_third_party_backend_is_found_by_its_entry_point(monkeypatch, program, pixels, tmp_path):
    installed = tmp_path / "twin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: twin\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[{spikeport.backends.GROUP}]\ntwin = tests.house.test_front_door:Twin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recording = spikeport.run(program, pixels, backend="twin", times=2)
    assert recording.meta["times"] == 2
    with pytest.raises(UsageError, match="no such backend"):
        spikeport.run(program, pixels, backend="triplet")


@dataclass(frozen=True)
class Twin(spikeport.Reference):
    """The reference simulator under another name."""

    name: ClassVar[str] = "twin"
    times: int = 1

    def run(self, program, inputs, **options):
        recording = super().run(program, inputs, **options)
        recording.meta["times"] = self.times
        return recording


WRONG = {
    "no network": (lambda m, p, x: spikeport.convert(None), UnsupportedModuleError),
    "no shape": (lambda m, p, x: spikeport.convert(m), UnsupportedModuleError),
    "weights of a module": (
        lambda m, p, x: spikeport.convert(m, weights="a.pt", input_shape=(1, 6, 6)),
        ConversionError,
    ),
    "no neuron": (
        lambda m, p, x: spikeport.convert(m, neuron="lif", input_shape=(1, 6, 6)),
        ConversionError,
    ),
    "sleep of IF": (
        lambda m, p, x: spikeport.convert(m, sleep_steps=2, input_shape=(1, 6, 6)),
        ConversionError,
    ),
    "no samples": (lambda m, p, x: spikeport.run(p, [1, 2]), DataError),
    "no pixels": (lambda m, p, x: spikeport.run(p, x.astype(np.int64)), DataError),
    "another shape": (lambda m, p, x: spikeport.run(p, x[..., :3]), DataError),
    "NaN": (lambda m, p, x: spikeport.convert(m, calibrate=x * np.nan), DataError),
    "triples": (
        lambda m, p, x: spikeport.run(p, TensorDataset(*[torch.from_numpy(x)] * 3)),
        DataError,
    ),
    "images": (lambda m, p, x: spikeport.run(p, Images()), DataError),
    "real labels": (lambda m, p, x: spikeport.run(p, x, labels=np.ones(20) / 2), DataError),
    "labels of another number": (lambda m, p, x: spikeport.run(p, x, labels=[1]), DataError),
    "labels twice": (
        lambda m, p, x: spikeport.run(p, "digits@test[:2]", labels=[1, 2]),
        UsageError,
    ),
    "no backend": (lambda m, p, x: spikeport.run(p, x, backend="gpu"), UsageError),
    "no such option": (lambda m, p, x: spikeport.run(p, x, blocks=2), UsageError),
    "no such record": (lambda m, p, x: spikeport.run(p, x, record="all"), UsageError),
    "options twice": (
        lambda m, p, x: spikeport.run(p, x, backend=spikeport.Reference(), memory=1),
        UsageError,
    ),
    "no engine": (lambda m, p, x: spikeport.run(p, x, engine="slow"), UsageError),
    "boxes": (lambda m, p, x: spikeport.run(p, "shapes@test[:1]"), SpikeportError),
    "no file": (lambda m, p, x: spikeport.load("nothing.net"), SpikeportError),
    "no net": (lambda m, p, x: spikeport.save(p, "a.txt"), SpikeportError),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_use_is_told(case, model, program, pixels):
    act, kind = WRONG[case]
    with pytest.raises(kind) as error:
        act(model, program, pixels)
    assert str(error.value)


def test_backends_run_graded_spikes():
    program = random_program(0)
    inputs = random_inputs(program, 2)
    stepwise = spikeport.Reference("stepwise").run(program, inputs)
    assert spikeport.compare(stepwise, spikeport.Reference().run(program, inputs)).equal
    lava = spikeport.Lava("fast", batch=2, time_limit=120.0).run(program, inputs)
    assert spikeport.compare(stepwise, lava).equal
    assert spikeport.Reference.of_recording(stepwise.meta) == spikeport.Reference("stepwise")
    assert spikeport.Lava.of_recording(lava.meta) == spikeport.Lava("fast", batch=1)


def test_old_names_lead_to_the_modules(tmp_path):
    """Files written for 0.1 import them; a module is one under both names."""
    (tmp_path / "old.py").write_text(
        "import toolchain.activations.qcfs as qcfs\n"
        "from toolchain.activations import QCFS\n"
        "from toolchain.conversion.adapters import activation_adapter\n"
        "from toolchain.simulator.engine.engine import Engine\n"
        "import spikeport\n"
        "assert QCFS is qcfs.QCFS is spikeport.QCFS\n"
        "assert activation_adapter is spikeport.activation_adapter\n"
        "assert Engine.__module__ == 'toolchain.engine.engine'\n"
        "try:\n"
        "    import toolchain.activations.nothing\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "old.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "No module named 'toolchain.learning.activations.nothing'\n", ran.stderr
    for old, new in MOVED.items():
        assert import_module(old) is import_module(new)
