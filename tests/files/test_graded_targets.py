"""Graded IF neurons in every target: the same bits, or a refusal that says what to do."""

import numpy as np
import onnxruntime
import pytest

import spikeport
from exports.netx import write_stock_net
from exports.onnx import write_onnx
from hw_models.stock.atrlif_limits import check_atrlif
from spikeport.backends import Onnx
from spikeport.exporting import TARGETS
from tests.files.test_c_source import made
from tests.networks import BLOCKS, branched_program, random_inputs, random_program
from tests.oracles import numpy_loop
from toolchain.errors import TargetError
from toolchain.program.int_program import Schedule

RUNNING = {"c", "onnx"}
"""Targets that have the neuron; that they give the same bits is tested below."""
PLACING = {"partition"}
"""Targets that hold no neurons, only their places."""


OTHERS = {
    "stock netx": lambda program, path, _: write_stock_net(program, path),
    "atrlif": lambda program, path, _: check_atrlif(program, watch=True),
}


@pytest.mark.parametrize("target", sorted({*TARGETS, *OTHERS} - RUNNING - PLACING))
def test_every_other_target_refuses_them(target, tmp_path):
    program = random_program(3, "graded", schedule=Schedule(2))
    with pytest.raises(TargetError) as found:
        OTHERS.get(target, spikeport.export)(program, tmp_path / "x", target)
    assert found.value.found in ("GRADED_IF", "2 steps")
    assert any(told in str(found.value.remedy) for told in ("max_spike=1", "steps=1"))
    assert not (tmp_path / "x").exists()


def test_partitions_place_them(tmp_path):
    program = random_program(3, "graded")
    assert spikeport.export(program, tmp_path / "places.json", "partition") == []


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_onnxruntime_gives_every_bit(block):
    program = branched_program(5, "graded", (block,), schedule=Schedule(3), low=-9, high=9)
    inputs = random_inputs(program, 3)
    spikes, membrane = numpy_loop.run(program, inputs)
    found = Onnx().run(program, inputs)
    for name, wanted in membrane.items():
        assert np.array_equal(found.membrane[name], wanted), name
        if name in found.spikes:
            assert np.array_equal(found.spikes[name], spikes[name]), name


@pytest.mark.parametrize("blocks", [("residual", "max"), ("sum", "graded"), ("upsampled",)])
def test_c_gives_every_bit(blocks, tmp_path):
    program = branched_program(5, "graded", blocks, schedule=Schedule(3), low=-9, high=9)
    inputs = random_inputs(program, 3)
    whole = spikeport.Reference().run(program, inputs)
    spikes, _ = numpy_loop.run(program, inputs)
    assert all(np.array_equal(whole.spikes[name], spikes[name]) for name in whole.spikes)
    spikeport.export(program, tmp_path, "c")
    status, said = made(tmp_path)
    assert (status, "every bit as in the reference" in said) == (0, True), said


@pytest.mark.parametrize("seed", range(4))
def test_one_step_is_the_network_without_time(seed, tmp_path):
    """One step of the loop, as a graph without time and state."""
    program = branched_program(seed, "graded", ("residual", "max"), schedule=Schedule(1))
    write_onnx(program, tmp_path / "settled.onnx", settled=True)
    session = onnxruntime.InferenceSession(tmp_path / "settled.onnx")
    inputs = random_inputs(program, 5, seed)
    (found,) = session.run(None, {"input": inputs.astype(np.int32)})
    _, membrane = numpy_loop.run(program, inputs)
    assert np.array_equal(found, membrane["readout"][-1])


def test_several_steps_do_not_settle(tmp_path):
    program = random_program(3, "graded", schedule=Schedule(2))
    with pytest.raises(TargetError, match="do not settle"):
        write_onnx(program, tmp_path / "settled.onnx", settled=True)
