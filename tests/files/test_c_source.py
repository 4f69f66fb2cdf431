"""C source of programs: compiled by gcc and clang, run, every bit as the reference simulator's."""

import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spikeport
from exports.c import write_c
from exports.netx import read_net
from tests.command_line import here
from tests.networks import branched_program, random_program
from toolchain.errors import OutputError, SpikeportError, UsageError
from toolchain.program.input_quantizer import InputQuantizer
from toolchain.program.int_program import IntProgram, Population, Schedule
from toolchain.program.neurons import IntegrateAndFire, Readout
from toolchain.program.synapse import DenseSynapse
from toolchain.recording import Recording

PACK = Path(__file__).parents[1] / "conformance" / "pack"
NAMES = sorted(p.stem for p in PACK.glob("*.net"))
STRICT = "-std=c99 -pedantic -Wall -Wextra -Werror -fsanitize=undefined,address"


def made(folder, compiler="gcc"):
    """What `make test` says; sanitizers stop at undefined behaviour."""
    flags = f"{STRICT} -fno-sanitize-recover=all"
    command = ["make", "-s", "-C", str(folder), f"CC={compiler}", f"CFLAGS={flags}", "test"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", NAMES)
def test_every_bit_of_the_conformance_pack(name, compiler, tmp_path):
    """Branches, pools, relays, several outputs, upsampling, IF and CIF with sleep."""
    program, frozen = read_net(PACK / f"{name}.net"), Recording.load(PACK / f"{name}.npz")
    inputs = np.load(PACK / f"{name}-inputs.npy").astype(np.int32)
    whole = spikeport.Reference().run(program, inputs)
    assert spikeport.compare(frozen, whole).equal
    write_c(program, tmp_path, inputs, whole)
    steps = program.schedule.num_steps
    expected = f"{len(inputs)} samples of {steps} steps: every bit as in the reference\n"
    assert made(tmp_path, compiler) == (0, expected)


def test_the_test_finds_one_wrong_integer(tmp_path):
    program = random_program(1)
    assert spikeport.export(program, tmp_path, "c") == []
    assert made(tmp_path)[0] == 0
    source, bias = tmp_path / "random.c", program.populations[0].bias.tolist()
    right, wrong = (", ".join(map(str, (*bias[:-1], bias[-1] + more))) for more in (0, 1))
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    status, said = made(tmp_path)
    assert status
    assert "step 1: other bits than the reference" in said


def test_checksums_are_those_of_the_equations(tmp_path):
    """One IF neuron by hand: threshold 70000, input 3, weight 2^14 by its exponent, 3 steps."""
    synapse = DenseSynapse("input", np.array([[1]]), weight_exponent=14)
    neuron = IntegrateAndFire(np.array([70_000]), np.array([35_000]))
    layers = (
        Population("a", (1,), (synapse,), np.array([5]), neuron),
        Population(
            "b* é", (1,), (DenseSynapse("a", np.array([[2]])),), np.array([0]), Readout(1.0)
        ),
    )
    quantizer = InputQuantizer((1,), 1.0, bits=4)
    program = IntProgram("1 */ é", quantizer, layers, Schedule(3))
    inputs = np.array([[3]], np.int32)
    write_c(program, tmp_path, inputs, spikeport.run(program, np.array([[3.0]])))
    v, crc, sums, total = 35_000, 0, [], 0
    for _ in range(3):
        v += (3 << 14) + 5
        spike = int(v >= 70_000)
        v -= 70_000 * spike
        total += 2 * spike
        crc = zlib.crc32(bytes([spike]) + v.to_bytes(4, "little", signed=True), crc)
        crc = zlib.crc32(total.to_bytes(4, "little"), crc)
        sums.append(f"0x{crc:08x}u")
    assert f"{{{', '.join(sums)}, }}" in (tmp_path / "net_1_test.c").read_text()
    assert made(tmp_path)[0] == 0


def test_a_state_that_leaves_its_range_is_told(tmp_path):
    """Ranges that are not proved are watched, as in the reference."""
    program = replace(random_program(3, hidden=()), watch_ranges=True)
    quiet = np.zeros((1, *program.input.shape), np.int32)
    write_c(program, tmp_path, quiet, spikeport.run(program, quiet.astype(float)))
    assert made(tmp_path)[0] == 0
    narrow = replace(program, state_bits=12)
    loud = np.full_like(quiet, program.input.range.high)
    write_c(narrow, tmp_path, loud, spikeport.run(program, loud.astype(float)))
    with pytest.raises(SpikeportError, match="left") as told:
        spikeport.run(narrow, loud.astype(float))
    number = [p.name for p in narrow.populations].index(told.value.node) + 1
    status, said = made(tmp_path)
    assert status
    assert f"layer {number} left its range" in said


def test_samples_of_the_users_own(tmp_path):
    program = branched_program(5, "cif", schedule=Schedule(4, 4))
    samples = np.random.default_rng(0).uniform(0, 15, (3, *program.input.shape))
    spikeport.export(program, tmp_path / "new", "c", samples=samples)
    assert made(tmp_path / "new")[1].startswith("3 samples of 8 steps")


def test_the_command(tmp_path):
    spikeport.save(random_program(2), tmp_path / "a.net")
    net, out = str(tmp_path / "a.net"), tmp_path / "source"
    result = here("export", net, "--to", "c", "-o", str(out))
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == [
        "Makefile",
        "random.c",
        "random.h",
        "random_test.c",
    ]
    assert here("export", net, "--to", "c", "-o", str(out)).exit_code == 0
    (out / "Makefile").write_text("all:\n\techo mine\n")
    before = {p: p.read_bytes() for p in out.iterdir()}
    refused = here("export", net, "--to", "c", "-o", str(out))
    assert isinstance(refused.error, OutputError)
    assert isinstance(here("export", net, "--to", "c", "-o", net).error, OutputError)
    assert {p: p.read_bytes() for p in out.iterdir()} == before
    wrong = here("export", net, "--to", "c", "-o", str(out), "--accept-hard-reset")
    assert isinstance(wrong.error, UsageError)


def test_there_is_no_other_target(tmp_path):
    with pytest.raises(UsageError, match="no such target"):
        spikeport.export(random_program(1), tmp_path, "vhdl")
    with pytest.raises(UsageError, match="samples= says nothing"):
        spikeport.export(random_program(1), tmp_path / "a.nir", samples="digits@test")
