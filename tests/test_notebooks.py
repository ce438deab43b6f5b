"""The notebooks of examples/ run from the first cell to the last, and show what they wrote when they were committed."""

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "examples"
NOTEBOOKS = ("loop.ipynb", "read_run.ipynb")  # the second reads the run of the first


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebook_shows_its_outputs(name: str) -> None:
    assert sorted(path.name for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)
    for number, cell in enumerate(code_cells(read(FOLDER / name)), 1):
        assert cell.execution_count == number
        assert cell.outputs
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs)


def test_loop_has_ten_cells() -> None:
    assert len(code_cells(read(FOLDER / NOTEBOOKS[0]))) == 10


@pytest.mark.slow
def test_notebooks_run_to_their_end(tmp_path: Path) -> None:
    examples = shutil.copytree(FOLDER, tmp_path / "examples")
    for name in NOTEBOOKS:
        notebook = read(examples / name)
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(examples)}}).execute()
    dpo, random = (
        json.loads((tmp_path / "runs" / run / "done" / "evaluate.json").read_text())["policies"]["dpo"]["win"]
        for run in ("notebook", "notebook-random")
    )
    assert dpo["low"] > 0.5 and dpo["rate"] > random["rate"]
    assert (tmp_path / "runs" / "notebook" / "report.html").exists()
