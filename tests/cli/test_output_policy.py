"""No command writes over its inputs, over files of another kind, or over what is no file."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.netx import write_net
from exports.nir import write_nir
from tests.command_line import FACTORIES, ROOT, here
from tests.networks import random_inputs, random_program
from toolchain import output_policy
from toolchain.engine.simulate import simulate
from toolchain.errors import OutputError
from toolchain.files import ABANDONED_SECONDS, atomic_write, check_writable
from toolchain.learning.training.config import TrainConfig
from toolchain.learning.training.config_file import write_settings
from toolchain.learning.training.run_folder import open_run_folder
from toolchain.output_policy import NETWORK, PICTURE, PLOT, RECORDING, Kind, check_output
from toolchain.program.int_program import Schedule

KINDS = {k: v for k, v in vars(output_policy).items() if isinstance(v, Kind)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a file of many kinds, by name."""
    folder = tmp_path_factory.mktemp("kinds")
    program = random_program(0, "if", schedule=Schedule(1))
    write_net(program, folder / "a.net")
    write_nir(program, folder / "a.nir")
    simulate(program, random_inputs(program, 2)).save(folder / "a.npz")
    np.savez(folder / "data.npz", test_samples=np.zeros((2, 1, 8, 8)), test_labels=[0, 1])
    np.save(folder / "a.npy", np.arange(3))
    Image.new("RGB", (2, 2)).save(folder / "a.png")
    (folder / "a.toml").write_text("seed = 1\n")
    (folder / "a.html").write_text("<!doctype html><title>mine</title>")
    (folder / "nets.py").write_text(FACTORIES)
    for name in ("audit", "evaluation", "detection", "format"):
        (folder / f"{name}.json").write_text(json.dumps({f"{name}_version": 1}, indent=1))
    return folder


OWN = {
    "NETWORK": "a.net",
    "NIR": "a.nir",
    "RECORDING": "a.npz",
    "SAMPLE": "a.npy",
    "PICTURE": "a.png",
    "PLOT": "a.png",
    "PAGE": "a.html",
    "AUDIT": "audit.json",
    "EVALUATION": "evaluation.json",
    "DETECTION": "detection.json",
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_only_a_file_of_the_same_kind_is_replaced(files, tmp_path, name):
    kind = KINDS[name]
    for file in files.iterdir():
        place = tmp_path / f"{file.stem}{kind.suffixes[0]}"
        place.write_bytes(file.read_bytes())
        if OWN.get(name) == file.name:
            check_output(place, kind)
        else:
            with pytest.raises(OutputError, match="is not replaced"):
                check_output(place, kind)
        assert place.read_bytes() == file.read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_name_does_not_say_something_else(tmp_path, name):
    kind = KINDS[name]
    (tmp_path / "empty").touch()
    for allowed in (*kind.suffixes, *map(str.upper, kind.suffixes), ""):
        check_output(tmp_path / f"x{allowed}", kind)
    check_output(tmp_path / "empty", kind)
    others = {s for other in KINDS.values() for s in other.suffixes} | {".txt", ".xyz", ".pt"}
    for refused in others - set(kind.suffixes):
        with pytest.raises(OutputError, match="something else"):
            check_output(tmp_path / f"x{refused}", kind)


def test_an_input_by_any_name_is_not_written_over(files, tmp_path, monkeypatch):
    source = tmp_path / "a.net"
    source.write_bytes((files / "a.net").read_bytes())
    (tmp_path / "soft.net").symlink_to("a.net")
    (tmp_path / "hard.net").hardlink_to(source)
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("a.net", "soft.net", "hard.net", "deep/../a.net", tmp_path / "a.net"):
        for given in (source, Path("a.net"), Path("soft.net")):
            with pytest.raises(OutputError, match="also an input"):
                check_output(Path(name), NETWORK, [None, given])
    check_output(Path("other.net"), NETWORK, [source, None])


def test_no_picture_is_written_over_images_that_are_read(files, tmp_path):
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    image = tmp_path / "photos" / "cats" / "1.png"
    image.write_bytes((files / "a.png").read_bytes())
    for kind in (PICTURE, PLOT):
        with pytest.raises(OutputError, match="also an input"):
            check_output(image, kind, [tmp_path / "photos"])
        check_output(image, kind, [tmp_path / "elsewhere"])


def something_else(folder, what):
    path = folder / "x.npz"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif what == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to("pipe")
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("what", ["pipe", "socket", "link to a pipe", "folder"])
def test_only_regular_files_are_written(tmp_path, what):
    path = something_else(tmp_path, what)
    before = path.stat()
    with pytest.raises(OutputError, match=r"a folder|not a regular file"):
        check_output(path, RECORDING)
    with pytest.raises(OutputError, match=r"a folder|not a regular file"):
        atomic_write(path, b"x")
    assert path.stat().st_ino == before.st_ino
    assert not list(tmp_path.glob(".*"))


def test_a_link_is_followed(tmp_path):
    (tmp_path / "large").mkdir()
    for there in (False, True):
        link = tmp_path / f"link-{there}"
        link.symlink_to(f"large/{there}")
        if there:
            (tmp_path / "large" / "True").write_bytes(b"before")
        atomic_write(link, b"after")
        assert link.is_symlink()
        assert (tmp_path / "large" / str(there)).read_bytes() == b"after"


def test_where_there_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file/x.npz", "file/deep/x.npz"):
        with pytest.raises(OutputError, match="is a file") as error:
            check_writable(tmp_path / name)
        assert "mkdir" not in str(error.value)
    with pytest.raises(OutputError, match="mkdir -p"):
        check_writable(tmp_path / "none" / "x.npz")


WRITER = """
import sys, time
from pathlib import Path
from toolchain.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


def writer(path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path = tmp_path / "x.npz"
    dead, live, other = writer(path), writer(path), writer(tmp_path / "y.npz")
    try:
        for process in (dead, other):
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(list(tmp_path.glob(".x.npz.*"))) == 2
        atomic_write(path, b"whole")
        (left,) = tmp_path.glob(".x.npz.*")
        assert f"-{live.pid}-" in left.name
        assert len(list(tmp_path.glob(".y.npz.*"))) == 1
    finally:
        for process in (dead, live, other):
            process.kill()
            process.communicate()
    check_writable(path)
    assert [p.name for p in tmp_path.iterdir() if "y.npz" not in p.name] == ["x.npz"]
    assert path.read_bytes() == b"whole"


def test_temporary_files_of_other_machines_stay_a_day(tmp_path):
    path = tmp_path / "x.npz"
    names = [".x.npz.0123abcd-1-89abcdef", ".x.npz.0123456789ab"]
    own = [".x.npz.mine", ".x.npz.0123456789ab.bak", "x.npz.0123456789ab", ".xynpz.0123456789ab"]
    for name in (*names, *own):
        (tmp_path / name).touch()
    atomic_write(path, b"")
    assert all((tmp_path / name).exists() for name in (*names, *own))
    old = time.time() - ABANDONED_SECONDS - 60
    for name in (*names, *own):
        os.utime(tmp_path / name, (old, old))
    atomic_write(path, b"")
    assert not any((tmp_path / name).exists() for name in names)
    assert all((tmp_path / name).exists() for name in own)


def test_a_failed_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"before")
    failing = subprocess.run(
        [sys.executable, "-c", WRITER.replace("time.sleep(60)", "1 / 0"), str(path)],
        check=False,
        capture_output=True,
        cwd=ROOT,
    )
    assert b"ZeroDivisionError" in failing.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"before"


COMMANDS = """
run a.net --data digits@test[:2] -o {}
run a.net --data npz:data.npz -o {}
convert nets.py:good --input-shape 1,8,8 -o {}
convert nets.py:good --input-shape 1,8,8 --weights w.safetensors -o {}
convert a.nir -o {}
export a.net --to nir -o {}
lint a.net --format sarif -o {}
lint a.net --format json -o {}
audit a.net --data digits@test[:2] --html {}
audit a.net --data digits@test[:2] -o {}
sweep run --data digits@test[:2] -o {}
sweep run --data digits@test[:2] -o s.sqlite --plot {}
detector show a.net --data shapes -o {}
evaluate run --data digits@test[:2] -o {}
detector evaluate run --data shapes -o {}
"""


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    for file in files.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for name in ("w.safetensors", "notes.txt", "README.md"):
        (folder / name).write_text("somebody's work")
    os.mkfifo(folder / "pipe")
    (folder / "run").mkdir()
    return folder


def contents(folder):
    files = (p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.parts)
    return {str(p): p.read_bytes() if p.is_file() else None for p in files}


@pytest.mark.parametrize("command", COMMANDS.strip().split("\n"))
def test_every_command_asks_before_it_begins(folder, monkeypatch, command):
    """Whatever lies in the folder stays, byte by byte, but what is of the command's own kind."""
    monkeypatch.chdir(folder)
    before = contents(folder)
    own = {"run": "a.npz", "convert": "a.net", "export": "a.nir", "detector": "a.png"}
    own |= {"sweep": "a.png", "audit": "a.html audit.json", "evaluate": "evaluation.json"}
    kept = [*own.get(command.split()[0], "").split(), "detection.json"]
    for name in [*before, "none/x", "a.net/x", "x.xyz"]:
        if Path(name).name in kept:
            continue
        result = here(*command.format(name).split())
        assert isinstance(result.error, OutputError), (name, result.error, result.output)
    assert contents(folder) == before


def test_training_takes_no_folder_of_somebody_else(tmp_path):
    run = TrainConfig.from_dict({"data": "digits"})
    settings = run.as_dict()
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.toml"
    weights.write_bytes(b"mine")
    with pytest.raises(OutputError, match="not left by a run"):
        open_run_folder(tmp_path, run)
    (tmp_path / "last.safetensors").touch()
    open_run_folder(tmp_path, run)
    assert weights.read_bytes() == b"mine"
    for text in ('data = "digits"\n', "# mine\n", "no = [settings"):
        config.write_text(text)
        with pytest.raises(OutputError, match="a run did not write"):
            write_settings(settings, config)
        assert config.read_text() == text
    config.unlink()
    write_settings(settings, config)
    write_settings({**settings, "epochs": 3}, config)
    commented = f"# mine\n{config.read_text()}"
    config.write_text(commented)
    write_settings({**settings, "epochs": 3}, config)
    assert config.read_text() == commented
    with pytest.raises(OutputError, match="a run did not write"):
        write_settings(settings, config)
