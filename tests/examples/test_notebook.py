"""The notebook in examples/, executed from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "whole_way_round.ipynb"


def test_notebook_goes_the_whole_way_round_with_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel's threads would spin for each other on cores that other tests want.
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = (cell for cell in notebook.cells if "REFINER_STEPS = 400" in cell.source)
    settings.source += "\nREFINER_STEPS, ESTIMATOR_STEPS = 100, 40"
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("real test images") == 3
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
