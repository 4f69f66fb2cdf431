"""The direction of imports, and what must not be imported when."""

import ast
import re
import subprocess
import sys

import pytest

from tests.command_line import ROOT

PACKAGES = ("spikeport", "toolchain", "hw_models", "exports")
MAX_LINES = 450


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def imported(path):
    """Every module a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def under(names, *prefixes):
    return sorted(n for n in names if any(n == p or n.startswith(f"{p}.") for p in prefixes))


def test_exports_imports_programs_and_recordings_only():
    allowed = (
        "toolchain.program",
        "toolchain.recording",
        "toolchain.program.neurons",
        "toolchain.errors",
        "toolchain.text",
        "toolchain.files",
        "toolchain.canonical",
        "toolchain.documents",
        "toolchain.int_range",
        "toolchain.progress",
    )
    for path in files("exports"):
        for name in under(imported(path), "toolchain"):
            assert name == "toolchain" or name.startswith(allowed), (path, name)


def test_only_the_lava_side_imports_lava():
    permitted = (
        "hw_models/processes",
        "hw_models/spiking_population.py",
        "hw_models/run_config.py",
        "hw_models/stock/",
        "exports/lava/worker.py",
        "exports/network/",
        "toolchain/cli/doctor.py",
    )
    for package in PACKAGES:
        for path in files(package):
            if under(imported(path), "lava"):
                assert path.relative_to(ROOT).as_posix().startswith(permitted), path


def test_the_folder_of_processes_holds_nothing_else():
    """And all models of a process are in its file, the only one in which `SimCfg` looks."""
    for path in files("hw_models/processes"):
        classes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
        made = [re.findall(r"implements\(proc=(\w+)", ast.unparse(c)) for c in classes]
        of = {name for names in made for name in names}
        assert path.name == "__init__.py" or of, path
        assert of <= {c.name for c in classes}, path


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_small(package):
    for path in files(package):
        assert len(path.read_text().splitlines()) <= MAX_LINES, path


@pytest.mark.parametrize(
    "code",
    [
        "import spikeport, toolchain, toolchain.cli.app, hw_models, exports",
        "import exports.netx, exports.lava, toolchain.recording, toolchain.program.bounds",
    ],
)
def test_light_imports(code):
    checked = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys\n"
            "print([m for m in ('torch', 'lava', 'sklearn') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert checked.stdout.strip() == "[]"


def test_help_needs_no_torch():
    """`--help` works where torch cannot be imported at all."""
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['torch'] = sys.modules['lava'] = None\n"
            "sys.argv = ['spikeport', '--help']\n"
            "from toolchain.cli.app import main; main()",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "convert" in shown.stdout


def test_every_neuron_is_everywhere():
    """A neuron known to the programs has a Lava process and is in the format's document."""
    from toolchain.program.neurons import NEURONS

    builder = (ROOT / "hw_models/stock/expansion.py").read_text()
    fast = (ROOT / "hw_models/fast/stages.py").read_text()
    spec = (ROOT / "exports/netx/FORMAT.md").read_text()
    for kind, neuron in NEURONS.items():
        assert f"neurons.{neuron.__name__}" in builder, neuron
        assert f"neurons.{neuron.__name__}" in fast, neuron
        assert f"`{kind}`" in spec, kind


def test_every_synapse_is_in_every_pass():
    from typing import get_args

    from toolchain.program.spike_ranges import _weight_sums
    from toolchain.program.synapse import Synapse, WindowSynapse
    from toolchain.program.synops import synapse_fan_out
    from toolchain.simulator.currents import synaptic_current

    for kind in get_args(Synapse):
        for dispatch in (_weight_sums, synapse_fan_out, synaptic_current):
            assert kind in dispatch.registry, (kind, dispatch)
        for name in ("expansion", "connection"):
            text = (ROOT / f"hw_models/stock/{name}.py").read_text()
            assert kind.__name__ in text or (name, kind) == ("connection", WindowSynapse)


def test_unknown_kinds_raise():
    from toolchain.errors import ProgramError
    from toolchain.program.spike_ranges import weight_sums
    from toolchain.program.synops import synapse_fan_out
    from toolchain.simulator.currents import synaptic_current

    for call in (
        lambda: weight_sums(object()),
        lambda: synapse_fan_out(object(), (1,)),
        lambda: synaptic_current(object(), None, None),
    ):
        with pytest.raises(ProgramError, match="object"):
            call()


DOCUMENT = re.compile(r"(?<![\w/.-])(?!FILE\.md)((?:\.\./)*(?:[\w-]+/)*[A-Z][\w-]*\.md)(#[\w-]+)?")


def anchors(document):
    """What links to the headings of a document end with."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {"#" + re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_documents_that_are_named_are_there():
    named = 0
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/**/*.py")]:
        if ".venv" in str(path) or path.is_relative_to(ROOT / "tests"):
            continue
        for match in DOCUMENT.finditer(path.read_text()):
            places = (path.parent / match[1], ROOT / match[1], ROOT / "docs" / match[1])
            documents = [place for place in places if place.is_file()]
            near = list(ROOT.glob(f"exports/**/{match[1]}"))
            assert documents or near, (path, match[1])
            named += 1
            if match[2]:
                assert match[2] in anchors((documents or near)[0]), (path, match[0])
    assert named > 20
