"""Writes the conformance pack: frozen networks, inputs and digest recordings.

Needs the full environment (torch, scikit-learn): python tests/conformance/freeze.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PACK = Path(__file__).with_name("pack")
sys.path.insert(0, str(ROOT))

from exports.netx import write_net  # noqa: E402
from hw_models.profile import load_profile  # noqa: E402
from tests.networks import random_inputs, random_program  # noqa: E402
from toolchain.cli.network import network_of  # noqa: E402
from toolchain.conversion.pipeline import ConversionOptions, convert  # noqa: E402
from toolchain.data import open_split  # noqa: E402
from toolchain.program.int_program import Schedule  # noqa: E402
from toolchain.recording import Mode  # noqa: E402
from toolchain.simulator.reference import simulate  # noqa: E402
from toolchain.training.config import TrainConfig  # noqa: E402
from toolchain.training.trainer import train  # noqa: E402


def freeze(name, program, inputs):
    """Write one network of the pack."""
    write_net(program, PACK / f"{name}.net")
    np.save(PACK / f"{name}-inputs.npy", inputs.astype(np.int16))
    simulate(program, inputs, mode=Mode.DIGEST).save(PACK / f"{name}.npz")


def main():
    """Write the whole pack."""
    PACK.mkdir(exist_ok=True)
    geometry = ((4, 3, 2, 1, 1, 2), (4, 2, 1, 1, 2, 1))
    for kind, schedule in (("if", Schedule(4)), ("cif", Schedule(3, 5))):
        program = random_program(
            17,
            kind,
            shape=(2, 9, 8),
            convs=geometry,
            hidden=(6,),
            schedule=schedule,
            signed_input=True,
        )
        freeze(f"random-{kind}", program, random_inputs(program, 6, 1))
    limits = load_profile("loihi2").as_target_limits()
    test = open_split("digits@test[:8]")
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data="digits", width=0.25, epochs=10, batch_size=64, initial_threshold=2.0
        )
        network = network_of(train(config, Path(folder) / "digits"), Path("digits"))
    for kind, schedule in (("if", Schedule(4)), ("cif", Schedule(4, 6))):
        program = convert(
            network.model,
            network.quantizer,
            ConversionOptions(kind, schedule),
            limits,
            name=f"digits-{kind}",
            provenance=network.provenance,
        ).program
        freeze(f"digits-{kind}", program, program.input.quantize(test.real()))


if __name__ == "__main__":
    main()
