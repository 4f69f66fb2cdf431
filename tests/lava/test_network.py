"""`Network`, a `.net` file as a Lava process, inside programs as a user of lava-dl writes them.

Each runs in a process of its own, because lava forks and its import changes the process.
"""

import json

import numpy as np
import pytest

from exports.netx import write_net
from tests.lava_programs import run_program
from tests.networks import branched_program, per_step, random_inputs, random_program
from tests.oracles import numpy_loop
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse
from toolchain.simulator.reference import simulate

USER_PROGRAM = """
import json, sys
import numpy as np
from hw_models.lava_compat import prepare
prepare()
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from exports.network import Network
from hw_models.run_config import SimCfg

arguments = json.loads(sys.argv[1])
data = np.load(arguments["data"])
net = Network(net_config=arguments["net"], **arguments["how"])
steps = data.shape[-1]
source, sink = Source(data=data), Sink(shape=net.out.shape, buffer=steps)
source.s_out.connect(net.inp)
net.out.connect(sink.a_in)
config = SimCfg(arguments["tag"]) if arguments["tag"] else Loihi2SimCfg(select_tag="fixed_pt")
probed = None
for part in arguments["parts"]:
    net.run(condition=RunSteps(num_steps=part), run_cfg=config)
    last = net.out_layer
    if hasattr(last, "v") and arguments["tag"] != "fixed_pt":
        name = last.layout.populations[-1].name
        probed = last.layout.potentials(last.v.get(), name).tolist()
out = sink.data.get()
net.stop()
print("RESULT" + json.dumps({
    "out": out.tolist(), "len": len(net), "table": str(net), "layers": len(net.layers),
    "interval": net.reset_interval, "depth": net.depth, "probed": probed,
}))
"""


def as_user(tmp_path, program, samples, tag="fast", parts=None, offset=0, **how):
    """Runs the user's program on `samples` sent on every wake step, back to back.

    They are (N, ...), or (N, T, ...) with a tensor for each wake step.
    """
    write_net(program, tmp_path / "net.net")
    batch = how.get("batch", 1)
    steps = program.schedule.num_steps
    slots = len(samples) // batch
    total = offset + slots * steps + max(program.depths().values())
    by_step = samples.swapaxes(0, 1) if program.input.per_step else samples[None]
    sent = by_step.transpose(0, 1, *range(by_step.ndim - 1, 1, -1))
    shape = sent.shape[2:] if batch == 1 else (batch, *sent.shape[2:])
    data = np.zeros((*shape, total), np.int32)
    for slot in range(slots):
        for step in range(program.schedule.wake_steps):
            part = sent[step % len(sent), slot * batch : (slot + 1) * batch]
            data[..., offset + slot * steps + step] = part.reshape(shape)
    np.save(tmp_path / "data.npy", data)
    arguments = {
        "net": str(tmp_path / "net.net"),
        "data": str(tmp_path / "data.npy"),
        "tag": tag,
        "parts": parts or [total],
        "how": {**({"reset_offset": offset} if offset else {}), **how},
    }
    result = run_program(USER_PROGRAM, json.dumps(arguments))
    assert "RESULT" in result.stdout, result.stdout + result.stderr
    answer = json.loads(result.stdout.split("RESULT")[1])
    answer["out"] = np.array(answer["out"])
    return answer


def logits_of(answer, program, count, batch=1, offset=0):
    """The readout after the last step of each sample."""
    steps = program.schedule.num_steps
    depth = max(program.depths().values())
    found = []
    for slot in range(count // batch):
        # RingBuffer keeps what arrives at step t in column t - 1.
        value = answer["out"][..., offset + depth + (slot + 1) * steps - 1]
        found.append(value.reshape(batch, -1))
    return np.concatenate(found)


@pytest.mark.parametrize("tag", ["fast", "fixed_pt", ""])
def test_between_stock_sources_and_sinks(tmp_path, tag):
    program = random_program(4, "cif", convs=((4, 3, 2, 1, 1, 1),), schedule=Schedule(3, 3))
    samples = random_inputs(program, 3, 1)
    answer = as_user(tmp_path, program, samples, tag)
    expected = simulate(program, samples)
    assert np.array_equal(logits_of(answer, program, 3), expected.logits)
    assert answer["interval"] == 6
    assert answer["depth"] == len(program.populations) == answer["len"]
    assert answer["layers"] == len(program.populations)


@pytest.mark.parametrize("tag", ["fast", "fixed_pt"])
def test_graded_neurons_in_a_program(tmp_path, tag):
    """A neuron's payload passes from block to block; the sink gets the readout's sums."""
    program = random_program(4, "graded", convs=((4, 3, 2, 1, 1, 1),), schedule=Schedule(3))
    samples = random_inputs(program, 3, 1)
    answer = as_user(tmp_path, program, samples, tag)
    _, membrane = numpy_loop.run(program, samples)
    assert np.array_equal(logits_of(answer, program, 3), membrane["readout"][-1])


@pytest.mark.parametrize("tag", ["fast", "fixed_pt"])
def test_inputs_that_change_over_time(tmp_path, tag):
    program = per_step(random_program(4, "cif", hidden=(5,), schedule=Schedule(3, 2)))
    samples = random_inputs(program, 3, 1)
    answer = as_user(tmp_path, program, samples, tag)
    assert np.array_equal(logits_of(answer, program, 3), simulate(program, samples).logits)


def test_every_step_of_the_readout_comes_out(tmp_path):
    program = random_program(3, schedule=Schedule(4))
    samples = random_inputs(program, 2, 1)
    out = as_user(tmp_path, program, samples)["out"]
    depth = max(program.depths().values())
    membrane = simulate(program, samples).membrane["readout"]
    by_step = membrane.transpose(2, 1, 0).reshape(out.shape[0], -1)
    assert np.array_equal(out[:, depth:], by_step)
    assert not out[:, :depth].any()


def test_branches_batches_offsets_and_runs_in_parts(tmp_path):
    program = branched_program(
        5, "if", ["residual", "max"], schedule=Schedule(4), skip_to_readout=False, low=-9, high=9
    )
    samples = random_inputs(program, 4, 1)
    total = 3 + 2 * 4 + max(program.depths().values())
    answer = as_user(tmp_path, program, samples, parts=[5, total - 5], offset=3, batch=2, blocks=2)
    expected = simulate(program, samples)
    assert np.array_equal(logits_of(answer, program, 4, batch=2, offset=3), expected.logits)
    assert answer["layers"] == 2
    assert np.array_equal(np.array(answer["probed"]), expected.logits[2:])


def test_the_table_names_every_layer(tmp_path):
    program = branched_program(1, "if", ["strided", "max"], shape=(2, 8, 6))
    table = as_user(tmp_path, program, random_inputs(program, 1))["table"].splitlines()
    assert table[0] == "|   Type   |  W  |  H  |  C  | ker | str | pad | dil | grp |delay|"
    assert table[1] == "|Conv      |    6|    8|    3| 3, 3| 1, 1| 1, 1| 1, 1|    1|False|"
    assert [row[1:6].strip() for row in table[1:]] == ["Conv", "Conv", "Conv", "Pool", "Dense"]
    assert table[3].endswith("|True |")
    assert len({len(row) for row in table}) == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reset_interval=3", "a sample takes as many steps as the file says"),
        ("input_message_bits=7", "as many bits as the file says"),
        ("input_shape=(9, 9, 9)", "the shape that the file says"),
        ("num_layers=0", "cannot be cut there"),
        ("skip_layers=9", "cannot be cut there"),
        ("blocks=9", "cannot be cut into that many blocks"),
        ("blocks=1, num_layers=1", "only a whole network is grouped"),
    ],
)
def test_what_contradicts_the_file_is_refused(tmp_path, how, message):
    program = random_program(1)
    write_net(program, tmp_path / "net.net")
    code = (
        "from hw_models.lava_compat import prepare; prepare()\n"
        "from exports.network import Network\n"
        "from toolchain.errors import TargetError\n"
        f"try: Network({str(tmp_path / 'net.net')!r}, {how})\n"
        "except TargetError as error: print(error)\n"
    )
    result = run_program(code)
    assert message in result.stdout, result.stdout + result.stderr


def test_stock_synapses_refuse_what_they_would_clip(tmp_path):
    # 16-bit weights: stock Dense would clip them without a word.
    dense = DenseSynapse("input", [[1 << 12]])
    cell = Population("cell", (1,), (dense,), [0], IntegrateAndFire([10], [0]))
    readout = Population("readout", (1,), (DenseSynapse("cell", [[1]]),), [0], Readout(1.0))
    quantizer = InputQuantizer((1,), 1.0)
    program = IntProgram("wide", quantizer, (cell, readout), Schedule(2), weight_bits=16)
    with pytest.raises(AssertionError, match="stock Dense would clip these weights"):
        as_user(tmp_path, program, np.array([[1]]), "fixed_pt")
    out = as_user(tmp_path, program, np.array([[1]]), "fast")
    assert np.array_equal(logits_of(out, program, 1), simulate(program, np.array([[1]])).logits)


def test_some_of_the_layers(tmp_path):
    program = random_program(6, convs=((4, 3, 1, 1, 1, 1), (3, 3, 1, 1, 1, 1)))
    samples = random_inputs(program, 2, 1)
    answer = as_user(tmp_path, program, samples, num_layers=1)
    assert answer["len"] == 1
    spikes = simulate(program, samples).spikes["conv0"]
    found = answer["out"][..., 1 : 1 + spikes.shape[0] * 2]
    wanted = np.concatenate([spikes[:, 0], spikes[:, 1]]).transpose(3, 2, 1, 0)
    assert np.array_equal(found, wanted)
