"""Networks converted for inputs that change over time, by the library and by the command line."""

import json
import re
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from tests.command_line import ROOT, here
from tests.comparing import assert_lossless, assert_recording_is
from tests.oracles import numpy_loop
from toolchain.audit.error_ablation import UNEVEN, WITHOUT_ROUNDING
from toolchain.cli.wording import as_options
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.errors import ConversionError, DataError, ProgramError
from toolchain.learning.data import Samples, input_spikes
from toolchain.program.input_quantizer import InputQuantizer

STEPS = 4
FACTORY = """
from torch import nn
import torch, spikeport

def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), spikeport.CQReLU(4), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    )
"""


def net(activation):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), activation, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    ).eval()


def sequences(count=24, steps=STEPS, seed=0):
    """Few events in most frames, as an event camera sees them: float32 (N, T, 2, 6, 6)."""
    rng = np.random.default_rng(seed)
    return rng.poisson(0.4, (count, steps, 2, 6, 6)).clip(0, 5).astype(np.float32)


def test_only_the_form_of_the_input_differs():
    model = net(spikeport.QCFS(4))
    how = {"input_shape": (2, 6, 6), "input_range": (0, 5)}
    static = spikeport.convert(model, **how).program
    program = spikeport.convert(model, input_per_step=True, **how).program
    assert program.input.per_step
    assert program.structure()["input"] == {**static.structure()["input"], "per_step": True}
    for name, array in static.arrays().items():
        assert np.array_equal(program.arrays()[name], array)


def test_if_neurons_see_each_frame():
    conversion = spikeport.convert(
        net(spikeport.NQ(4)), input_per_step=True, calibrate=sequences(), steps=STEPS
    )
    samples = sequences(3, seed=1)
    inputs = conversion.program.input.quantize(samples)
    assert inputs.shape == samples.shape
    run = spikeport.run(conversion, samples, labels=[0, 1, 2])
    assert_recording_is(run, *numpy_loop.run(conversion.program, inputs))
    assert run.accuracy() == (run.logits.argmax(1) == [0, 1, 2]).mean()


def test_settled_cif_neurons_compute_the_network_of_the_mean():
    """Rounding aside: torch's own module on the mean frame has the same class, nearly always."""
    model = net(spikeport.CQReLU(STEPS))
    conversion = spikeport.convert(
        model, neuron="cif", input_per_step=True, calibrate=sequences(), sleep_steps=24
    )
    samples = sequences(60, seed=1)
    run = spikeport.run(conversion, samples)
    assert_lossless(conversion.program, conversion.program.input.quantize(samples), run)
    with torch.no_grad():
        expected = model(torch.from_numpy(samples.mean(1)))
    scale = conversion.program.readout.neuron.reals()["scale"] / STEPS
    same = (run.logits.argmax(1) == expected.argmax(1).numpy()).mean()
    assert same >= 0.95
    assert np.abs(run.logits * scale - expected.numpy()).max() < 0.1 * float(expected.abs().max())
    assert conversion.agreement.fraction >= 0.95


def test_steps_are_the_length_of_the_calibration_samples():
    model = net(spikeport.QCFS(4))
    made = spikeport.convert(model, input_per_step=True, calibrate=sequences(steps=7))
    assert made.program.schedule.wake_steps == 7
    with pytest.raises(ConversionError, match=r"(?s)for each wake step.*7 tensors.*4 wake steps"):
        spikeport.convert(model, input_per_step=True, calibrate=sequences(steps=7), steps=4)
    cif = net(spikeport.CQReLU(4))
    with pytest.raises(ConversionError, match=r"(?s)as many wake steps as trained levels"):
        spikeport.convert(cif, neuron="cif", input_per_step=True, calibrate=sequences(steps=7))
    with pytest.raises(ProgramError, match=r"(?s)for each wake step.*5 tensors"):
        spikeport.run(made, sequences(steps=5))


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_plain_relus_are_fitted_to_frames(rounding):
    model = net(nn.ReLU())
    how = {"input_per_step": True, "calibrate": sequences(64), "steps": STEPS}
    made = spikeport.convert(model, rounding=rounding, **how)
    (note,) = [n for n in made.notes if n.startswith("plain ReLUs")]
    assert "16 calibration samples kept apart" in note
    run = spikeport.run(made, sequences(40, seed=1))
    with torch.no_grad():
        expected = model(torch.from_numpy(sequences(40, seed=1).mean(1))).argmax(1).numpy()
    assert (run.logits.argmax(1) == expected).mean() > 0.6


def test_fits_get_each_frame_and_measurements_their_mean():
    quantizer = InputQuantizer((2, 6, 6), 0.5, bits=5, per_step=True)
    samples = sequences(20)
    calibration = Calibration("frames", quantizer.quantize(samples))
    rows = np.array([3, 0, 19])
    frames = calibration.by_steps(quantizer, rows).numpy()
    assert np.array_equal(frames, samples[rows].swapaxes(0, 1))
    means = torch.cat(list(calibration.batches(quantizer, 8))).numpy()
    assert np.array_equal(means, samples.astype(float).mean(1))
    static = replace(quantizer, per_step=False)
    stills = Calibration("stills", static.quantize(samples[:, 0]))
    assert np.array_equal(stills.by_steps(static, rows).numpy(), samples[None, rows, 0])


def test_the_audit_adds_up(tmp_path):
    torch.manual_seed(0)
    model = net(spikeport.QCFS(4))
    made = spikeport.convert(model, input_per_step=True, calibrate=sequences())
    samples = sequences(30, seed=1)
    data = spikeport.open_samples(samples)
    labels = np.arange(30) % 3
    from toolchain.learning.data.torch_data import with_labels

    report = spikeport.audit(
        made, with_labels(data, labels), network=model, lava_samples=4, gates=["mismatches=0"]
    )
    assert report.passed
    document = report.document
    with torch.no_grad():
        expected = model(torch.from_numpy(samples.mean(1))).argmax(1).numpy()
    float_one = document["versions"]["accuracy"]["quantized network"]
    assert float_one["correct"] == (expected == labels).sum()
    steps = document["chain"]["steps"]
    run = spikeport.run(made, samples)
    assert steps[-1]["name"] == UNEVEN
    assert steps[-1]["correct"] == (run.logits.argmax(1) == labels).sum()
    assert {s["name"] for s in document["chain"]["without"]} >= {WITHOUT_ROUNDING}
    for layer in document["budget"]["layers"]:
        assert layer["unexplained"] < 1e-9
    events = (made.program.input.quantize(samples) != 0).sum()
    (given,) = [row for row in document["energy"]["layers"] if row["name"] == "input"]
    assert given["events"] == events / 30
    assert document["energy"]["synops"] * 30 == sum(run.meta["synops"].values())


def test_magnitudes_count_every_step():
    from toolchain.audit.activity import LayerExtremes, count_spikes
    from toolchain.audit.energy import Operations
    from toolchain.engine.engine import Engine

    made = spikeport.convert(
        net(spikeport.QCFS(4)), input_per_step=True, input_shape=(2, 6, 6), input_range=(-2, 2)
    )
    program = made.program
    inputs = program.input.quantize(sequences(2).clip(0, 2) - 1)
    operations = Operations(program)
    extremes = {p.name: LayerExtremes() for p in program.populations}
    operations.add(inputs, count_spikes(Engine(program), program, inputs, extremes))
    fans = operations.fans["input"]
    expected = sum(int((np.abs(frame) * fans).sum()) for sample in inputs for frame in sample)
    assert operations.counted.magnitude["input"] == expected
    assert operations.counted.events["input"] == np.count_nonzero(inputs)


def test_samples_of_another_form_are_refused():
    model = net(spikeport.QCFS(4))
    with pytest.raises(DataError, match=r"(?s)have a tensor for each step.*input_per_step=True"):
        spikeport.convert(model, calibrate=sequences())
    with pytest.raises(DataError, match=r"(?s)do not have a tensor for each step"):
        spikeport.convert(model, input_per_step=True, calibrate=sequences()[:, 0])
    how = {"input_shape": (2, 6, 6), "input_range": (0, 5)}
    static, per_step = (
        spikeport.convert(model, input_per_step=flag, **how) for flag in (False, True)
    )
    with pytest.raises(DataError, match=r"(?s)shape the network.*input_per_step=True"):
        spikeport.run(static, sequences())
    with pytest.raises(ProgramError, match=r"(?s)for each wake step.*1 tensor"):
        spikeport.run(per_step, sequences()[:, 0])
    with pytest.raises(DataError, match=r"(?s)shape the network.*\('T', 2, 6, 6\)"):
        spikeport.run(per_step, sequences()[..., :5])
    with pytest.raises(DataError, match="outside the input quantizer's range"):
        spikeport.run(per_step, sequences() + 5)
    with pytest.raises(DataError, match="NaN"):
        spikeport.run(per_step, sequences() * np.nan)
    with pytest.raises(DataError, match="need 2 to 5 axes"):
        spikeport.run(per_step, sequences()[None])


@pytest.mark.parametrize(
    ("shape", "given", "wanted"),
    [
        ((7,), (5, 3, 7), (5, 3, 7)),  # read as images of one channel
        ((1, 4, 6), (5, 3, 4, 6), (5, 3, 1, 4, 6)),
        ((2, 1, 6), (5, 3, 2, 6), (5, 3, 2, 1, 6)),
        ((2, 4, 6), (5, 3, 2, 4, 6), (5, 3, 2, 4, 6)),
    ],
)
def test_axes_of_size_1_may_be_left_out(shape, given, wanted):
    quantizer = InputQuantizer(shape, 1.0, per_step=True)
    values = np.arange(np.prod(given), dtype=np.float32).reshape(given) % 256
    spikes = input_spikes(quantizer, Samples.of(values, "values"))
    assert np.array_equal(spikes, values.reshape(wanted))
    assert np.array_equal(
        quantizer.float_samples(values), values.reshape(wanted).astype(float).mean(1)
    )


def test_large_data_are_quantized_in_parts(monkeypatch):
    quantizer = InputQuantizer((2, 6, 6), 0.5, bits=5, per_step=True)
    samples = Samples.of(sequences(7), "values")
    monkeypatch.setattr(
        import_module("toolchain.learning.data.input_spikes"), "VALUES", 3 * STEPS * 2 * 6 * 6
    )
    assert np.array_equal(input_spikes(quantizer, samples), samples.samples * 2)


def done(*arguments):
    """What a command prints that ends well."""
    ended = here(*arguments)
    assert ended.exit_code == 0, (ended.output, ended.error)
    return ended.stdout


def test_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FACTORY)
    labels = np.arange(24) % 3
    np.savez(
        "data.npz",
        train_samples=sequences(),
        train_labels=labels,
        test_samples=sequences(seed=1),
        test_labels=labels,
    )
    convert = ("convert", "mine.py:net", "--neuron", "cif", "-o", "a.net")
    refused = here(*convert, "--calibrate", "npz:data.npz")
    assert "--input-per-step" in as_options(str(refused.error))
    done(*convert, "--calibrate", "npz:data.npz", "--input-per-step")
    assert "a tensor for each wake step" in done("inspect", "a.net")
    assert json.loads(done("inspect", "a.net", "--json"))["input"]["per_step"] is True
    run = ("run", "a.net", "--data", "npz:data.npz", "--record", "digest", "-o")
    assert "accuracy" in done(*run, "a.npz")
    done(*run, "b.npz", "--jobs", "2")
    done("compare", "a.npz", "b.npz")
    done("verify", "a.net", "--data", "npz:data.npz", "--record")
    done("verify", "a.net", "--data", "npz:data.npz")
    done("audit", "a.net", "--data", "npz:data.npz", "--lava", "2", "--gate", "mismatches=0")
    done("lint", "a.net")
    done("export", "a.net", "-o", "c", "--to", "c", "--data", "npz:data.npz@test[:2]")


def test_the_page_on_them(tmp_path, monkeypatch):
    """The commands and the program of docs/EVENTS.md, with the network of the quickstart."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/EVENTS.md").read_text()
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page, re.S | re.M)
    exec(next(text for language, text in fences if language == "python"), {})
    quickstart = (ROOT / "docs/QUICKSTART.md").read_text()
    (tmp_path / "nets.py").write_text(
        re.findall(r"^```python\n(.*?)^```", quickstart, re.S | re.M)[0]
    )
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_samples": rng.integers(0, 16, (20, 3, 1, 28, 28)).astype(np.float32)
        for split in ("train", "test")
    }
    np.savez("frames.npz", **arrays, train_labels=np.arange(20) % 9, test_labels=np.arange(20) % 9)
    commands = next(text for language, text in fences if not language).strip().splitlines()
    assert len(commands) == 3
    for line in commands:
        done(*line.split()[1:])
