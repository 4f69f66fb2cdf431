"""NIR graphs of other tools: snnTorch's spikes, step by step, and what is refused by name."""

import itertools
import warnings

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from torch import nn
from torch.nn import functional as F

from exports.netx import read_net
from exports.nir import Reset, read_foreign_nir
from exports.nir.foreign import READOUT
from hw_models.profile import load_profile
from tests.command_line import fails, ok
from toolchain.conversion.float_values import evaluate
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.errors import FormatError, ProgramError, TargetError, UnsupportedModuleError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.recording import Mode
from toolchain.simulator.reference import simulate

LIMITS = load_profile("loihi2").as_target_limits()
LEVELS = 8


def leaky(shape, threshold):
    """snnTorch's integrate-and-fire neuron: no decay, reset by subtraction."""
    return snn.Leaky(
        beta=torch.ones(shape), threshold=torch.full(shape, threshold), init_hidden=True
    )


def network(kind, thresholds):
    first, second = thresholds
    layers = {
        "dense": (nn.Linear(20, 12), leaky((12,), first), nn.Linear(12, 5), leaky((5,), second)),
        "conv": (
            nn.Conv2d(1, 3, 3, padding=1),
            leaky((3, 6, 6), first),
            nn.Flatten(),
            nn.Linear(108, 5),
            leaky((5,), second),
        ),
        "readout": (nn.Linear(20, 12), leaky((12,), first), nn.Linear(12, 5)),
    }[kind]
    net = nn.Sequential(*layers)
    for module in net:
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = torch.randint(-6, 7, module.weight.shape).float()
            module.bias.data = torch.randint(-3, 4, module.bias.shape).float()
    return net


def exported(net, sample, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # snnTorch divides by 1 - beta
        nir.write(str(path), export_to_nir(net, sample, ignore_dims=[0]))


def spikes_of(net, x, steps):
    """What each of snnTorch's neurons sends, (T, N, ...) by layer, and outputs summed up."""
    for module in net:
        if isinstance(module, snn.Leaky):
            module.reset_mem()
    sent = [[] for module in net if isinstance(module, snn.Leaky)]
    total = 0
    with torch.no_grad():
        for _ in range(steps):
            values, index = x, 0
            for module in net:
                values = module(values)
                if isinstance(module, snn.Leaky):
                    sent[index].append(values.numpy().copy())
                    index += 1
            total = total + values
    return [np.stack(layer) for layer in sent], total.numpy()  # type: ignore[attr-defined]


@pytest.mark.parametrize("thresholds", [(10.0, 20.0), (10.5, 7.0)])
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("kind", ["dense", "conv", "readout"])
def test_the_spikes_are_snntorchs(kind, steps, thresholds, tmp_path):
    """Integers, so that membranes meet their thresholds exactly again and again."""
    torch.manual_seed(steps)
    net = network(kind, thresholds)
    shape = (1, 6, 6) if kind == "conv" else (20,)
    x = torch.randint(0, LEVELS, (7, *shape)).float()
    exported(net, x[:1], tmp_path / "x.nir")
    program, notes = read_foreign_nir(tmp_path / "x.nir", steps, Reset.SUBTRACT)
    assert notes == ()
    quantizer = InputQuantizer(shape, 1.0, bits=3)
    options = ConversionOptions("if", Schedule(steps), weight_bits=8)
    made = convert(program, quantizer, options, LIMITS, name="x")
    assert all(r.weight_error < 1e-12 for r in made.rounding[:-1])
    found = simulate(made.program, made.program.input.quantize(x.numpy()), mode=Mode.FULL)
    expected, total = spikes_of(net, x, steps)
    for layer, theirs in zip(found.spikes.values(), expected, strict=True):
        assert np.array_equal(layer, theirs)
    if kind != "readout":
        counts = found.logits * made.program.readout.neuron.scale  # type: ignore[attr-defined]
        assert np.allclose(counts, total, atol=1e-4)


def test_resets_have_to_be_told(tmp_path):
    exported(network("dense", (3.0, 3.0)), torch.zeros(1, 20), tmp_path / "x.nir")
    for reset in (None, Reset.ZERO):
        with pytest.raises(TargetError, match="how neurons are reset"):
            read_foreign_nir(tmp_path / "x.nir", 2, reset)
        read_foreign_nir(tmp_path / "x.nir", 1, reset)


def graph(*nodes, edges=None, shape=(4,), out=(3,)):
    """Nodes in a row between input and output."""
    named = {f"n{i}": node for i, node in enumerate(nodes)}
    names = ["input", *named, "output"]
    ends = {
        "input": nir.Input({"input": np.array(shape)}),
        "output": nir.Output({"output": np.array(out)}),
    }
    edges = list(itertools.pairwise(names)) if edges is None else edges
    return nir.NIRGraph({**ends, **named}, edges, type_check=False)


def dense(rows=3, columns=4):
    return nir.Affine(np.ones((rows, columns)), np.zeros(rows))


def fires(shape=(3,), threshold=1.0, r=1.0, v_reset=0.0):
    return nir.IF(np.full(shape, r), np.full(shape, threshold), np.full(shape, v_reset))


def read(made, path, steps=1):
    nir.write(str(path), made)
    return read_foreign_nir(path, steps, Reset.SUBTRACT)[0]


def uneven():
    node = fires((2, 3, 3))
    node.v_threshold[1, 0, 0] = 2.0
    return node


PLANE = {"shape": (2, 3, 3), "out": (2, 3, 3)}


def padded(kernel, stride=1):
    weight = np.random.default_rng(0).normal(size=(2, 2, *kernel))
    return nir.Conv2d((3, 3), weight, stride, "same", 1, 1, np.zeros(2))


def test_sum_pools_scales_and_same_padding(tmp_path):
    """sinabs writes sum pools (the NIR paper's cnn_sinabs); the oracle is torch."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(3, 2, 3, 5))
    made = graph(
        nir.Conv2d((6, 9), weight, 1, "same", (2, 1), 1, np.ones(3)),
        nir.SumPool2d(np.array([2, 3]), np.array([2, 3]), np.array([0, 0])),
        nir.Scale(np.repeat([0.5, 2.0, 1.0], 9).reshape(3, 3, 3)),
        shape=(2, 6, 9),
        out=(3, 3, 3),
    )
    program = read(made, tmp_path / "x.nir")
    x = torch.from_numpy(rng.normal(size=(4, 2, 6, 9)))
    summed = F.conv2d(x, torch.from_numpy(weight), torch.ones(3).double(), 1, (2, 2), (2, 1))
    wanted = F.avg_pool2d(summed, (2, 3)) * 6 * torch.tensor([0.5, 2.0, 1.0]).reshape(3, 1, 1)
    assert torch.allclose(evaluate(program, x), wanted)


def spikes_by_hand(weights, thresholds, x, steps):
    """IF neurons that subtract: (T, N, M) by layer, from input currents that stay."""
    sent, potentials = [[] for _ in weights], [0 for _ in weights]
    for _ in range(steps):
        values = x
        for index, (weight, threshold) in enumerate(zip(weights, thresholds, strict=True)):
            potentials[index] = potentials[index] + values @ weight.T
            values = (potentials[index] > threshold).astype(float)
            potentials[index] = potentials[index] - values * threshold
            sent[index].append(values)
    return [np.stack(layer) for layer in sent]


@pytest.mark.parametrize("dt", [1e-4, 1e-3])
def test_a_resistance_of_one_over_the_time_step(dt, tmp_path):
    """SpikingJelly's: a step of dt adds r * dt = 1 times the current."""
    rng = np.random.default_rng(2)
    weights = [rng.integers(-6, 7, (6, 4)).astype(float), rng.integers(-6, 7, (3, 6)).astype(float)]
    nodes = [nir.Linear(weights[0]), fires((6,), 9.0, r=1 / dt)]
    nodes += [nir.Linear(weights[1]), fires((3,), 5.0, r=1 / dt)]
    nir.write(str(tmp_path / "x.nir"), graph(*nodes))
    program, (note,) = read_foreign_nir(tmp_path / "x.nir", 6, Reset.SUBTRACT)
    assert f"read as 1 / dt: a step of {dt:g} s" in note
    options = ConversionOptions("if", Schedule(6))
    made = convert(program, InputQuantizer((4,), 1.0, bits=3), options, LIMITS, name="x").program
    x = rng.integers(0, 8, (9, 4))
    found = simulate(made, x, mode=Mode.FULL)
    expected = spikes_by_hand(weights, (9.0, 5.0), x, 6)
    for layer, theirs in zip(found.spikes.values(), expected, strict=True):
        assert np.array_equal(layer, theirs)


def test_types_that_the_arrays_contradict(tmp_path):
    """As norse and nirtorch write: one number for all neurons, an axis of batch, another plane."""
    rng = np.random.default_rng(3)
    kernels, dense = rng.normal(size=(4, 1, 3, 3)), rng.normal(size=(3, 64))
    one = fires((1,), 0.5)

    def conv(plane):
        return nir.Conv2d(plane, kernels, 1, 1, 1, 2, np.ones(4))

    def flatten(shape):
        return nir.Flatten({"input": np.array(shape)}, 0, -1)

    right = [conv((4, 4)), fires((4, 4, 4), 0.5), flatten((4, 4, 4)), nir.Affine(dense, np.ones(3))]
    wrong = [conv((9, 9)), one, flatten((2, 7)), nir.Affine(dense, np.ones(3))]
    expected = read(graph(*right, shape=(2, 4, 4), out=(3,)), tmp_path / "right.nir")
    nir.write(str(tmp_path / "wrong.nir"), graph(*wrong, shape=(1, 2, 4, 4), out=(5,)))
    program, notes = read_foreign_nir(tmp_path / "wrong.nir", 1, None)
    x = torch.from_numpy(rng.normal(size=(5, 2, 4, 4)))
    found = evaluate(program, x)
    assert torch.equal(found, evaluate(expected, x))
    fired = F.conv2d(x, torch.from_numpy(kernels), torch.ones(4).double(), padding=1, groups=2)
    by_hand = (fired > 0.5).double().flatten(1) @ torch.from_numpy(dense).T + 1
    assert torch.allclose(found, by_hand)
    assert [note.partition(":")[0] for note in notes] == ["input", "n0", "n1", "n2", "output"]
    assert "declared as (1, 2, 4, 4); n0 takes (2, 4, 4)" in notes[0]
    assert "declared for (2, 7); (4, 4, 4) arrive" in notes[3]


def test_axes_of_batch_and_time_before_a_dense_layer(tmp_path):
    """rockpool's files end in leaking neurons, which is what the error names."""
    nodes = (nir.Linear(np.ones((3, 4))), nir.CubaLIF(*(np.ones(3) for _ in range(5))))
    nir.write(str(tmp_path / "x.nir"), graph(*nodes, shape=(1, 100, 4)))
    with pytest.raises(UnsupportedModuleError, match="has no counterpart") as found:
        read_foreign_nir(tmp_path / "x.nir", 1, None)
    assert found.value.found == "CubaLIF"
    made = graph(dense(), fires(), shape=(1, 100, 4))
    assert read(made, tmp_path / "x.nir").input.shape == (4,)
    with pytest.raises(ProgramError, match="does not fit"):
        read(graph(dense(), fires(), shape=(1, 100, 5)), tmp_path / "x.nir")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (graph(dense(), nir.LIF(np.ones(3), np.ones(3), np.zeros(3), np.ones(3))), "that leak"),
        (graph(dense(), fires(r=2.0)), "resistance"),
        (graph(dense(), fires(r=1e4), dense(3, 3), fires(r=1e3)), "resistance"),
        (graph(dense(), fires(v_reset=0.5)), "reset to other than 0"),
        (graph(dense(), fires(threshold=0.0)), "must be positive"),
        (graph(uneven(), **PLANE), "differ within a channel"),
        (graph(nir.Scale(uneven().v_threshold), **PLANE), "scales differ within a channel"),
        (graph(padded((2, 3)), **PLANE), "this padding by name"),
        (graph(padded((3, 3), stride=2), **PLANE), "this padding by name"),
        (graph(dense(), nir.Threshold(np.ones(3))), "has no counterpart"),
        (graph(dense(), nir.CubaLIF(*(np.ones(3) for _ in range(5)))), "has no counterpart"),
    ],
)
def test_what_has_no_counterpart(made, words, tmp_path):
    with pytest.raises(UnsupportedModuleError, match=words) as found:
        read(made, tmp_path / "x.nir")
    assert found.value.node.startswith("n")


def test_graphs_that_are_no_chain_of_ends(tmp_path):
    path = tmp_path / "x.nir"
    cycle = [("input", "n0"), ("n0", "n1"), ("n1", "n0"), ("n1", "output")]
    with pytest.raises(UnsupportedModuleError, match="cycle"):
        read(graph(dense(4), fires((4,)), edges=cycle, out=(4,)), path)
    with pytest.raises(FormatError, match="one input and one output"):
        read(graph(dense(), dense(), edges=[("input", "n0"), ("n0", "output")]), path)
    two = graph(dense())
    two.nodes["input2"] = nir.Input({"input": np.array([4])})
    with pytest.raises(FormatError, match="one input and one output"):
        read(two, path)
    with pytest.raises(FormatError, match="no such file"):
        read_foreign_nir(tmp_path / "missing.nir", 1, None)


def test_currents_that_meet_add_up(tmp_path):
    """Two paths into one neuron, an average pool, a scale of 1, and what the readout counts."""
    rng = np.random.default_rng(0)
    kernels = rng.integers(-5, 6, (2, 3, 1, 3, 3)).astype(float)

    def conv(weight):
        return nir.Conv2d((4, 4), weight, 1, 1, 1, 1, np.zeros(3))

    nodes = (
        conv(kernels[0]),
        conv(kernels[1]),
        fires((3, 4, 4), threshold=9.0),
        nir.Scale(np.ones((3, 4, 4))),
        nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        nir.Linear(np.eye(12)),
        fires((12,), threshold=0.6),
    )
    edges = [("input", "n0"), ("input", "n1"), ("n0", "n2"), ("n1", "n2")]
    edges += [(f"n{i}", f"n{i + 1}") for i in range(2, 7)] + [("n7", "output")]
    made = graph(*nodes, edges=edges, shape=(1, 4, 4), out=(12,))
    program = read(made, tmp_path / "x.nir", steps=1)
    assert program.outputs == (READOUT,)
    quantizer = InputQuantizer((1, 4, 4), 1.0, bits=3)
    options = ConversionOptions("if", Schedule(1), pooling="stage")
    integers = convert(program, quantizer, options, LIMITS, name="x").program
    inputs = rng.integers(0, 8, (5, 1, 4, 4))
    found = simulate(integers, inputs, mode=Mode.FULL)
    with torch.no_grad():
        x = torch.from_numpy(inputs).double()
        current = sum(nn.functional.conv2d(x, torch.from_numpy(k), padding=1) for k in kernels)
        first = (current > 9).double()
        second = (nn.functional.avg_pool2d(first, 2).flatten(1) > 0.6).long()
    layers = [s for name, s in found.spikes.items() if s.shape[2:] in ((3, 4, 4), (12,))]
    assert np.array_equal(layers[0][0], first.numpy())
    assert np.array_equal(layers[1][0], second.numpy())
    assert np.array_equal(found.predictions, second.argmax(1))


def test_the_command(tmp_path):
    torch.manual_seed(0)
    net = network("conv", (10.0, 7.0))
    exported(net, torch.zeros(1, 1, 6, 6), tmp_path / "x.nir")
    convert = ("convert", "x.nir", "--input-range", "0,7", "--input-bits", "3", "-o", "x.net")
    fails(2, "--nir-reset subtract", *convert, "--steps", "4", cwd=tmp_path)
    ok(*convert, "--steps", "4", "--nir-reset", "subtract", cwd=tmp_path)
    program = read_net(tmp_path / "x.net")
    assert program.provenance["file"] == "x.nir"
    x = torch.randint(0, LEVELS, (3, 1, 6, 6)).float()
    found = simulate(program, program.input.quantize(x.numpy()), mode=Mode.FULL)
    expected, _ = spikes_of(net, x, 4)
    for layer, theirs in zip(found.spikes.values(), expected, strict=True):
        assert np.array_equal(layer, theirs)
    nir.write(str(tmp_path / "sj.nir"), graph(dense(), fires(r=1e4)))
    told = ok("convert", "sj.nir", "-o", "sj.net", "--steps", "1", cwd=tmp_path)
    assert "read as 1 / dt" in " ".join(told.stdout.split())
    (tmp_path / "no.nir").write_bytes(b"nothing")
    fails(2, "not a readable HDF5 file", "convert", "no.nir", "-o", "y.net", cwd=tmp_path)
