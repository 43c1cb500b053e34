"""The notebook of the documentation runs, and shows each of its figures once."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
PNG, HTML = "image/png", "text/html"


def executed(notebook: Any) -> list[Any]:
    """Run a notebook in the folder of documents -> its cells of code."""
    with tempfile.TemporaryDirectory() as folder:
        # Through files: through a port, other users of the machine could read and write.
        connection = {"transport": "ipc", "ip": f"{folder}/kernel"}
        config = Config({"ConnectionFileMixin": connection})
        resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
        NotebookClient(
            notebook, kernel_name="python3", resources=resources, config=config
        ).execute()
    return code_of(notebook)


def code_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str) -> Iterator[str]:
    """The outputs of a kind that a reader sees below a cell."""
    for output in cell.outputs:
        if kind in output.get("data", {}):
            yield output["data"][kind]


def images(cell: Any) -> Sequence[Any]:
    return [imread(io.BytesIO(base64.b64decode(text))) for text in shown(cell, PNG)]


@pytest.fixture(scope="module")
def cells() -> list[Any]:
    return executed(nbformat.read(NOTEBOOK, as_version=4))


def test_the_notebook_keeps_no_output_that_may_become_stale() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = code_of(notebook)
    assert len(code) > 10
    assert [cell for cell in code if cell.outputs or cell.execution_count is not None] == []


def test_the_links_of_the_notebook_lead_to_documents() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    targets = re.findall(r"\]\(([^)]+)\)", "\n".join(texts))
    assert len(targets) == 2
    assert [target for target in targets if not (NOTEBOOK.parent / target).is_file()] == []


def test_the_notebook_shows_each_figure_once(cells: list[Any]) -> None:
    drawing = [cell for cell in cells if "figure(" in cell.source or "plot" in cell.source][1:]
    assert len(drawing) == 6
    for cell in drawing:
        (image,) = images(cell)
        assert np.ptp(image) > 0.5, cell.source
    others = [cell for cell in cells if cell not in drawing]
    assert [cell.source for cell in others if images(cell)] == []


def test_the_notebook_shows_tables_and_no_warning(cells: list[Any]) -> None:
    tables = [cell for cell in cells if list(shown(cell, HTML))]
    assert len(tables) == 7
    (runs,) = shown(tables[0], HTML)
    assert "20261128-034542-families" in runs
    streams = [
        output for cell in cells for output in cell.outputs if output.output_type == "stream"
    ]
    assert streams == []


def test_a_figure_shows_itself_in_a_notebook_without_pyplot() -> None:
    notebook = nbformat.v4.new_notebook()
    lines = "import levelfield", 'runs = levelfield.load("../results/example")'
    notebook.cells = [
        nbformat.v4.new_code_cell("\n".join(lines)),
        nbformat.v4.new_code_cell('levelfield.figure(runs, "heat")'),
        nbformat.v4.new_code_cell("import sys; 'matplotlib.pyplot' in sys.modules"),
    ]
    _, drawing, loaded = executed(notebook)
    (image,) = images(drawing)
    assert np.ptp(image) > 0.5
    assert list(shown(loaded, "text/plain")) == ["False"]
