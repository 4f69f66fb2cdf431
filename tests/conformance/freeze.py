"""Writes what is missing of the conformance pack: frozen networks, inputs, digest recordings.

What is there stays as it is, in whatever version of the format it was written.
Needs the full environment (torch, scikit-learn): python tests/conformance/freeze.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PACK = Path(__file__).with_name("pack")
sys.path.insert(0, str(ROOT))

from exports.netx import write_net  # noqa: E402
from hw_models.profile import load_profile  # noqa: E402
from spikeport.trained_network import network_of  # noqa: E402
from tests.networks import (  # noqa: E402
    branched_program,
    per_step,
    random_inputs,
    random_program,
)
from toolchain.conversion.pipeline import ConversionOptions, convert  # noqa: E402
from toolchain.learning.activations import QCFS, CQReLU  # noqa: E402
from toolchain.learning.data import open_split  # noqa: E402
from toolchain.learning.training.config import TrainConfig  # noqa: E402
from toolchain.learning.training.train_classifier import train  # noqa: E402
from toolchain.program.input_quantizer import InputQuantizer  # noqa: E402
from toolchain.program.int_program import Schedule  # noqa: E402
from toolchain.recording import Mode  # noqa: E402
from toolchain.simulator.reference import simulate  # noqa: E402

BRANCHED_SEED = 1
GRADED_SEED = 3
"""With it every layer of graded neurons sends spikes."""
SCHEDULES = {"if": Schedule(4), "cif": Schedule(3, 5), "graded": Schedule(3)}


def is_missing(name):
    """Whether the pack lacks this network."""
    return not (PACK / f"{name}.net").exists()


def freeze(name, program, inputs):
    """Write one network of the pack."""
    write_net(program, PACK / f"{name}.net")
    np.save(PACK / f"{name}-inputs.npy", inputs.astype(np.int16))
    simulate(program, inputs, mode=Mode.DIGEST).save(PACK / f"{name}.npz")


def freeze_random(kind):
    """A chain of strided, dilated and grouped convolutions."""
    program = random_program(
        17,
        kind,
        shape=(2, 9, 8),
        convs=((4, 3, 2, 1, 1, 2), (4, 2, 1, 1, 2, 1)),
        hidden=(6,),
        schedule=SCHEDULES[kind],
        signed_input=True,
    )
    freeze(f"random-{kind}", program, random_inputs(program, 6, 1))


BRANCHED = {
    # Skips with and without stride, a concatenation, a max pool and a sum pool.
    "branched": (
        ("residual", "max", "concat", "strided", "sum"),
        {"shape": (2, 10, 9), "signed_input": True},
    ),
    # Several outputs, images among them, behind residual sums without neurons of their own.
    "heads": (("graded", "max", "graded"), {"shape": (2, 8, 7), "heads": 2}),
    # Transposed convolutions and nearest upsampling, of even and odd sizes.
    "upsampled": (
        ("upsampled", "max", "upsampled"),
        {"shape": (2, 10, 9), "signed_input": True},
    ),
    # Max pools whose padding differs between two sides.
    "overhang": (
        ("overhang", "residual", "overhang"),
        {"shape": (2, 10, 9), "signed_input": True},
    ),
    # Inputs that change over time, and branches of unequal depth.
    "sequences": (
        ("residual", "max", "concat", "sum"),
        {"shape": (2, 8, 7), "signed_input": True},
    ),
}


def freeze_branched(name, kind):
    """One of the networks in `BRANCHED`."""
    stages, how = BRANCHED[name]
    seed = GRADED_SEED if kind == "graded" else BRANCHED_SEED
    program = branched_program(seed, kind, stages, schedule=SCHEDULES[kind], **how)
    if name == "sequences":
        program = per_step(program)
    freeze(f"{name}-{kind}", program, random_inputs(program, 6, 1))


def freeze_borders(kind):
    """Average pools that leave out their padding: relays that add at the border only."""
    torch.manual_seed(BRANCHED_SEED)
    activation = QCFS if kind == "if" else CQReLU
    levels = SCHEDULES[kind].wake_steps
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), activation(levels)),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        *(nn.Conv2d(4, 3, 3, padding=1), activation(levels), nn.Flatten(), nn.Linear(60, 5)),
    )
    with torch.no_grad():
        model[0].weight *= 4
        model[3].weight *= 4
    quantizer = InputQuantizer((2, 10, 11), 1 / 127, signed=True)
    options = ConversionOptions(kind, SCHEDULES[kind])
    limits = load_profile("loihi2").as_target_limits()
    program = convert(model.eval(), quantizer, options, limits, name="borders").program
    freeze(f"borders-{kind}", program, random_inputs(program, 6, 1))


def freeze_digits(kind, schedule):
    """A trained network."""
    limits = load_profile("loihi2").as_target_limits()
    test = open_split("digits@test[:8]")
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data="digits", width=0.25, epochs=10, batch_size=64, initial_threshold=2.0
        )
        network = network_of(train(config, Path(folder) / "digits"), Path("digits"))
    program = convert(
        network.model,
        network.quantizer,
        ConversionOptions(kind, schedule),
        limits,
        name=f"digits-{kind}",
        provenance=network.provenance,
    ).program
    freeze(f"digits-{kind}", program, program.input.quantize(test.real()))


def main():
    """Write what is missing."""
    PACK.mkdir(exist_ok=True)
    for kind in ("if", "cif"):
        if is_missing(f"random-{kind}"):
            freeze_random(kind)
        if is_missing(f"borders-{kind}"):
            freeze_borders(kind)
        for name in BRANCHED:
            if is_missing(f"{name}-{kind}"):
                freeze_branched(name, kind)
    for name in ("branched", "heads"):
        if is_missing(f"{name}-graded"):
            freeze_branched(name, "graded")
    for kind, schedule in (("if", Schedule(4)), ("cif", Schedule(4, 6))):
        if is_missing(f"digits-{kind}"):
            freeze_digits(kind, schedule)


if __name__ == "__main__":
    main()
