"""A pass that makes a new program drops nothing of the old one that it does not mean to change.

Every field stands at another value than its default, so that a program built anew without it
differs. The outputs stand in another order than the nodes.
"""

import ast
from dataclasses import MISSING, fields, replace

import numpy as np
import pytest
import torch

from exports.netx import read_net, write_net
from exports.nir import read_nir, write_nir
from tests.command_line import ROOT
from tests.networks import random_program
from toolchain.conversion.float_values import node_values
from toolchain.conversion.passes.average_pools import place_average_pools
from toolchain.conversion.passes.batch_norm import fold_batch_norm
from toolchain.conversion.passes.concatenations import split_concatenations
from toolchain.conversion.passes.max_pools import place_max_pools
from toolchain.conversion.passes.sums import place_sums
from toolchain.conversion.quantization.percentile import with_thresholds
from toolchain.engine.settle import with_measured_sleep
from toolchain.program.float_program import (
    UNBOUNDED,
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    FloatProgram,
    Input,
    Linear,
    MaxPool2d,
)
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Schedule
from toolchain.program.neurons import IntegrateAndFire
from toolchain.program.prefix import prefix

SHAPE = (2, 9, 10)


def conv(rng, name, source, c_in, c_out, **how):
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | how
    weight = rng.normal(size=(c_out, c_in // geometry["groups"], 3, 3))
    return Conv2d(name, (source,), weight, rng.normal(size=c_out), **geometry)


def relu(name, source, threshold=UNBOUNDED, levels=1):
    return Activation(name, (source,), np.array([threshold]), levels, 0.25, "relu", UNBOUNDED)


def float_program():
    """Every kind of node, every geometry another than the default, three outputs out of order."""
    rng = np.random.default_rng(0)
    nodes = (
        Input("input", (), SHAPE),
        conv(rng, "a", "input", 2, 4, stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        BatchNorm("a.norm", ("a",), rng.uniform(0.5, 2, 4), rng.normal(size=4)),
        relu("a.act", "a.norm"),
        conv(rng, "b", "a.act", 4, 4, groups=2),
        conv(rng, "c0", "a.act", 4, 4, stride=(2, 3)),
        relu("c0.act", "c0"),
        conv(rng, "c", "c0.act", 4, 4, upsample=(2, 3), overhang=(0, 1)),
        MaxPool2d("max", ("b",), (2, 3), (1, 2), (1, 1), (1, 1)),
        relu("b.act", "max"),
        MaxPool2d("max2", ("a.act",), (2, 3), (1, 2), (1, 1), (1, 1)),
        Concat("cat", ("b.act", "max2")),
        conv(rng, "d", "cat", 8, 4),
        relu("d.act", "d"),
        Add("sum", ("c", "b")),
        relu("sum.act", "sum"),
        AvgPool2d("mean", ("sum.act",), (2, 2), (1, 1), (1, 0), True),
        Flatten("flat", ("mean",)),
        Linear("last", ("flat",), rng.normal(size=(3, 4 * 10 * 4)), rng.normal(size=3)),
        Flatten("flat2", ("d.act",)),
        Linear("first", ("flat2",), rng.normal(size=(2, 4 * 10 * 3)), rng.normal(size=2)),
        conv(rng, "middle", "sum.act", 4, 1),
    )
    return FloatProgram(nodes, ("middle", "first", "last"))


PASSES = {
    "batch norm": fold_batch_norm,
    "concatenations": split_concatenations,
    "max pools": place_max_pools,
    "sums": place_sums,
    "average pools": lambda program: place_average_pools(program, "auto")[0],
}


def measured(program):
    samples = torch.rand(5, *SHAPE, dtype=torch.float64)
    return with_thresholds(program, [samples], 5, percentile=99.0, levels=6)


def test_float_passes_keep_every_output():
    program = float_program()
    samples = torch.randn(6, *SHAPE, dtype=torch.float64)
    relus = [n.name for n in program.nodes if isinstance(n, Activation)]
    expected = node_values(program, samples, clipped=relus)
    for name, one_pass in PASSES.items():
        program = one_pass(program)
        assert program.outputs == ("middle", "first", "last"), name
        clipped = [n.name for n in program.nodes if isinstance(n, Activation)]
        values = node_values(program, samples, clipped=clipped)
        for output in program.outputs:
            assert torch.allclose(values[output], expected[output], rtol=1e-9), (name, output)
    final = measured(program)
    assert final.outputs == program.outputs
    assert [n.name for n in final.nodes] == [n.name for n in program.nodes]
    for before, after in zip(program.nodes, final.nodes, strict=True):
        changed = {"threshold", "levels", "shift"} if isinstance(before, Activation) else set()
        for field in {f.name for f in fields(before)} - changed:
            assert np.array_equal(getattr(before, field), getattr(after, field)), field


def int_program(*more):
    """No field of it, nor of its input, at its default; `more` is upsample and overhang."""
    how = {"bits": 5, "signed": True, "mean": (0.25, 0.5), "std": (0.5, 2.0), "per_step": True}
    quantizer = InputQuantizer((2, 6, 5), 0.125, **how)
    program = replace(
        random_program(1, "cif", convs=((3, 3, 1, 1, 1, 1, *more),), low=-7, high=7),
        name="all-fields",
        input=quantizer,
        schedule=Schedule(3, 5),
        weight_bits=4,
        state_bits=23,
        watch_ranges=True,
        provenance={"made": "by hand"},
    )
    for of in (program, quantizer):
        for field in fields(of):
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            assert getattr(of, field.name) != default, f"{field.name}: set it here to another value"
    return program


def settled(program, tmp_path):
    inputs = np.zeros((2, *program.sample_shape), np.int64)
    return with_measured_sleep(program, inputs).program, {"schedule"}


def cut(program, tmp_path):
    return prefix(program, program.readouts[-1].name), {"name"}


def through_netx(program, tmp_path):
    write_net(program, tmp_path / "p.net")
    return read_net(tmp_path / "p.net"), set()


def through_nir(program, tmp_path):
    def to_if(population):
        neuron = population.neuron
        if neuron.kind != "CIF":
            return population
        return replace(
            population, neuron=IntegrateAndFire(neuron.threshold, neuron.initial_potential)
        )

    populations = tuple(to_if(p) for p in program.populations)
    program = replace(program, populations=populations)
    write_nir(program, tmp_path / "p.nir", accept_hard_reset=True)
    return (program, read_nir(tmp_path / "p.nir")), set()


@pytest.mark.parametrize("one_pass", [settled, cut, through_netx, through_nir])
def test_integer_passes_keep_every_field(one_pass, tmp_path):
    more = () if one_pass is through_nir else (2, 1)  # NIR has no upsampling
    before = int_program(*more)
    after, changed = one_pass(before, tmp_path)
    if isinstance(after, tuple):
        before, after = after
    for field in {f.name for f in fields(IntProgram)} - changed - {"populations"}:
        assert getattr(after, field) == getattr(before, field), field
    arrays = after.arrays()
    assert all(np.array_equal(arrays[k], v) for k, v in before.arrays().items())
    if not changed:
        assert after.hash == before.hash


def test_only_sources_of_programs_construct_them():
    """Everything else takes the program that it was given, by `replace`."""
    sources = {
        "toolchain/conversion/frontend/trace.py",
        "toolchain/conversion/quantization/integerise.py",
        "exports/netx/reader.py",
        "exports/nir/reader.py",
        "exports/nir/foreign.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for package in ("toolchain", "exports", "hw_models")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("FloatProgram", "IntProgram")
    }
    assert found == sources
