"""Execute the notebook of the docs; `python -m tests.helpers.executed_notebook` stores it with its outputs."""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "docs/notebook.ipynb"


def read_notebook() -> nbformat.NotebookNode:
    """Read it as it is stored."""
    return nbformat.read(NOTEBOOK, as_version=4)


def execute_notebook(folder: Path) -> nbformat.NotebookNode:
    """Run it from top to bottom in a kernel of its own, with a folder as working directory."""
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(read_notebook(), timeout=500, record_timing=False, resources=resources)
    return client.execute()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute_notebook(Path(folder))
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings name this machine's paths
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
