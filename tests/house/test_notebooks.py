"""The notebooks run top to bottom."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.command_line import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, small_runs, monkeypatch):
    """It runs, and what is kept in the file are the outputs of such a run."""
    monkeypatch.setenv("SPIKEPORT_RESULTS", str(small_runs))
    kept = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    text = "".join(o.get("text", "") for o in outputs)
    assert " 0 mismatches" in text
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2
    for cell, again in zip(kept.cells, notebook.cells, strict=True):
        if cell.cell_type == "code":
            assert kinds(cell.outputs) == kinds(again.outputs), cell.source


def kinds(outputs):
    """What a cell leaves, each kind once: the runs of a test are smaller than those in the file."""
    return {(o.output_type, *sorted(o.get("data", {}))) for o in outputs}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_name_no_place_of_a_machine(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work|usr)/", text)


def test_which_notebooks_there_are():
    assert [p.stem for p in NOTEBOOKS] == [
        "01_first_network",
        "02_papers",
        "03_audit",
        "04_detection",
        "05_own_loop",
        "06_events",
    ]
