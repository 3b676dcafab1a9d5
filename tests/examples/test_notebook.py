"""The notebook in examples/, executed from its first cell to its last."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "whole_way_round.ipynb"


def test_notebook_goes_the_whole_way_round_with_pictures() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("real test images") == 3
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
