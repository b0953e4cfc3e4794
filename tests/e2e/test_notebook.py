"""The notebook of the documentation, executed as a reader executes it."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "start.ipynb"


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_and_shows_what_the_page_shows(committed, tmp_path):
    executed = copy.deepcopy(committed)
    for cell in code_cells(executed):
        cell.outputs = []
    NotebookClient(executed, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, after in zip(code_cells(committed), code_cells(executed)):
        kinds = [
            [
                (output.output_type, *sorted(output.get("data", {})))
                for output in cell.outputs
                if output.get("name") != "stderr"
            ]
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1], after.source
    results = " ".join(output.get("text", "") for cell in code_cells(executed) for output in cell.outputs)
    start, adapted = (float(results.split(f"{name}: ")[1].split(" px")[0]) for name in ("start", "adapted"))
    assert adapted < start < 0.6  # of 3.2 px before


def test_the_page_was_committed_with_its_pictures(committed):
    shown = [
        data for cell in code_cells(committed) for output in cell.outputs for data in output.get("data", {})
    ]
    assert "text/html" in shown
    assert "/tmp/" not in NOTEBOOK.read_text(encoding="utf-8")
