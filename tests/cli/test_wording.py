"""Messages name arguments of the library, and the command line shows its options in their place."""

from __future__ import annotations

import ast
import inspect
import json
import re
from itertools import chain
from pathlib import Path

import pytest
import torch

import spikeport
from spikeport.backends import BACKENDS
from tests.command_line import spikeport as command_line
from toolchain.cli.wording import as_options, options_by_argument
from toolchain.errors import SpikeportError, UnsupportedModuleError

ROOT = Path(__file__).parents[2]
FOLDERS = ("spikeport", "toolchain", "hw_models", "exports")
OTHER_ROOMS = ("toolchain/cli",)
OPTION = re.compile(r"(?<![\w<(-])--[a-z][a-z-]+")
COMMAND = re.compile(r"(spikeport|pip|docker) |^`?\{\} ")
"""A whole command, which stays one wherever it is read; {} is the name of one."""
ARGUMENT = re.compile(r"(?<![\w/.-])([a-z_]+)=(?!=)")
OF_OTHERS = {
    *("count_include_pad", "newshape", "bits", "threshold", "role", "style", "height", "inplace"),
    *("training", "track_running_stats", "ceil_mode", "return_indices", "start_dim", "end_dim"),
    *("dim", "alpha", "padding_mode", "ceil", "bias_quant", "input_quant", "power"),
    *("frames", "window", "count", "size", "down", "denoise"),
}
"""Arguments of torch and NumPy, fields in a repr, attributes of SVG, options in a data source."""


def messages() -> list[str]:
    """All text in the library except docstrings; what is formatted into it is {}."""
    found: list[str] = []
    for file in chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS):
        if not file.relative_to(ROOT).as_posix().startswith(OTHER_ROOMS):
            found += texts(ast.parse(file.read_text()))
    return found


def texts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return ["".join(map(str, parts))]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return []
    return [text for child in ast.iter_child_nodes(node) for text in texts(child)]


def arguments() -> set[str]:
    """Parameters of the front door's functions and settings, and options of its backends."""
    doors = [getattr(spikeport, name) for name in spikeport.__all__]
    doors += [getattr(spikeport.detection, name) for name in spikeport.detection.__all__]
    doors += BACKENDS.values()
    return {name for door in doors if callable(door) for name in inspect.signature(door).parameters}


def test_each_name_in_a_message_is_an_argument_and_an_option() -> None:
    known, options = arguments(), options_by_argument()
    named = {name for text in messages() for name in ARGUMENT.findall(text)} - OF_OTHERS
    assert {"relu_percentile", "calibrate", "weights", "learning_rate", "models"} <= named
    assert named - known == set()
    assert named - options.keys() == set()


def test_options_stand_only_in_whole_commands() -> None:
    with_options = [text for text in messages() if OPTION.search(text)]
    assert len(with_options) > 5
    assert [text for text in with_options if not COMMAND.search(text)] == []
    ours = {
        option
        for text in with_options
        if not re.search("pip|docker", text)
        for option in OPTION.findall(text)
    }
    assert ours - set(options_by_argument().values()) == set()


def test_the_command_line_translates_every_message() -> None:
    for text in messages():
        told = as_options(text.replace("{}", "7"))
        left = set(ARGUMENT.findall(told)) - OF_OTHERS - {"width"}
        assert not left or "device='cuda'" in text, text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('neuron="cif", or leave sleep_steps= out', "--neuron cif, or leave --sleep out"),
        (
            "input_shape=(3, 32, 32), or calibrate=DATA",
            "--input-shape 3,32,32, or --calibrate DATA",
        ),
        ("watch_ranges=True runs it", "--watch-ranges runs it"),
        ("(network=)", "(--checkpoint)"),
        ("std=1/255; or", "--std 1/255; or"),
        ("steps=1.", "--steps 1."),
        ('weights="a (1).pt"', "--weights a (1).pt"),
        (["more weight_bits="], ["more --weight-bits"]),
        ({"remedy": "resume=", "found": 3, "steps": None}, None),
        *(
            (same, same)
            for same in ("runs/steps=4/a.net", "steps=8.net", "device='cuda'", "dim=1", "no=", "a")
        ),
    ],
)
def test_wording(text: object, told: object) -> None:
    expected = {"remedy": "--resume", "found": 3, "steps": None} if told is None else told
    assert as_options(text) == expected


def test_one_mistake_in_both_languages(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    with pytest.raises(UnsupportedModuleError) as error:
        spikeport.convert(network)
    assert error.value.remedy == "input_shape=(3, 32, 32), or calibrate=DATA"
    assert "remedy:  input_shape=(3, 32, 32), or calibrate=DATA" in str(error.value)
    (tmp_path / "nets.py").write_text("import torch\ndef net(): return torch.nn.Linear(2, 2)\n")
    call = ("convert", "nets.py:net", "-o", "a.net")
    told = command_line(*call, cwd=tmp_path)
    assert "remedy:  --input-shape 3,32,32, or --calibrate DATA" in told.stderr
    as_json = json.loads(command_line(*call, "--json", cwd=tmp_path).stdout)
    assert as_json["remedy"] == "--input-shape 3,32,32, or --calibrate DATA"


def test_a_note_in_both_languages(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), spikeport.QCFS(), torch.nn.Linear(2, 2))
    notes = spikeport.convert(module, input_shape=2).notes
    assert "normalised samples, give mean= and std=; on another range, input_range=" in notes[0]
    (tmp_path / "nets.py").write_text(
        "import spikeport, torch\n"
        "def net(): return torch.nn.Sequential("
        "torch.nn.Linear(2, 2), spikeport.QCFS(), torch.nn.Linear(2, 2))\n"
    )
    call = ("convert", "nets.py:net", "--input-shape", "2", "-o", "a.net")
    told = command_line(*call, cwd=tmp_path)
    assert "give --mean and --std; on another range, --input-range" in told.stdout
    kept = json.loads(command_line(*call, "--json", cwd=tmp_path).stdout)["notes"]
    assert any("no --weights were given" in note for note in kept)


def test_an_error_keeps_what_it_was_given() -> None:
    error = SpikeportError("a\x1b", node="n", found=1, allowed=2, remedy="b\nc")
    assert str(error).splitlines()[1:] == [
        "  found:   1",
        "  allowed: 2",
        "  remedy:  b",
        "           c",
    ]
