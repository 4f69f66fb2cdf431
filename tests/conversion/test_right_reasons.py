"""What is refused is refused for the reason that is there, with a way out that can be gone."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from exports.netx import read_net, write_stock_net
from exports.netx.lint.isolated import lint_file
from exports.nir.ledger import ledger
from hw_models.profile import load_profile
from hw_models.stock.atrlif_limits import check_atrlif
from spikeport.trained_network import InputDescription, load_network
from tests.networks import random_program
from toolchain.conversion.passes.fold import trained_activations
from toolchain.conversion.pipeline import ConversionOptions, convert
from toolchain.conversion.quantization.calibration import Calibration
from toolchain.errors import CheckpointError, ConversionError, FormatError, TargetError
from toolchain.errors import UnsupportedModuleError as Unsupported
from toolchain.learning.activations import QCFS, CQReLU
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.train_classifier import train
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import Schedule
from toolchain.simulator.reference import simulate

SHAPE = (2, 7, 8)
QUANTIZER = InputQuantizer.for_interval(SHAPE, 0.0, 1.0)


class Branched(nn.Module):
    """A residual sum or a concatenation of two convolutions."""

    def __init__(self, *, concatenate=False, ratio=1.05):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.act, self.act2 = QCFS(4, 1.0), QCFS(4, 1.0)
        self.concatenate, self.behind = concatenate, nn.Conv2d(8 if concatenate else 4, 3, 1)
        self.head = nn.Linear(168, 5)
        with torch.no_grad():
            self.b.weight.mul_(ratio * self.a.weight.abs().max() / self.b.weight.abs().max())

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        joined = torch.cat([a, b], 1) if self.concatenate else a + b
        return self.head(self.act2(self.behind(self.act(joined))).flatten(1))


def converted(model, bits):
    options = ConversionOptions("if", Schedule(4), weight_bits=bits)
    limits = load_profile("loihi2").as_target_limits()
    return convert(model, QUANTIZER, options, limits, name="net")


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("concatenate", [False, True])
def test_branches_of_one_scale_take_few_weight_bits(bits, concatenate):
    result = converted(Branched(concatenate=concatenate), bits)
    for layer in result.rounding:
        for branch in layer.branches:
            assert branch.weight_error <= max(1 / 8, 0.75 / (2 ** (bits - 1) - 1))


def test_branches_far_apart_need_more_weight_bits():
    model = Branched(ratio=3e-3)
    with pytest.raises(ConversionError, match=r"(?s)^add: .*3-bit weights.*more weight bits"):
        converted(model, 3)
    converted(model, 8)


def test_a_max_pool_over_a_bare_sum():
    class PoolOfSum(Branched):
        def forward(self, x):
            return self.behind(F.max_pool2d(self.a(x) + self.b(x), 2))

    with pytest.raises(Unsupported, match=r"(?s)add \(Add\) in front of it, behind \(Conv2d\)"):
        converted(PoolOfSum(), 8)


def pooled_program():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), QCFS(4, 1.0), nn.MaxPool2d(2), nn.Flatten())
    model.append(nn.Linear(24, 3))
    return converted(model, 8).program


@pytest.mark.parametrize(
    ("program", "remedy", "not_said"),
    [
        (pooled_program, "average pools", 'neuron="if"'),
        (lambda: random_program(0, "cif", schedule=Schedule(2)), 'neuron="if"', "pool"),
    ],
)
def test_each_neuron_has_its_own_way_out(program, remedy, not_said):
    for refuse in (lambda p: check_atrlif(p, watch=True), ledger):
        with pytest.raises(TargetError) as error:
            refuse(program())
        assert remedy in error.value.remedy
        assert not_said not in error.value.remedy


def test_every_refusal_of_the_stock_writer_says_what_to_do(tmp_path):
    one = Schedule(1)
    programs = [
        random_program(0, schedule=Schedule(2)),
        random_program(0, "cif", schedule=one),
        pooled_program(),
        random_program(0, schedule=one, convs=(), hidden=(1 << 12,), shape=(300,)),
    ]
    for program in programs:
        with pytest.raises(TargetError) as error:
            write_stock_net(program, tmp_path / "s.net")
        assert error.value.remedy, error.value.message


def test_cif_takes_the_trained_levels():
    assert trained_activations(Branched(), SHAPE)[1] == 4
    mixed = Branched()
    mixed.act2 = QCFS(8, 1.0)
    assert trained_activations(mixed, SHAPE)[1] is None
    relu = Branched()
    relu.act = relu.act2 = nn.ReLU()
    assert trained_activations(relu, SHAPE)[1] is None


def test_folders_that_are_no_network_file_yet(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    for read in (read_net, lint_file):
        with pytest.raises(FormatError, match=r"(?s)checkpoint folder.*spikeport convert"):
            read(folder)
        with pytest.raises(FormatError, match="is a folder"):
            read(tmp_path)
        with pytest.raises(FormatError, match=r"(?s)no network file yet.*spikeport convert"):
            read(tmp_path / "nets.py:net")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    train(
        TrainConfig(data="digits", model="mlp", epochs=1, train_limit=200, initial_threshold=2.0),
        folder,
    )
    return folder


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (InputDescription((1, 3, 3), None, 8, (0.0,), (1.0,)), r"(?s)another shape.*1,8,8"),
        (InputDescription(None, (0.0, 2.0), 8, (0.0,), (1.0,)), "leave out input_range="),
        (InputDescription(None, None, 8, (0.5,), (1.0,)), "leave out input_range="),
    ],
)
def test_what_a_checkpoint_knows_itself(checkpoint, described, message):
    with pytest.raises(CheckpointError, match=message):
        load_network(str(checkpoint), None, described)


def test_two_outputs_of_plain_relus_arrive():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.relu = nn.Conv2d(2, 4, 3), nn.ReLU()
            self.classes, self.aux = nn.Linear(120, 5), nn.Linear(120, 3)

        def forward(self, x):
            x = self.relu(self.stem(x)).flatten(1)
            return self.classes(x), self.aux(x)

    model, rng = TwoHeads(), np.random.default_rng(0)
    inputs = rng.integers(0, 256, (16, *SHAPE))
    options = ConversionOptions("if", Schedule(64), relu_percentile=100.0)
    limits = load_profile("loihi2").as_target_limits()
    calibration = Calibration("random", inputs)
    result = convert(model, QUANTIZER, options, limits, name="net", calibration=calibration)
    assert [p.name for p in result.program.readouts] == ["classes", "aux"]
    recording = simulate(result.program, inputs)
    with torch.no_grad():
        answers = model(torch.from_numpy(inputs / 255).float())
    wanted = dict(zip(("classes", "aux"), answers, strict=True))
    for population in result.program.readouts:
        found = recording.outputs[population.name] * population.neuron.scale / 64  # type: ignore[attr-defined]
        assert np.abs(found - wanted[population.name].numpy()).max() < 0.05


def test_cqrelu_sums_stay_exact_at_few_bits():
    model = Branched()
    model.act, model.act2 = CQReLU(4), CQReLU(4)
    converted(model, 3)
