"""Detectors from training to Lava, by the command line, on images drawn here."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.report.__main__ import main as report
from exports.netx import read_net
from tests.command_line import here, ok
from tests.oracles import closed_form
from tests.voc_files import write_annotation, write_voc
from toolchain.errors import (
    CheckpointError,
    ProgramError,
    TrainingError,
)
from toolchain.learning.data import open_boxes
from toolchain.learning.detection.average_precision import average_precision
from toolchain.learning.detection.checkpoint import load_detector
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.detections import detect, real_outputs
from toolchain.learning.detection.document import DetectorEvaluation
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.detection.train_detector import train_detector
from toolchain.learning.training.checkpoint import load_checkpoint
from toolchain.program.int_program import Schedule
from toolchain.recording import Recording

SMALL = "--input-size 96x64 --width 0.125 --batch-size 8 --epochs 2"
COMMON = ["--data", "voc:set", *SMALL.split()]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data, a CQReLU detector and its CIF network with measured sleep."""
    folder = tmp_path_factory.mktemp("detector")
    write_voc(folder / "set", {"train": 20, "val": 4, "test": 5})
    ok("detector", "train", *COMMON, "--out", "run", cwd=folder)
    how = ["--neuron", "cif", "--calibrate", "voc:set", "--calibration-samples", "16"]
    ok("convert", "run", "-o", "cif.net", *how, cwd=folder)
    return folder


def test_training_leaves_what_it_says(work):
    checkpoint = load_detector(work / "run")
    assert checkpoint.class_names == ("disc", "square")
    assert checkpoint.sample_shape == (3, 64, 96)
    assert [h["epoch"] for h in checkpoint.history] == [1, 2]
    assert checkpoint.history[-1]["held_out_map50"] >= 0
    log = [json.loads(line) for line in (work / "run/log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2]
    assert not checkpoint.model.training


def config(data, **changes):
    values = {"data": data, "input_size": (64, 96), "width": 0.125, "batch_size": 8, "epochs": 3}
    return DetectorConfig(**{**values, "validate_every": 1, **changes})


def test_a_resumed_run_is_an_unbroken_one(work, tmp_path):
    class Stopped(Exception):
        pass

    def stop(epoch, done, metrics):
        if epoch == 1 and metrics is not None:
            raise Stopped

    settings = config(f"voc:{work / 'set'}")
    whole = train_detector(settings, tmp_path / "whole")
    with pytest.raises(Stopped):
        train_detector(settings, tmp_path / "broken", stop)
    assert load_detector(tmp_path / "broken").history == whole.history[:2]
    resumed = train_detector(settings, tmp_path / "broken")
    assert resumed.history == whole.history
    assert resumed.tensors_sha256 == whole.tensors_sha256
    with pytest.raises(CheckpointError, match=r"(?s)other settings.*seed=0.*seed=1"):
        train_detector(config(f"voc:{work / 'set'}", seed=1), tmp_path / "broken")


def test_data_with_other_classes_do_not_continue_a_run(tmp_path):
    write_voc(tmp_path / "set", {"train": 8})
    settings = config(f"voc:{tmp_path / 'set'}", epochs=1)
    kept = train_detector(settings, tmp_path / "run")
    write_annotation(tmp_path / "set/Annotations/image_000.xml", (96, 64), [("cat", 1, 1, 9, 9)])
    with pytest.raises(CheckpointError, match=r"(?s)run on other data"):
        train_detector(settings, tmp_path / "run")
    assert load_detector(tmp_path / "run").tensors_sha256 == kept.tensors_sha256


def test_the_last_epoch_is_kept_without_a_validation_split(tmp_path):
    write_voc(tmp_path / "set", {"train": 8})
    kept = train_detector(config(f"voc:{tmp_path / 'set'}", epochs=2), tmp_path / "run")
    assert kept.epoch == 2
    assert "held_out_map50" not in kept.history[-1]


def test_a_detector_that_answers_nothing_is_an_error(work, tmp_path):
    with pytest.raises(
        TrainingError, match=r"(?s)epoch \d: the network gives.*loss.*learning_rate="
    ):
        train_detector(
            config(f"voc:{work / 'set'}", learning_rate=100.0, warm_up=0), tmp_path / "run"
        )


def test_conversion_keeps_what_the_maps_mean(work):
    program = read_net(work / "cif.net")
    assert [p.name for p in program.readouts] == ["head.classes", "head.boxes"]
    spec = DetectorSpec.of(program)
    assert spec == DetectorSpec(16, ("disc", "square"), 2)
    wrong = {"stride": 8}, {"stride": "16"}, {"outputs": 1}, {"class_names": "ab"}, {"more": 1}
    for fields in wrong:
        origin = {**program.provenance, "detector": {**spec.describe(), **fields}}
        with pytest.raises(ProgramError, match=r"damaged|not those of the detector"):
            DetectorSpec.of(replace(program, provenance=origin))
    assert program.schedule.wake_steps == 4
    assert program.schedule.sleep_steps > 0


def test_settled_outputs_are_the_quantized_networks(work):
    """Integers by a closed form of the tests' own; boxes and mAP follow."""
    found = ok(
        *["run", "cif.net", "--data", "voc:set@test", "--record", "counts", "-o", "r.npz"],
        *["--json"],
        cwd=work,
    )
    program, recording = read_net(work / "cif.net"), Recording.load(work / "r.npz")
    data = open_boxes(f"voc:{work / 'set'}@test", (64, 96))
    assert sum(recording.meta["unsettled"].values()) == 0
    inputs = program.input.quantize(data.real())
    expected = {p.name: np.zeros_like(recording.outputs[p.name]) for p in program.readouts}
    for index, sample in enumerate(inputs[:1]):
        _, outputs = closed_form.counts_and_outputs(program, sample)
        for name, value in outputs.items():
            expected[name][index] = value
            assert np.array_equal(recording.outputs[name][index], value)
    boxes = detect(DetectorSpec.of(program), real_outputs(program, recording.outputs), data)
    value = average_precision(boxes, data)
    told = json.loads(found.stdout)
    assert told["mAP@0.5"] == value.at_half
    assert told["mAP@[.5:.95]"] == value.mean
    first = data.take(slice(0, 1))
    part = {name: array[:1] for name, array in expected.items()}
    again = detect(DetectorSpec.of(program), real_outputs(program, part), first)
    assert again.equal(boxes.of_image(0))


def test_lava_gives_the_same_bits(work):
    data = ["--data", "voc:set@test[:2]", "--record", "digest"]
    ok("run", "cif.net", *data, "-o", "a.npz", cwd=work)
    lava = ["--backend", "lava", "--models", "fast", "--batch", "2"]
    ok("run", "cif.net", *data, *lava, "-o", "b.npz", cwd=work)
    assert "0 mismatches" in ok("compare", "a.npz", "b.npz", cwd=work).stdout


def test_every_other_command_takes_detectors(work):
    assert "nothing found" in ok("lint", "cif.net", "--target", "loihi2", cwd=work).stdout
    assert "head.boxes" in ok("inspect", "cif.net", cwd=work).stdout
    ok("verify", "cif.net", "--data", "voc:set@test", "--record", cwd=work)
    replayed = ok("verify", "cif.net", "--data", "voc:set@test", cwd=work).stdout
    assert "every spike and potential of every layer as it was" in replayed
    assert "mAP@0.5" in replayed


def test_the_picture(work):
    found = ok(
        *["detector", "show", "cif.net", "--data", "voc:set@test", "--checkpoint", "run"],
        *["--images", "2", "--score", "0", "-o", "p.png", "--json"],
        cwd=work,
    )
    from PIL import Image

    with Image.open(work / "p.png") as image:
        width, height = image.size
        assert width > height > 100
    told = json.loads(found.stdout)["detections"]
    steps = read_net(work / "cif.net").schedule.num_steps
    in_float, in_integers = "quantized ANN, float weights", "quantized ANN, 8-bit weights"
    assert list(told) == [in_float, in_integers, f"SNN, {steps} steps"]
    assert told[in_integers] == told[f"SNN, {steps} steps"]


@pytest.mark.parametrize(
    ("name", "more", "neurons"),
    [
        ("cqrelu", "--activation cqrelu --neck dilated --head plain --stride 32", {"CIF"}),
        ("nq", "--activation nq --pooling average --backbone vgg11 --head plain", {"IF"}),
    ],
)
def test_evaluation(work, name, more, neurons):
    """Every form of a detector, and CIF exactly as the quantized network in integers."""
    ok("detector", "train", *COMMON, *more.split(), "--out", f"run-{name}", cwd=work)
    evaluated = ["detector", "evaluate", f"run-{name}", "--data", "voc:set@test", "--lava", "2"]
    ok(*evaluated, "--steps", "1,4", cwd=work)
    found = DetectorEvaluation.read(work / f"run-{name}/detection.json")
    spiking = [row for row in found.rows if row.network == "SNN"]
    assert {row.neuron for row in spiking} == neurons
    assert found.lava is not None
    assert found.lava["mismatches"] == 0
    assert found.operations is not None
    assert found.operations["synops"] > 0
    if name == "nq":
        assert [row.steps for row in spiking] == [1, 4]
        assert [row.arithmetic for row in found.rows[:2]] == ["float", "quantized"]
        assert found.exactness is None
        return
    exact = found.exactness
    assert exact is not None
    assert (exact.differing, exact.unequal_images) == (0, 0)
    assert exact.outputs == 5 * 6 * 2 * 3
    steps = [row.steps for row in spiking]
    assert steps[0] == 4
    assert steps[-1] == 4 + max(found.settle.values())
    in_integers = next(r for r in found.rows if r.network == "ANN" and "integer" in r.arithmetic)
    assert (in_integers.at_half, in_integers.mean) == (spiking[-1].at_half, spiking[-1].mean)
    (work / f"run-{name}/detections.png").write_bytes(b"")
    report([str(work / f"run-{name}"), "--out", str(work / "RESULTS.md")])
    page = (work / "RESULTS.md").read_text()
    assert "0 differ from those of the quantized" in page
    assert f"| CQReLU | SNN CIF | 8-bit integer | {steps[-1]} |" in page
    assert f"](run-{name}/detections.png)" in page
    assert "spikeport detector train --config" in page
    relays = [layer for layer in found.settle if layer.endswith("add")]
    assert relays  # residual sums without a neuron, and neurons of the backbone


def test_processes_share_an_evaluation(work):
    """The same document but for what made it."""
    found = []
    for jobs in (1, 2):
        out = work / f"jobs-{jobs}.json"
        evaluated = ["detector", "evaluate", "run", "--data", "voc:set@test", "--lava", "2"]
        ok(*evaluated, "--jobs", str(jobs), "-o", out.name, cwd=work)
        found.append({k: v for k, v in json.loads(out.read_text()).items() if k != "made_by"})
    assert found[0] == found[1]
    assert found[0]["exactness"]["differing"] == 0


def test_float_detectors_are_measured_as_they_are(work):
    ok("detector", "train", *COMMON, "--activation", "relu", "--out", "run-relu", cwd=work)
    ok("detector", "evaluate", "run-relu", "--data", "voc:set@test", cwd=work)
    found = DetectorEvaluation.read(work / "run-relu/detection.json")
    assert [(r.network, r.arithmetic) for r in found.rows] == [("ANN", "float")]


def test_intermediate_steps_are_shorter_programs(work, tmp_path):
    """What a run gives after its first T steps is what the program of T wake steps gives."""
    from toolchain.engine.simulate import simulate
    from toolchain.learning.detection.measure import outputs_after

    program = read_net(work / "cif.net")
    data = open_boxes(f"voc:{work / 'set'}@test[:2]", (64, 96))
    inputs = program.input.quantize(data.real())
    shorter = replace(program, schedule=Schedule(2))
    found = simulate(program, inputs)
    ends = {p.name: found.membrane[p.name][1].astype(np.int64) for p in program.readouts}
    expected = real_outputs(shorter, simulate(shorter, inputs).outputs)
    for ours, theirs in zip(outputs_after(program, ends, 2), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_wrong_use(work, tmp_path):
    write_voc(tmp_path / "other", {"test": 1})
    for file in (tmp_path / "other/Annotations").iterdir():
        write_annotation(file, (96, 64), [("cat", 1, 1, 9, 9)])
    write_voc(tmp_path / "bare", {"train": 2, "test": 2})
    for file in (tmp_path / "bare/Annotations").iterdir():
        write_annotation(file, (96, 64), [])
    run = ["run", work / "cif.net", "-o", tmp_path / "r.npz", "--data"]
    train = ["detector", "train", "--out", tmp_path / "run"]
    evaluate = ["detector", "evaluate", work / "run", "--data"]
    here = f"voc:{work / 'set'}"
    refused("other classes than the network", *run, f"voc:{tmp_path / 'other'}")
    refused("has no boxes", *run, f"voc:{tmp_path / 'bare'}")
    refused("do not have the shape", *run, "digits")
    refused("multiple of the detector's stride", *train, "--data", here, "--input-size", "100x64")
    refused("such as 96x64", *train, "--data", here, "--input-size", "100x64")
    refused("has no boxes", *train, "--data", f"voc:{tmp_path / 'bare'}")
    refused("needs images with boxes", *train, "--data", "digits")
    refused("a data source is needed", *train)
    refused("not a size in pixels", *train, "--data", here, "--input-size", "wide")
    refused("no such augmentation", *train, "--data", here, "--augment", "blur")
    refused("not a checkpoint folder", "detector", "evaluate", tmp_path, "--data", here)
    refused("other classes", *evaluate, f"voc:{tmp_path / 'other'}")
    refused("not whole numbers", *evaluate, here, "--steps", "one")
    refused("not a classifier's checkpoint", "evaluate", work / "run", "--data", "digits")
    assert not (tmp_path / "r.npz").exists()
    assert not (work / "run/evaluation.json").exists()


def refused(message, *arguments):
    """The command ends with exit code 2 and says so."""
    result = here(*arguments)
    assert result.exit_code == 2, result.output
    assert message in str(result.error)


def test_a_classifier_is_no_detector(work, digits_conv, tmp_path, limits):
    from exports.netx import write_net
    from toolchain.conversion.pipeline import ConversionOptions, convert

    network = digits_conv.network
    options = ConversionOptions("if", Schedule(2))
    made = convert(network.model, network.quantizer, options, limits, name="digits")
    write_net(made.program, tmp_path / "x.net")
    with pytest.raises(ProgramError, match="not a detector"):
        DetectorSpec.of(made.program)
    show = ["detector", "show", tmp_path / "x.net", "-o", tmp_path / "p.png", "--data"]
    refused("not a detector", *show, f"voc:{work / 'set'}")
    with pytest.raises(CheckpointError, match="not a classifier's"):
        load_checkpoint(work / "run")
