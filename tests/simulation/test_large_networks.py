"""What only large networks need, on small ones: pools that stay stages, bounded audits."""

import numpy as np
import pytest
import torch
from torch import nn

from hw_models.profile import load_profile
from tests.networks import branched_program
from toolchain.audit import activity, certificate
from toolchain.audit.activity import LayerExtremes, samples_at_once
from toolchain.audit.certificate import certify
from toolchain.conversion.passes import average_pools
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.learning.activations import QCFS
from toolchain.program.bounds import analyse
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.program.synops import dense_operations
from toolchain.simulator.quantized_network import quantized_counts

SHAPE = (2, 8, 8)


def network(window):
    torch.manual_seed(0)
    pool = nn.AvgPool2d(window)
    features = 6 * (8 // window) ** 2
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), QCFS(4, 1.0), pool, nn.Flatten(), nn.Linear(features, 5)
    ).eval()


def converted(window, pooling="auto"):
    options = ConversionOptions("if", Schedule(4), pooling=pooling)
    quantizer = InputQuantizer.for_interval(SHAPE, 0.0, 1.0, levels=255)
    limits = load_profile("loihi2").as_target_limits()
    return convert(network(window), quantizer, options, limits, name="x")


def test_a_pool_whose_folding_makes_too_many_weights_stays_a_stage(monkeypatch):
    """Pooled, the dense layer has 5 x 6 x 4 weights; folded it would have 5 x 6 x 64."""
    assert [p.neuron.kind for p in converted(4).program.populations] == ["IF", "READOUT"]
    monkeypatch.setattr(average_pools, "MOST_WEIGHTS", 1919)
    made = converted(4)
    assert [p.neuron.kind for p in made.program.populations] == ["IF", "RELAY", "READOUT"]
    assert any("it would give 4 1,920 weights in place of 120" in note for note in made.notes)
    folded = converted(4, "fold").program
    assert [p.neuron.kind for p in folded.populations] == ["IF", "READOUT"]
    monkeypatch.setattr(average_pools, "MOST_WEIGHTS", 1920)
    assert not converted(4).notes


def test_both_places_of_a_pool_compute_the_same():
    inputs = np.random.default_rng(0).integers(0, 256, (8, *SHAPE))
    folded, staged = converted(4, "fold").program, converted(4, "stage").program
    outputs = []
    for program in (folded, staged):
        (found,) = quantized_counts(program, inputs)[1].values()
        outputs.append(found * program.readout.neuron.scale / 4)
    # Weights are rounded to 8 bits of another range each; their sums differ by no more.
    assert np.abs(outputs[0] - outputs[1]).max() < 0.02 * np.abs(outputs[0]).max()


def test_a_window_too_large_for_a_spike_is_folded_all_the_same(monkeypatch):
    """64 spikes fit 8 bits; a window of 16 x 16 would send 256."""
    monkeypatch.setattr(average_pools, "MOST_WEIGHTS", 0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), QCFS(4, 1.0), nn.AvgPool2d(16), nn.Flatten(), nn.Linear(2, 3)
    ).eval()
    options = ConversionOptions("if", Schedule(4))
    quantizer = InputQuantizer.for_interval((1, 16, 16), 0.0, 1.0, levels=255)
    limits = load_profile("loihi2").as_target_limits()
    program = convert(model, quantizer, options, limits, name="x").program
    assert [p.neuron.kind for p in program.populations] == ["IF", "READOUT"]
    assert program.readout.synapses[0].weight.shape == (3, 512)


def test_batches_are_as_large_as_their_counts_allow(monkeypatch):
    program = branched_program(0)
    neurons = sum(int(np.prod(p.shape)) for p in program.populations)
    assert samples_at_once(program, 64) == 64
    monkeypatch.setattr(activity, "KEPT_BYTES", 3 * 40 * neurons + 1)
    assert samples_at_once(program, 64) == 3
    assert samples_at_once(program, 2) == 2
    monkeypatch.setattr(activity, "KEPT_BYTES", 1)
    assert samples_at_once(program, 64) == 1


@pytest.mark.parametrize("most", [1, 2, 1000])
def test_inputs_are_constructed_for_the_tightest_layers(monkeypatch, most):
    """As many as the operations allow; their runs count for all layers."""
    program = branched_program(2, low=-9, high=9)
    each = 2 * certificate.ASCENTS * program.schedule.num_steps * dense_operations(program)
    monkeypatch.setattr(certificate, "MOST_OPERATIONS", most * each)
    rows = certify(program, {p.name: LayerExtremes() for p in program.populations})
    driven = [row for row in rows if row.driven]
    assert len(driven) == min(most, len(rows))
    headroom = {b.name: b.headroom_bits(program.state_range) for b in analyse(program)}
    others = [headroom[row.bound.name] for row in rows if not row.driven]
    assert all(headroom[row.bound.name] <= min(others, default=99) for row in driven)
    for row in rows:
        assert row.bound.state.low <= row.reached.state.low
        assert row.reached.state.high <= row.bound.state.high
    assert any(row.reached.state.high > 0 for row in rows)
