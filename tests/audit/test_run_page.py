"""The page of one sample: every pixel against the recording, and its buttons in a real browser."""

import base64
import io
import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from PIL import Image

import spikeport
from exports.netx import write_net
from tests.browser import CHROMIUM, browse
from tests.command_line import fails, ok
from tests.networks import branched_program, per_step, random_inputs, random_program
from toolchain.audit.run_page import write_run_page
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium; continuous integration installs one"
)
SAMPLE = 1


@pytest.fixture(scope="module")
def made():
    """Residual sums and pools, CIF with sleep, an input of three channels."""
    program = branched_program(
        3, "cif", ("residual", "max", "sum"), schedule=Schedule(3, 4), shape=(3, 7, 9)
    )
    inputs = random_inputs(program, 3, 1)
    return program, inputs, simulate(program, inputs)


def page_of(made, sample=SAMPLE):
    program, inputs, recording = made
    frames = np.array([inputs[sample]] * program.schedule.wake_steps)
    return write_run_page(program, recording, sample, frames)


def run_of(page):
    found = re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.S)
    return json.loads(found[1])


def pixels(run, number):
    data = base64.b64decode(run["pictures"][number].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


def neurons(shape):
    """Place of each neuron: the row and column of its pixel, written out for channels in rows."""
    if len(shape) == 1:
        across = next(n for n in range(1, 999) if n * n >= shape[0])
        return {(k,): divmod(k, across) for k in range(shape[0])}
    channels, height, width = shape
    across = 1
    while channels > 1 and across * across * width < channels * height:
        across += 1
    return {
        (c, y, x): (c // across * (height + 1) + y, c % across * (width + 1) + x)
        for c in range(channels)
        for y in range(height)
        for x in range(width)
    }


def sign(pixel):
    """1 for blue, -1 for orange, 0 for nothing."""
    red, _, blue, opacity = pixel
    return 0 if opacity == 0 else 1 if blue > red else -1


def test_every_pixel_is_a_spike_of_the_recording(made):
    _, _, recording = made
    run = run_of(page_of(made))
    assert [layer["name"] for layer in run["layers"]] == list(recording.spikes)
    seen = set()
    for layer in run["layers"]:
        spikes = recording.spikes[layer["name"]][:, SAMPLE]
        for step, number in zip(spikes, layer["pictures"], strict=True):
            picture = pixels(run, number)
            places = neurons(step.shape)
            for neuron, place in places.items():
                assert sign(picture[place]) == np.sign(step[neuron]), (layer["name"], neuron)
                seen.add(int(step[neuron]))
            # All other pixels are lines, in grey.
            others = np.ones(picture.shape[:2], bool)
            others[tuple(np.array(list(places.values())).T)] = False
            assert (picture[others] == (128, 128, 128, 255)).all()
        assert layer["firing"] == [int((step != 0).sum()) for step in spikes]
        assert layer["spikes"] == [int(np.abs(step.astype(int)).sum()) for step in spikes]
    assert {-1, 0, 1, 2} <= seen


def test_a_larger_graded_spike_is_stronger(made):
    _, _, recording = made
    run = run_of(page_of(made))
    strengths = {}
    for layer in run["layers"]:
        spikes = recording.spikes[layer["name"]][:, SAMPLE]
        if spikes.max() > 1:
            for step, number in zip(spikes, layer["pictures"], strict=True):
                picture = pixels(run, number)
                for neuron, place in neurons(step.shape).items():
                    strengths.setdefault(int(step[neuron]), set()).add(picture[place][3])
            break
    opacities = [strengths[k] for k in sorted(k for k in strengths if k > 0)]
    assert len(opacities) > 1
    assert all(len(found) == 1 for found in opacities)
    assert opacities == sorted(opacities, key=min)


def test_the_input_is_shown_in_its_colours(made):
    program, inputs, _ = made
    run = run_of(page_of(made))
    assert len(set(run["input"])) == 1
    picture = pixels(run, run["input"][0])
    low, high = program.input.range.low, program.input.range.high
    expected = (inputs[SAMPLE].transpose(1, 2, 0) - low) * 255 / (high - low)
    assert np.abs(picture[:, :, :3] - expected).max() <= 0.5


def test_events_of_two_polarities_are_shown_by_sign():
    program = random_program(1, shape=(2, 5, 4), convs=((3, 3, 1, 1, 1, 1),))
    frames = np.zeros((4, 2, 5, 4), np.int32)
    frames[0, 0, 1, 2], frames[1, 1, 3, 0], frames[2, :, 2, 2] = 3, 1, 2
    recording = simulate(program, frames[:1])
    run = run_of(write_run_page(program, recording, 0, frames))
    found = [pixels(run, number) for number in run["input"]]
    assert [sign(found[0][1, 2]), sign(found[1][3, 0]), sign(found[2][2, 2])] == [1, -1, 0]
    assert not found[3][:, :, 3].any()


def test_a_recording_of_events_gives_the_same_pictures(made):
    program, inputs, _ = made
    samples = inputs * program.input.scale * program.input.std[0] + program.input.mean[0]
    events = spikeport.run(program, samples, record="events")
    frames = np.array([inputs[SAMPLE]] * program.schedule.wake_steps)
    first = run_of(page_of(made))
    second = run_of(write_run_page(program, events, SAMPLE, frames))
    assert first["layers"] == second["layers"]
    assert first["pictures"] == second["pictures"]
    (output,) = second["outputs"]
    assert output["values"] == [first["outputs"][0]["values"][-1]]


WALK = """
<script>
const all = what => [...document.querySelectorAll(what)];
const seen = [], read = () => seen.push({
  step: document.getElementById("told").textContent,
  firing: all("#pictures figure:not(#input) span").map(e => e.textContent),
  sources: all("#pictures figure img").map(e => e.src),
  drawn: all("#pictures figure img").map(e => e.naturalWidth),
  asleep: document.getElementById("input").className,
  outputs: all("table.output tr").map(
    r => +r.cells[1].textContent.replaceAll(",", "")),
});
const press = id => document.getElementById(id).click();
onload = async () => {
  read();
  for (let t = 1; t < run.steps; ++t) { press("next"); read(); }
  press("next"); read();
  press("back"); read();
  press("play"); await new Promise(done => setTimeout(done, 1500)); read(); press("play");
  const outside = performance.getEntriesByType("resource").filter(
    e => !e.name.startsWith("data:"));
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.body.insertAdjacentHTML("beforeend", "<pre id=found></pre>");
  document.getElementById("found").textContent =
    JSON.stringify({seen, wide, requests: outside.length});
};
</script>
"""


@needs_chromium
def test_in_a_browser(made, tmp_path):
    program, _, recording = made
    page = page_of(made)
    path = tmp_path / "walk.html"
    path.write_text(page.replace("</body>", f"{WALK}</body>"))
    dom, console = browse(tmp_path, path, "--dump-dom", "--virtual-time-budget=9000")
    assert console == []
    found = json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1]))
    assert found["requests"] == 0
    assert found["wide"] <= 0
    steps, seen = program.schedule.num_steps, found["seen"]
    (readout,) = recording.outputs
    told = [s["step"] for s in seen]
    assert told[:2] == [f"step 1 of {steps}", f"step 2 of {steps}"]
    assert told[steps - 1 : steps + 2] == [
        *[f"step {steps} of {steps}, asleep"] * 2,
        f"step {steps - 1} of {steps}, asleep",
    ]
    assert told[-1] != told[steps + 1]
    run = run_of(page)
    for t in range(steps):
        now = seen[t]
        assert now["asleep"] == ("" if t < program.schedule.wake_steps else "asleep")
        assert now["outputs"] == recording.membrane[readout][t, SAMPLE].tolist()
        assert min(now["drawn"]) > 0
        for (name, spikes), text in zip(recording.spikes.items(), now["firing"], strict=True):
            firing = np.count_nonzero(spikes[t, SAMPLE])
            so_far = np.abs(spikes[: t + 1, SAMPLE].astype(int)).sum()
            neurons_of = spikes[0, 0].size
            expected = f"{firing:,} of {neurons_of:,} neurons fire; {so_far:,} spikes so far"
            assert text == expected, name
        numbers = [layer["pictures"][t] for layer in run["layers"]]
        assert now["sources"][1:] == [run["pictures"][number] for number in numbers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    for seed, name in ((2, "net.net"), (3, "b.net")):
        program = random_program(seed, shape=(1, 8, 8), convs=((2, 3, 1, 1, 1, 1),))
        quantizer = replace(program.input, scale=1 / program.input.range.high)
        write_net(replace(program, input=quantizer), folder / name)
    for record in ("events", "counts"):
        args = ("--data", "digits@test[:5]", "--record", record, "-o", f"{record}.npz")
        ok("run", "net.net", *args, cwd=folder)
    return folder


def test_the_command_finds_the_data_by_itself(folder):
    told = ok("show", "events.npz", "--net", "net.net", "--sample", "4", cwd=folder)
    assert "wrote events.html" in told.stdout
    run = run_of((folder / "events.html").read_text())
    quantizer = spikeport.load(folder / "net.net").input
    inputs = quantizer.quantize(spikeport.open_samples("digits@test[:5]").real())
    expected = inputs[4, 0] * 255 / quantizer.range.high
    assert np.abs(pixels(run, run["input"][0])[:, :, 0] - expected).max() <= 0.5


def test_a_sequence_is_shown_step_by_step(tmp_path):
    program = per_step(random_program(1, shape=(1, 5, 4), convs=((3, 3, 1, 1, 1, 1),)))
    program = replace(program, input=replace(program.input, scale=1.0))
    inputs = random_inputs(program, 2, 1)
    recording = spikeport.run(program, inputs.astype(np.float32))
    samples = inputs.astype(np.float32)
    assert not spikeport.show(recording, program, tmp_path / "a.html", sample=1, data=samples)
    run = run_of((tmp_path / "a.html").read_text())
    low, high = program.input.range.low, program.input.range.high
    assert len(run["input"]) == program.schedule.wake_steps == inputs.shape[1]
    for t, number in enumerate(run["input"]):
        expected = (inputs[1, t, 0] - low) * 255 / (high - low)
        assert np.abs(pixels(run, number)[:, :, 0] - expected).max() <= 0.5


def test_a_page_without_its_input_says_so(folder):
    net = spikeport.load(folder / "net.net")
    recording = spikeport.run(net, np.zeros((2, 1, 8, 8), np.float32))
    recording.save(folder / "array.npz")
    told = ok("show", "array.npz", "--net", "net.net", cwd=folder)
    assert "the input is not shown" in told.stdout
    page = (folder / "array.html").read_text()
    assert "not shown: " in page
    assert run_of(page)["input"] == []


def test_wrong_uses(folder):
    show = ("show", "events.npz", "--net")
    fails(
        2, "holds no spikes of single neurons", "show", "counts.npz", "--net", "net.net", cwd=folder
    )
    fails(2, "has no such sample", *show, "net.net", "--sample", "5", cwd=folder)
    fails(2, "has no such sample", *show, "net.net", "--sample", "-1", cwd=folder)
    fails(2, "with another network", *show, "b.net", cwd=folder)
    fails(2, "with other samples", *show, "net.net", "--data", "digits@test[:4]", cwd=folder)
    fails(2, "with other samples", *show, "net.net", "--data", "digits@test[1:6]", cwd=folder)
    fails(2, "no such file", "show", "nowhere.npz", "--net", "net.net", cwd=folder)
    fails(2, "something else than a page", *show, "net.net", "-o", "x.net", cwd=folder)
