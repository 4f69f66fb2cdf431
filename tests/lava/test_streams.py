"""Networks left running over a stream, in a user's Lava program with stock source and sink.

The stock source repeats its frames without end. Their number and the steps of a window have no
common factor, so that all windows differ.
"""

import json
from math import gcd

import numpy as np

from exports.netx import write_net
from tests.lava_programs import run_program
from tests.networks import per_step, random_inputs, random_program
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SMALL = {"shape": (1, 5, 5), "convs": ((2, 3, 1, 1, 1, 1),)}
USER_PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from hw_models.lava_compat import prepare
prepare()
from lava.magma.core.run_conditions import RunSteps
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from exports.network import Network
from hw_models.run_config import SimCfg

def resident(pid):
    "Megabytes of each process below one."
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            status = Path(f"/proc/{child}/status").read_text()
            found[child] = int(status.partition("VmRSS:")[2].split()[0]) / 1024
            found |= resident(child)
    return found

arguments = json.loads(sys.argv[1])
net = Network(arguments["net"])
source = Source(data=np.load(arguments["data"]))
sink = Sink(shape=net.out.shape, buffer=sum(arguments["parts"]))
source.s_out.connect(net.inp)
net.out.connect(sink.a_in)
memory = []
for part in arguments["parts"]:
    net.run(condition=RunSteps(num_steps=part), run_cfg=SimCfg("fast"))
    memory.append(resident("self"))
out = sink.data.get()
net.stop()
np.save(arguments["out"], out)
print("RESULT" + json.dumps({"memory": memory, "interval": net.reset_interval}))
"""


def streamed(tmp_path, program, frames, parts):
    """The readout after each step, (steps, K), and what the program told of itself."""
    write_net(program, tmp_path / "net.net")
    np.save(tmp_path / "data.npy", np.ascontiguousarray(frames.transpose(3, 2, 1, 0)))
    depth = max(program.depths().values())
    arguments = {
        **{name: str(tmp_path / f"{name}.npy") for name in ("data", "out")},
        "net": str(tmp_path / "net.net"),
        "parts": [*parts[:-1], parts[-1] + depth],
    }
    result = run_program(USER_PROGRAM, json.dumps(arguments))
    assert "RESULT" in result.stdout, result.stdout + result.stderr
    out = np.load(tmp_path / "out.npy")
    return out[:, depth:].T, json.loads(result.stdout.split("RESULT")[1])


def some_frames(program, count):
    """Different frames, int (count, C, H, W)."""
    frames = random_inputs(program, -(-count // program.schedule.wake_steps), 1)
    return frames.reshape(-1, *program.input.shape)[:count]


def test_a_reset_after_each_window_and_memory_that_does_not_grow(tmp_path):
    steps, window, period = 10_000, 8, 97
    assert gcd(window, period) == 1
    program = random_program(
        3, shape=(2, 6, 5), convs=((3, 3, 1, 1, 1, 1),), schedule=Schedule(window)
    )
    program = per_step(program)
    frames = some_frames(program, period)
    out, told = streamed(tmp_path, program, frames, [1_000, steps - 1_000])
    assert told["interval"] == window
    windows = frames[np.arange(steps) % period].reshape(-1, window, *program.input.shape)
    expected = simulate(program, windows).logits
    assert len(np.unique(expected, axis=0)) > 30
    assert np.array_equal(out[window - 1 :: window], expected)
    first, last = told["memory"]
    assert first.keys() == last.keys()
    # Nine thousand frames of 240 bytes, or of readouts, would be seen.
    assert all(last[process] - first[process] < 1 for process in first), told["memory"]


def test_no_reset_between_windows(tmp_path):
    """A program as long as the stream: windows are differences of the readout."""
    steps, window = 600, 20
    program = per_step(random_program(5, **SMALL, schedule=Schedule(steps)))
    frames = some_frames(program, steps)
    out, _ = streamed(tmp_path, program, frames, [steps])
    accumulated = simulate(program, frames[None]).membrane["readout"][:, 0]
    assert np.array_equal(out, accumulated)
    ends = np.concatenate([np.zeros((1, out.shape[1]), int), out[window - 1 :: window]])
    per_window = np.diff(ends, axis=0)
    # A window that began at rest would give something else.
    alone = per_step(random_program(5, **SMALL, schedule=Schedule(window)))
    fresh = simulate(alone, frames.reshape(-1, window, 1, 5, 5)).logits
    assert np.array_equal(per_window[0], fresh[0])
    assert not np.array_equal(per_window[1:], fresh[1:])
