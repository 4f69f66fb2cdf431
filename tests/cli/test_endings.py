"""However a command ends, its user reads one line and finds nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from exports.netx import write_net
from tests.command_line import FACTORIES, ROOT, spikeport, started
from tests.networks import random_program
from toolchain.cli.app import as_told, run_command_line
from toolchain.cli.param_types import parse_size, real_numbers
from toolchain.errors import DataError, ProgramError, SpikeportError
from toolchain.learning.activations import NQ, QCFS, CQReLU
from toolchain.program.input_quantizer import InputQuantizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endings")
    program = random_program(0, "if")
    write_net(program, folder / "a.net")
    shape = (3, *program.input.shape)
    np.savez(folder / "data.npz", test_samples=np.full(shape, 7.0), test_labels=[0, 1, 0])
    (folder / "nets.py").write_text(FACTORIES)
    return folder


@pytest.fixture(autouse=True)
def answers_signals():
    """Processes started here answer signals, even if the tests were started by nohup or with &."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [n for n in numbers if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


def shell(text, folder):
    """`text` as typed, with `spikeport` in it; (status, standard error)."""
    command = text.replace("spikeport", f"{sys.executable} -m toolchain.cli")
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("command", ["inspect a.net", "inspect a.net --json", "--help"])
def test_standard_output_that_takes_nothing(folder, command):
    status, _, told = shell(f"spikeport {command} >&-", folder)
    assert (status, told.count("\n")) == (2, 1), told
    assert "standard output is closed" in told
    status, _, told = shell(f"spikeport {command} > /dev/full", folder)
    assert (status, told) == (1, "error: No space left on device\n")
    status, _, told = shell(f"spikeport {command} | true; exit ${{PIPESTATUS[0]}}", folder)
    assert (status, told) == (141, "")


def test_standard_error_and_input_may_be_closed(folder):
    status, told, _ = shell("spikeport inspect a.net <&- 2>&-", folder)
    assert status == 0
    assert "layers" in told
    run = "run a.net --data npz:data.npz -o closed.npz"
    assert shell(f"spikeport {run} <&- 2>&-", folder)[0] == 0
    assert shell(f"spikeport {run} <&-", folder)[0] == 0
    assert shell("spikeport inspect none.net 2>&-", folder)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("run a.net --data digits -o r.npz --backend Lava", "'Lava' is not one of"),
        ("run a.net --data digits -o r.npz --time-limit -1", "--time-limit"),
        ("run a.net --data digits -o r.npz --time-limit nan", "--time-limit"),
        ("run a.net --data digits -o r.npz --blocks 1.5", "a whole number"),
        ("run a.net --data npz:data.npz -o r.npz --device gpu", "gpu: no such device"),
        ("run a.net --data digits -o r.npz --memory 99999999999999999999999GB", "not a size"),
        ("run a.net", "--data"),
        ("run", "NET.net"),
        ("inspec a.net", "Did you mean 'inspect'"),
        ("inspect a.net --nope", "--nope"),
        ("train --out r --data digits --seed -1", "--seed"),
        ("detector train --out r --data shapes --seed -1", "--seed"),
        ("evaluate r --data digits --calibration-samples 0", "--calibration-samples"),
        ("detector show a.net --data shapes -o x.png --score nan", "--score"),
        ("convert nets.py:good --input-shape 1,8,8 -o x.net --mean nan", "--mean"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(folder, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["spikeport", *arguments.split()])
    assert run_command_line() == 2
    first, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert told in first
    assert "Value error" not in first
    assert "Input should" not in first
    assert all(line.startswith("  ") for line in more)
    sys.argv.append("--json")
    assert run_command_line() == 2
    as_json = json.loads(capsys.readouterr().out)
    assert told in f"{as_json['node']}: {as_json['message']}"


def test_what_the_machine_refuses_is_one_line(folder):
    ran = spikeport("inspect", "x" * 300, cwd=folder)
    assert ran.returncode == 2
    assert ran.stderr.count("\n") == 1
    assert "name too long" in ran.stderr
    with pytest.raises(MemoryError) as memory:
        np.empty(1 << 56, np.int8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60)
    with pytest.raises(RecursionError) as depth:
        json.loads("[" * 100_000)
    for error in (memory.value, of_torch.value, depth.value):
        told = as_told(error)
        assert isinstance(told, SpikeportError)
        assert told.exit_code == 1
        assert "\n" not in str(told)
    assert as_told(ZeroDivisionError()) is None


def test_help_tells_whole_sentences_at_80_columns():
    for command in ([], ["detector"]):
        shown = spikeport(*command, "--help", env={"COLUMNS": "80"}).stdout
        listed = shown.partition("Commands:\n")[2].splitlines()
        assert len(listed) >= 3
        assert all(line.endswith(".") and not line.endswith("...") for line in listed), shown
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_how_to_go_on(tmp_path, number):
    train = "train --data digits --out run --epochs 1000 --width 0.25 --limit 300"
    told = tmp_path / "told"
    process = started(*train.split(), cwd=tmp_path, err=told)
    deadline = time.monotonic() + 100
    while not (tmp_path / "run" / "checkpoint.json").is_file():
        assert process.is_alive(), told.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number
    told = told.read_text()
    last = told.splitlines()[-1]
    assert last == (
        f"interrupted ({number.name}): finished epochs are kept in run; repeat the command to go "
        "on behind them"
    )
    assert "Traceback" not in told
    assert not list((tmp_path / "run").glob(".*"))


def imported(line):
    """The module that a line of `-X importtime` tells of; nothing if it is no such line."""
    return line.rpartition("|")[2].strip() if line.startswith("import time:") else ""


@pytest.fixture(scope="module")
def modules():
    """All that the command line imports once signals are answered, in order."""
    arguments = [sys.executable, "-X", "importtime", "-m", "toolchain.cli", "--version"]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=ROOT)
    names = [imported(line) for line in ran.stderr.splitlines()]
    return names[names.index("toolchain.cli.stops") + 1 :]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8])
def test_a_signal_while_the_command_line_is_imported(modules, tmp_path, number, share):
    after = modules[int(share * len(modules))]
    train = "toolchain.cli train --data digits --epochs 1000 --out run"
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", *train.split()],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if imported(line) == after:
                break
        process.send_signal(number)
        told = [line for line in process.stderr if line.strip() and not imported(line)]
    assert process.returncode == 128 + number
    assert told == [
        f"interrupted ({number.name}): nothing half-written is left; repeat the command to begin "
        "again\n"
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_command(folder, number):
    code = (
        "import atexit, os, sys; from toolchain.cli.__main__ import main;"
        f"atexit.register(os.kill, os.getpid(), {int(number)});"
        "sys.argv[1:] = ['inspect', 'a.net', '--json']; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 128 + number
    assert ran.stderr == f"\ninterrupted ({number.name}): the command had finished\n"
    assert json.loads(ran.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(number):
    code = (
        f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN);"
        "from toolchain.cli.__main__ import main; from toolchain.cli import app;"
        f"app.app.command('here')(lambda: os.kill(os.getpid(), {int(number)}));"
        "sys.argv[1:] = ['here']; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_printed_network_warns_of_nothing():
    model = nn.Sequential(nn.Linear(2, 2), NQ(4), QCFS(4, 1.5), CQReLU(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "levels=4, threshold=1.5" in repr(model)
        assert "levels=4" in repr(model.to("meta"))
        assert "levels=4" in repr(model.to_empty(device="cpu").to(torch.bfloat16))


@pytest.mark.parametrize(
    "given",
    [
        {"bits": 1, "mean": (0.5,)},
        {"std": (0.0,)},
        {"std": (float("nan"),)},
        {"std": (float("inf"),)},
        {"mean": (float("nan"),)},
        {"mean": (0.0, 1.0)},
        {"mean": (0.0, 1.0, 2.0), "std": (1.0, 1.0)},
    ],
)
def test_inputs_that_cannot_be_meant(given):
    with pytest.raises((DataError, ProgramError)):
        InputQuantizer.for_interval((3, 2, 2), 0.0, 1.0, **given)


def test_numbers_as_they_are_typed():
    assert real_numbers("--mean", "0.5, 128/255,-1e-3") == (0.5, 128 / 255, -1e-3)
    assert parse_size("--memory", "1.5GB") == 1_500_000_000
    for text in ("", "1,", "nan", "inf", "1/0", "1e400", "1e999999999", "1e+9999999999", "a"):
        with pytest.raises(DataError):
            real_numbers("--mean", text)
