"""Large weights: shared with the network that runs, and worked on block by block."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeport
from toolchain.conversion.frontend.user_module import outputs
from toolchain.conversion.quantization import row_blocks


class Writing(nn.Module):
    """Halves its weights in each forward, before or after it uses them."""

    def __init__(self, *, before):
        super().__init__()
        self.dense = nn.Linear(3, 2)
        self.before = before

    def forward(self, x):
        if self.before:
            self.dense.weight.data.mul_(0.5)
        y = self.dense(x)
        if not self.before:
            self.dense.weight.data.mul_(0.5)
        return y


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_a_forward_that_writes_into_lent_weights_leaves_them(before, same):
    torch.manual_seed(0)
    model = Writing(before=before).eval()
    kept = model.dense.weight.detach().clone()
    lent = kept.numpy().astype(np.float64) + (0.0 if same else 1.0)
    expected_lent = lent.copy()
    lent.flags.writeable = False
    x = np.arange(6).reshape(2, 3) / 7
    (found,) = outputs(model, torch.from_numpy(x).float(), equal={"dense.weight": lent})
    weight = kept.numpy().astype(np.float64) * (0.5 if before else 1.0)
    bias = model.dense.bias.detach().numpy().astype(np.float64)
    single = x.astype(np.float32).astype(np.float64)
    assert np.allclose(found.numpy(), single @ weight.T + bias, rtol=0, atol=1e-15)
    # Neither the caller's array nor the network's own weights are changed by the run.
    assert np.array_equal(lent, expected_lent)
    assert torch.equal(model.dense.weight, kept)


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_blocks_of_rows_change_no_integer(rounding, monkeypatch):
    """Thresholds, weights and biases by rows of a few weights at a time, and all at once."""
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(2, 12, 3), nn.BatchNorm2d(12), spikeport.QCFS(4, 1.5), nn.Flatten()),
        *(nn.Linear(12 * 16, 40), spikeport.QCFS(4, 1.0), nn.Linear(40, 5)),
    ).eval()
    how = {"calibrate": torch.rand(16, 2, 6, 6), "rounding": rounding}
    whole = spikeport.convert(model, **how).program
    for size in (18, 1, 500):
        monkeypatch.setattr(row_blocks, "BLOCK", size)
        assert len(list(row_blocks.row_blocks(40, 192))) > 1
        assert spikeport.convert(model, **how).program.hash == whole.hash
