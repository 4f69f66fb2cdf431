"""A one-step program, written as CUBA, in the stock lava-dl loader: the same bits.

Each network runs in a process of its own, because lava forks and its import changes the process.
"""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from exports.netx import write_net, write_stock_net
from hw_models.profile import load_profile
from tests.lava_programs import run_program
from tests.networks import branched_program, random_inputs, random_program
from tests.oracles import numpy_loop
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import TargetError
from toolchain.program.int_program import Population, Schedule
from toolchain.program.synapse import DenseSynapse
from toolchain.simulator.reference import simulate

pytestmark = pytest.mark.stock

STOCK_RUN = """
import json, logging, sys
import numpy as np
from hw_models.lava_compat import import_stock_netx
hdf5 = import_stock_netx()
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer as Source
from lava.proc.io.sink import RingBuffer as Sink
path, samples_path, bits = sys.argv[1:4]
samples = np.load(samples_path)
net = hdf5.Network(net_config=path, input_message_bits=int(bits),
                   input_shape=tuple(samples.shape[1:]))
depth, count = len(net.layers), len(samples)
steps = count + depth
data = np.zeros((*samples.shape[1:], steps), np.int32)
data[..., :count] = np.moveaxis(samples, 0, -1)
source = Source(data=data)
source.s_out.connect(net.inp)
sinks = []
for layer in net.layers[:-1]:
    sink = Sink(shape=layer.neuron.s_out.shape, buffer=steps)
    layer.neuron.s_out.connect(sink.a_in)
    sinks.append(sink)
readout, spikes = [], None
config = Loihi2SimCfg(select_tag="fixed_pt")
for step in range(steps):
    net.run(condition=RunSteps(num_steps=1), run_cfg=config)
    readout.append(net.layers[-1].neuron.v.get().tolist())
spikes = [s.data.get().tolist() for s in sinks]
net.stop()
print("RESULT" + json.dumps({"readout": readout, "spikes": spikes}))
"""


def run_stock(path, samples, bits, tmp_path):
    """Readout potential after each step, and each layer's spikes (W, H, C, steps)."""
    file = tmp_path / "samples.npy"
    order = (0, *range(samples.ndim - 1, 0, -1))
    np.save(file, np.ascontiguousarray(samples.transpose(order)))
    result = run_program(STOCK_RUN, str(path), str(file), str(bits))
    assert "RESULT" in result.stdout, result.stdout + result.stderr
    answer = json.loads(result.stdout.rpartition("RESULT")[2])
    return np.array(answer["readout"]), [np.array(s) for s in answer["spikes"]]


def assert_stock_agrees(program, inputs, readout, spikes):
    expected, membrane = numpy_loop.run(program, inputs)
    count = len(inputs)
    for index, population in enumerate(program.spiking):
        # Sample n enters at step n + 1; a layer at depth d answers d steps later.
        found = np.moveaxis(spikes[index], -1, 0)[index + 1 : index + 1 + count]
        in_order = found.transpose(0, *range(found.ndim - 1, 0, -1))
        assert np.array_equal(in_order, expected[population.name][0]), population.name
    depth = len(program.populations)
    logits = readout[depth : depth + count] / 64
    assert np.array_equal(logits, membrane[program.readout.name][0])
    return logits


@pytest.mark.parametrize(
    ("name", "weight_bits"), [("digits_conv", 8), ("digits_dense", 7), ("fashion_conv", 6)]
)
def test_trained_network(name, weight_bits, request, tmp_path):
    trained = request.getfixturevalue(name)
    program = convert(
        trained.network.model,
        trained.network.quantizer,
        ConversionOptions("if", Schedule(1), weight_bits),
        load_profile("stock-netx").as_target_limits(),
        name=name,
    ).program
    inputs = program.input.quantize(trained.test.real()[:4])
    path = tmp_path / "stock.net"
    write_stock_net(program, path)
    fed = inputs
    if name == "digits_dense":
        fed = inputs.reshape(len(inputs), -1)
    logits = assert_stock_agrees(
        program, inputs, *run_stock(path, fed, program.input.bits, tmp_path)
    )
    reference = simulate(program, inputs)
    assert np.argmax(logits, axis=1).tolist() == reference.predictions.tolist()


def test_random_strided_convolution(tmp_path):
    program = random_program(
        21,
        shape=(2, 7, 9),
        convs=((4, 3, 2, 1, 1, 2), (3, 2, 1, 0, 2, 1)),
        schedule=Schedule(1),
        signed_input=True,
    )
    inputs = random_inputs(program, 3)
    path = tmp_path / "stock.net"
    write_stock_net(program, path)
    assert_stock_agrees(program, inputs, *run_stock(path, inputs, 4, tmp_path))


LOAD = """
import sys
from hw_models.lava_compat import import_stock_netx
import_stock_netx().Network(net_config=sys.argv[1], input_message_bits=4)
print("LOADED")
"""


def load_fails(path):
    """Load in the stock loader, which must raise; returns what it printed."""
    result = run_program(LOAD, str(path))
    assert result.returncode != 0
    assert "LOADED" not in result.stdout
    return result.stderr


def test_branched_files_fail_loudly_in_the_stock_loader(tmp_path):
    """It takes every layer for the source of the next, so it must not run them."""
    path = tmp_path / "branched.net"
    write_net(branched_program(1, "if", ("residual", "max")), path)
    assert "Error" in load_fails(path)


def test_a_pool_fails_loudly_in_the_stock_loader(tmp_path):
    path = tmp_path / "pool.net"
    write_stock_net(random_program(1, schedule=Schedule(1)), path)
    with h5py.File(path, "a") as file:
        file["layer/1/type"][0] = b"pool"
    assert "NotImplementedError" in load_fails(path)


def test_what_stock_netx_cannot_hold_is_refused(tmp_path):
    program = random_program(1, schedule=Schedule(1))
    path = tmp_path / "stock.net"

    def refused(changed, message):
        with pytest.raises(TargetError, match=message) as refusal:
            write_stock_net(changed, path)
        assert refusal.value.remedy
        assert list(tmp_path.iterdir()) == []

    refused(replace(program, schedule=Schedule(2)), "only a one-step program")
    refused(random_program(1, "cif", schedule=Schedule(1)), "no such neuron")
    one_sign = random_program(1, convs=(), schedule=Schedule(1), low=-4, high=-3)
    refused(one_sign, "not of both signs")
    refused(
        branched_program(1, blocks=("residual",), schedule=Schedule(1)), "chains of layers only"
    )
    pooled = branched_program(1, blocks=("max",), schedule=Schedule(1), skip_to_readout=False)
    refused(pooled, "no pools")
    summed = branched_program(1, blocks=("sum",), schedule=Schedule(1), skip_to_readout=False)
    refused(summed, "no such neuron")
    refused(
        random_program(1, shape=(128, 3, 3), convs=((128, 3, 1, 1, 1, 128),), schedule=Schedule(1)),
        "this many groups",
    )
    for more in ((2, 0), (1, 1)):
        uneven = random_program(1, convs=((3, 3, 1, 1, 1, 1, *more),), schedule=Schedule(1))
        refused(uneven, "no transposed convolutions, and pads both sides alike")
    *rest, readout = program.populations
    loud = Population("readout", readout.shape, readout.synapses, [40000, 0, 0, 0], readout.neuron)
    refused(replace(program, populations=(*rest, loud)), "bias")
    (synapse,) = readout.synapses
    shifted = Population(
        "readout",
        readout.shape,
        (DenseSynapse(synapse.source, synapse.weight, 1),),
        readout.bias,
        readout.neuron,
    )
    refused(replace(program, populations=(*rest, shifted)), "no weight exponents")
    wide = Population(
        "readout",
        readout.shape,
        (DenseSynapse(synapse.source, synapse.weight + 300),),
        readout.bias,
        readout.neuron,
    )
    refused(replace(program, populations=(*rest, wide), weight_bits=10), "lie outside the range")


def test_weights_of_one_sign_run_where_the_loader_keeps_them(tmp_path):
    program = random_program(1, convs=(), schedule=Schedule(1), low=1, high=5)
    inputs = random_inputs(program, 3)
    path = tmp_path / "stock.net"
    write_stock_net(program, path)
    fed = inputs.reshape(len(inputs), -1)
    assert_stock_agrees(program, inputs, *run_stock(path, fed, 4, tmp_path))
