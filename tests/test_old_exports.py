"""Files that version 0.1 exported are refused, because their annotators, times and orders would be misread."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_import_export_inspect import run_here

from assent.formats.files.importing import read_file

REASON = "exported by version 0.1: export it again with this version"
CELLS = {
    "prompt": "Capital of France?", "a": "Paris.", "b": "London.", "preference": "a", "strength": "2",
    "note": "Clear.", "annotator": "ann", "at": "2026-11-20T10:00:00Z", "seconds": "4.5", "shown": "b a",
    "purpose": "train", "mode": "knowledge", "query": "d8c8a0a0c43aa834f41e", "id": "0192_1a2b3c4d",
}  # fmt: skip
FACTS = {"kind": "comparison", "shown": True, "order": [1, 0], "mode": "knowledge"}
FIELDS = {"prompt": "Capital of France?", "answer1": "Paris.", "answer2": "London."}
USER = "06f7d4c0-e048-43d2-ab3f-06f147616ac6"
RECORD = {
    "id": "1",
    "fields": FIELDS,
    "metadata": {
        "assent": json.dumps(
            FACTS | {
                "answers": [
                    {"user": USER, "annotator": "ann", "at": CELLS["at"], "seconds": 4.5, "seal": "0192_1a2b3c4d"}
                ]
            }
        )
    },
    "suggestions": {},
    "responses": {"preference": [{"value": "answer1", "user_id": USER}]},
    "vectors": {},
}  # fmt: skip
RESULT = {"id": "x", "from_name": "comparison", "to_name": "comparison", "type": "pairwise"}
TASK = {
    "data": FIELDS | {"assent": FACTS},
    "annotations": [{"annotator": "ann", "result": [RESULT | {"value": {"selected": "left"}}]}],
}


def table(path: Path, cells: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, list(cells))
        rows.writeheader()
        rows.writerow(cells)
    return path


def array(path: Path, row: Any) -> Path:
    path.write_text(json.dumps([row]))
    return path


def require_refused(path: Path, run: Path) -> None:
    process = run_here("import", path, "--run", run)
    assert process.status == 2
    assert REASON in process.out + process.err
    assert read_file(path).feedback == ()


def test_old_table_is_refused(tmp_path: Path) -> None:
    require_refused(table(tmp_path / "old.csv", CELLS), tmp_path / "run")


def test_old_table_without_times_is_refused(tmp_path: Path) -> None:
    cells = {name: cell for name, cell in CELLS.items() if name not in ("note", "at", "seconds", "shown", "mode")}
    require_refused(table(tmp_path / "old.csv", cells), tmp_path / "run")


def test_table_with_a_column_called_query_is_read(tmp_path: Path) -> None:
    path = table(
        tmp_path / "other.csv", {name: CELLS[name] for name in ("prompt", "a", "b", "preference")} | {"query": "x"}
    )
    assert len(read_file(path).feedback) == 1


@pytest.mark.parametrize("row", [RECORD, TASK], ids=["argilla", "label-studio"])
def test_old_records_are_refused(row: Any, tmp_path: Path) -> None:
    require_refused(array(tmp_path / "old.json", row), tmp_path / "run")
