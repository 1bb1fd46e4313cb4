"""The notebook of the docs runs from top to bottom, and is stored as such a run left it."""

import nbformat
import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.helpers.executed_notebook import execute_notebook, read_notebook

pytestmark = pytest.mark.slow


def test_the_notebook_runs_from_top_to_bottom(tmp_path) -> None:
    notebook = execute_notebook(tmp_path)
    report = LexborHTMLParser(html_of(notebook.cells[-1])).css_first("iframe").attributes["srcdoc"]
    assert report == (tmp_path / "runs/notebook/report.html").read_text()
    assert "<h3>Planned, spent, left</h3>" in report


def test_what_is_stored_was_run_from_top_to_bottom() -> None:
    cells = [cell for cell in read_notebook().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert "<iframe" in html_of(cells[-1])


def html_of(cell: nbformat.NotebookNode) -> str:
    [output] = cell.outputs
    return output.data["text/html"]
