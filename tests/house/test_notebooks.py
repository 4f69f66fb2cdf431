"""The notebooks run top to bottom."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.command_line import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, small_runs, monkeypatch):
    monkeypatch.setenv("SPIKEPORT_RESULTS", str(small_runs))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    text = "".join(o.get("text", "") for o in outputs)
    assert " 0 mismatches" in text
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 2


def test_which_notebooks_there_are():
    assert [p.stem for p in NOTEBOOKS] == [
        "01_first_network",
        "02_papers",
        "03_audit",
        "04_detection",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not c.outputs for c in notebook.cells if c.cell_type == "code")
