"""Damaged files of every text and tensor format: a clean result or an error of ours, soon."""

import json
import random
import resource
import time
import warnings
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import exports.netx.replays
from benchmarks.report.speed import Measurement, Table
from hw_models.profile import load_profile
from tests.checkpoints import CONFIG, DETECTOR, classifier, detector
from tests.damage import NASTY, damaged_bytes, damaged_document, deep
from toolchain.accuracy import Accuracy
from toolchain.audit.source_network import SourceNetwork
from toolchain.cli import inspect, verify
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.errors import SpikeportError
from toolchain.learning.detection.config import DetectorConfig
from toolchain.learning.detection.document import DetectorEvaluation, Exactness
from toolchain.learning.detection.document import PrecisionRow as DetectorRow
from toolchain.learning.detection.spec import DetectorSpec
from toolchain.learning.evaluation.results import AccuracyRow, Evaluation, made_by
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.config_file import read_settings
from toolchain.learning.training.state_dict import read_tensors
from toolchain.learning.training.state_file import STATE_FILE, read_state, write_state
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.sweep.grid import Point
from toolchain.sweep.measure import Result
from toolchain.sweep.store import Store

SEED, TIMES = 20261125, 300
MOST_SECONDS, MOST_MEGABYTES = 2.0, 500
RUN = {
    "config": CONFIG.as_dict(),
    "epoch": 1,
    "checkpoint_sha256": "0" * 64,
    "history": [{"epoch": 1, "loss": 0.5}],
}


def refusal(read):
    """What `read` is refused with; nothing if it is not."""
    try:
        read()
    except SpikeportError as error:
        return str(error)
    return ""


def survives(read, damage):
    """Each damage is read or refused, in bounded time and memory; how many were refused."""
    refused, rng = 0, random.Random(SEED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(TIMES):
        damage(rng)
        started = time.process_time()
        told = refusal(read)
        assert time.process_time() - started < MOST_SECONDS
        assert len(told) < 4000
        refused += bool(told)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1024 * MOST_MEGABYTES
    return refused


def bytes_of(path):
    data = path.read_bytes()
    return lambda rng: path.write_bytes(damaged_bytes(data, rng))


def document_of(path, dump=json.dumps):
    values = json.loads(path.read_text())
    values.pop("sha256", None)  # as written before documents were sealed
    return lambda rng: path.write_text(dump(damaged_document(values, rng)))


def evaluation(folder):
    box = {"low": 0.0, "q1": 0.1, "median": 0.2, "q3": 0.3, "high": 0.4, "mean": 0.2}
    gap = {"threshold": 1.0, "sigma": None, "mean": 0.0, "mean_low": 0.0, "mean_high": 0.0}
    gap |= {"std": 0.1, "too_many": 0.1, "too_few": 0.1, "relative_error": box}
    gap |= {"silent_images": 0, "histogram": [1, 2], "joint": [[1, 0], [0, 1]]}
    layer = {"neurons": 4, "too_many": 0.1, "too_few": 0.1, "wrong": 1, "silent_images": 0}
    layers = {"a": {**layer, "relative_error": box}}
    variant = {"sleep_steps": 0, "unequal_images": 1, "layers": layers}
    counts = {"arithmetic": "8-bit integer", "wake_steps": 4, "settle_steps": 4, "samples": 2}
    row = AccuracyRow("SNN", "float", "IF", 4, Accuracy(3, 4).describe())
    layer = {"name": "input", "events": 2.0, "synops": 8.0, "synops_by_magnitude": 9.0}
    operations = {"layers": [layer], "synops": 8.0, "synops_by_magnitude": 9.0}
    costs = {"synop": {"picojoules": 1.0, "source": "a paper"}}
    estimate = {"note": "a table", "nanojoules": {"synop": 1.0}, "costs": costs}
    operations |= {"neuron_updates": 3, "ann_macs": 4, "estimate": estimate}
    over_time = {"arithmetic": "8-bit integer", "neuron": "IF", "wake_steps": 2, "samples": 4}
    over_time |= {"correct": [1, 3], "first_right": [1, 2], "right_for_good": [0, 3]}
    over_time |= {"camera_events": 2.5, "operations": operations}
    whole = Evaluation(
        RUN,
        "digits@test",
        4,
        made_by("spikeport evaluate 'a b'", 1.0),
        (row,),
        gaps={"steps": 4, "layers": {"a": gap}},
        counts={**counts, "variants": {"CIF": variant}},
        notes=("a note",),
        sequences=(over_time,),
    )
    whole.write(folder / "evaluation.json")
    assert Evaluation.read(folder / "evaluation.json") == whole
    return folder / "evaluation.json", lambda: Evaluation.read(folder / "evaluation.json")


def detection(folder):
    run = {**RUN, "config": DETECTOR.as_dict()}
    row = DetectorRow("SNN", "float", "IF", 4, 0.5, 0.25, {"disc": 0.5})
    made = made_by("spikeport detector evaluate", 1.0)
    exact = Exactness(4, 0, 2, 0)
    whole = DetectorEvaluation(run, "shapes@test", 2, 5, made, (row,), {"a": 3}, exact)
    path = folder / "detection.json"
    whole.write(path)
    assert DetectorEvaluation.read(path) == whole
    return path, lambda: DetectorEvaluation.read(path)


def measurement(folder):
    path = folder / "a.speed.json"
    whole = Measurement("a", "text", (Table("t", ("x", "y"), (("1", "2"),)),), made_by("x", 1.0))
    whole.save(path)
    assert Measurement.read(path) == whole
    return path, lambda: Measurement.read(path)


@pytest.mark.parametrize(
    "make", [classifier, detector, evaluation, detection, measurement], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("of", [bytes_of, document_of])
def test_documents(tmp_path, make, of):
    path, read = make(tmp_path)
    read()
    refused = survives(read, of(path))
    assert refused > TIMES / 3
    for text in ("", "null", "[]", "{", '{"a": NaN}', deep(100_000), "\ufeff{}"):
        path.write_text(text)
        with pytest.raises(SpikeportError):
            read()
    path.write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(SpikeportError):
        read()


@pytest.mark.parametrize("make", [classifier, detector], ids=lambda m: m.__name__)
def test_no_change_of_a_checkpoint_goes_unseen(tmp_path, make):
    """Whatever value of `checkpoint.json` differs, it is refused; the same values are not."""
    path, read = make(tmp_path)
    values, rng = json.loads(path.read_text()), random.Random(SEED)
    path.write_text(json.dumps(values, sort_keys=True))
    read()
    for _ in range(TIMES):
        changed = damaged_document(values, rng)
        if changed in (values, {k: v for k, v in values.items() if k != "sha256"}):
            continue
        path.write_text(json.dumps(changed))
        with pytest.raises(SpikeportError):
            read()
    path.write_text(json.dumps({k: v for k, v in values.items() if k != "sha256"}))
    read()  # one from before documents were sealed


def test_tensors_and_states(tmp_path):
    tensors = {"a": torch.zeros(3, 4), "b": torch.arange(5)}
    kinds = {
        "a.safetensors": lambda path: save_file(tensors, path),
        "a.pt": lambda path: torch.save(tensors, path),
        "old.pt": lambda path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
    }
    for name, write in kinds.items():
        path = tmp_path / name
        write(path)
        assert read_tensors(path).keys() == tensors.keys()
        survives(lambda path=path: read_tensors(path), bytes_of(path))
    write_state(tmp_path, tensors, {"config": CONFIG.as_dict(), "epoch": 1})
    assert read_state(tmp_path, CONFIG, "") is not None
    data = (tmp_path / STATE_FILE).read_bytes()
    rng = random.Random(SEED)
    for _ in range(TIMES):
        changed = damaged_bytes(data, rng)
        if changed == data:
            continue
        (tmp_path / STATE_FILE).write_bytes(changed)
        with pytest.raises(SpikeportError):
            read_state(tmp_path, CONFIG, "")


def test_provenance(monkeypatch):
    """Whatever a file says of its origin, the commands that look into it end well."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()
    quantizer = InputQuantizer.for_interval((1, 6, 6), 0.0, 1.0)
    inputs = np.random.default_rng(0).integers(0, 255, (16, 1, 6, 6))
    options = ConversionOptions("if", Schedule(2), relu_percentile=99.0)
    limits = load_profile("loihi2").as_target_limits()
    detector = {"stride": 16, "class_names": ["a"], "outputs": 1}
    whole = convert(
        model,
        quantizer,
        options,
        limits,
        name="net",
        provenance={"training": {"data": "digits"}, "command": "convert", "detector": detector},
        calibration=Calibration("c", inputs),
    ).program
    origin, read = json.loads(whole.provenance_json()), [whole]
    monkeypatch.setattr(exports.netx, "read_net", lambda path: read[0])
    monkeypatch.setattr(exports.netx.replays, "read_replays", lambda path: [])

    def damage(rng):
        part = rng.choice(sorted(origin))
        changed = damaged_document({part: rng.choice([origin[part], None])}, rng)
        read[0] = replace(whole, provenance={**origin, **changed})

    looks = (
        lambda: inspect.command(Path("a.net")),
        lambda: verify.command(Path("a.net")),
        lambda: SourceNetwork.of(read[0], model),
    )
    for look in looks:
        read[0] = whole
        look()
        assert survives(look, damage) > 0
    assert survives(lambda: read[0].origin("detector", DetectorSpec), damage) > TIMES / 30


def test_weights_that_are_none(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"")
    with pytest.raises(SpikeportError, match="cannot be read safely"):
        read_tensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(SpikeportError, match="cannot be read safely"):
        read_tensors(path)
    torch.save({1: torch.zeros(2)}, path)
    with pytest.raises(SpikeportError, match="not a state dict"):
        read_tensors(path)
    torch.save({"a": torch.zeros(1 << 20)}, path)
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(SpikeportError, match="bytes packed into"):
        read_tensors(packed)


def test_settings(tmp_path):
    for suffix, dump in ((".toml", tomli_w.dumps), (".yaml", yaml.safe_dump)):
        path = tmp_path / f"a{suffix}"
        path.write_text(dump({k: v for k, v in CONFIG.as_dict().items() if v is not None}))
        survives(lambda path=path: TrainConfig.from_dict(read_settings(path)), bytes_of(path))
    for name in CONFIG.as_dict():
        for value in (*NASTY, float("nan"), float("inf"), -float("inf")):
            for kind in (TrainConfig, DetectorConfig):
                told = refusal(partial(kind.from_dict, {"data": "digits", name: value}))
                assert len(told) < 2000
    nines = "9" * 5000
    lines = {
        "a.yaml": ("seed: 2020-99-99", f"seed: {nines}", f"mean: {deep(5000)}", "? [a]\n: b"),
        "a.toml": ("seed = 2020-99-99", f"seed = {nines}", f"mean = {deep(5000)}", "seed = -1"),
    }
    for name, texts in lines.items():
        for text in texts:
            (tmp_path / name).write_text(text)
            with pytest.raises(SpikeportError):
                TrainConfig.from_dict({"data": "digits", **read_settings(tmp_path / name)})


def test_profiles(tmp_path):
    path = tmp_path / "own.toml"
    own = load_profile("loihi2")
    limits = {k: {"value": v.value, "source": v.source} for k, v in own.limits.items()}
    chip = {k: {"value": v.value, "source": v.source} for k, v in own.chip.items()}
    table = {"description": "own", "limits": limits, "chip": {**chip, "shares_kernels": True}}
    path.write_text(tomli_w.dumps(table))
    assert load_profile(str(path)).limits == own.limits
    survives(lambda: load_profile(str(path)), bytes_of(path))
    values = (0, -1, -(10**20), 10**20, float("inf"), float("nan"), [1], "8", True, {"value": 1})
    for part, names in (("limits", limits), ("chip", chip)):
        for name in names:
            for value in values:
                if (name, value) in (("max_weight_exponent", 0), ("bias_max", 0)):
                    continue
                changed = json.loads(json.dumps(table))
                changed[part][name]["value"] = value
                path.write_text(tomli_w.dumps(changed))
                with pytest.raises(SpikeportError):
                    load_profile(str(path))
    for data in (b"", b"\xff\xfea", "description = 'x'".encode("utf-16"), b"chip = 1"):
        path.write_bytes(data)
        with pytest.raises(SpikeportError):
            load_profile(str(path))


def test_sweeps(tmp_path):
    path = tmp_path / "s.sqlite"
    store = Store(path)
    for steps in range(1, 6):
        point = Point("/run", 4, "if", steps, 8)
        store.add(Result(str(steps), point, 3, 4, 1.5, steps, 2, "hash", 0.5))
    assert len(Store(path).results()) == 5

    def read():
        Store(path).results()
        Store(path).done()

    survives(read, bytes_of(path))


def test_nasty_values_are_told_from_good_ones():
    """The list that damages documents holds something of each kind."""
    kinds = {type(v) for v in NASTY}
    assert kinds == {type(None), bool, int, float, str, list, dict}
    assert np.isinf(float(max(v for v in NASTY if type(v) is float)) * 10)
