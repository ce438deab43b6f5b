"""The commands import and export, on files of labelling tools."""

import json
from pathlib import Path

import pytest
from test_exchange import lines
from test_exchange_formats import ENDS, LEFT, PAIR, WHEN, comparison_task, ranking_task, saved, task
from test_import_export_inspect import run_here

from assent.cli import main
from assent.feedback.rating import Rating
from assent.formats.files.importing import read_file
from assent.formats.files.sniffing import FORMATS
from assent.records import Feedback, Task
from assent.registry import names, resolve
from assent.store.database import Store

# Commands


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run with a comparison, a ranking, a rating and an open task."""
    folder = tmp_path / "run"
    rated = comparison_task()
    annotation_task = Task("rating", rated.prompt.id, (rated.items[0].id,))
    waiting = Task("comparison", rated.prompt.id, tuple(reversed(rated.task.items)), "evaluate")
    lines(tmp_path / "first.jsonl", {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"})
    assert main(["import", str(tmp_path / "first.jsonl"), "--run", str(folder)]) == 0
    with Store.open(folder / "feedback.db") as store:
        for entry in (rated, ranking_task((0, 1), (2,))):
            store.add_prompts([entry.prompt])
            store.add_responses(entry.items)
            store.add_tasks([entry.task])
            store.add_feedback(entry.feedback)
        store.add_tasks([annotation_task, waiting])
        store.add_feedback([Feedback(annotation_task.id, "ann", Rating((("overall", 5.5),)), WHEN[1])])
    return folder


@pytest.mark.parametrize(("format", "rows"), [("label-studio", 3), ("argilla", 3), ("csv", 4)])
def test_run_exports_and_imports_into_another(format: str, rows: int, run: Path, tmp_path: Path) -> None:
    path = tmp_path / f"out.{ENDS[format]}"
    out = run_here("export", path, "--run", run, "--format", format)
    assert out.status == 0
    assert f"{path}: {rows} rows written as {format}, of 4 tasks with 4 judgements in {run}\n" in out.out
    assert ("1 skipped" in out.out) == (format != "csv")  # half a star
    back = run_here("import", path, "--run", tmp_path / "other")
    assert back.status == 0
    assert f"{rows} of {rows} rows read as {format} (detected)\n  2 comparisons, 1 rankings" in back.out
    again = run_here("import", path, "--run", run)
    assert "nothing new" in again.out


def test_export_selects_purpose_and_split(run: Path, tmp_path: Path) -> None:
    result = run_here("export", tmp_path / "x.json", "--run", run, "--format", "label-studio", "--purpose", "evaluate")
    assert "1 rows written as label-studio, of 1 tasks with 0 judgements" in result.out
    back = run_here("import", tmp_path / "x.json", "--run", tmp_path / "other")
    assert "tasks without a judgement on 1 prompts" in back.out
    counts = []
    for side in ("train", "held-out"):
        result = run_here("export", tmp_path / f"{side}.json", "--run", run, "--format", "argilla", "--split", side)
        counts.append(len(read_file(tmp_path / f"{side}.json").feedback) if result.status == 0 else 0)
        assert result.status == 0 or f"holds no tasks with purpose 'train' on the {side} side" in result.err
    assert sum(counts) == 3  # all but the half star


def test_empty_export_keeps_the_old_file(run: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "mine\n")
    result = run_here("export", path, "--run", run, "--format", "csv", "--purpose", "gold", "--overwrite")
    assert (result.status, path.read_text()) == (2, "mine\n")
    assert "holds no tasks with purpose 'gold' to export" in result.err


def test_import_status_2_if_no_row_is_valid(tmp_path: Path) -> None:
    broken, good = task(PAIR), task(PAIR, LEFT)
    for tasks, status in (([broken, good], 0), ([{"data": {}}], 2)):
        path = saved(tmp_path, "x.json", json.dumps(tasks))
        result = run_here("import", path, "--run", tmp_path / "run")
        assert result.status == status
    assert (
        "no row of " in result.err and "is valid label-studio: correct the file, or name another --format" in result.err
    )
    saved_rows = [json.loads(line) for line in (tmp_path / "run/skipped-x.jsonl").read_text().splitlines()]
    assert [row["location"] for row in saved_rows] == ["x.json:row 1, annotation 1", "x.json:row 1"]
    assert json.loads(saved_rows[0]["row"]) == broken


@pytest.mark.parametrize(("typed", "meant"), [("label_studio", "label-studio"), ("argila", "argilla"), ("cvs", "csv")])
def test_mistyped_format_suggests_the_nearest(typed: str, meant: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,demonstration\nHi?,Ho.\n")
    result = run_here("import", path, "--run", tmp_path / "run", "--format", typed)
    assert (result.status, result.err) == (2, f"assent: no format '{typed}'; did you mean '{meant}'?\n")


# The folder


@pytest.mark.conformance
@pytest.mark.parametrize("name", names("formats"))
def test_every_formats_module_defines_its_format(name: str) -> None:
    matches = resolve("formats", name)
    assert matches.__dataclass_params__.frozen and (matches.record_types or "encode" not in vars(matches))
    assert matches.__doc__ and not matches.__doc__.startswith(f"{matches.__name__}(")
    assert FORMATS[name.replace("_", "-")] == matches()
