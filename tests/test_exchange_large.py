"""Formulas in spreadsheets, files larger than memory, pipes, and the order of events."""

import csv
import json
import os
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_exchange_formats import (
    ENDS,
    LEFT,
    NEW,
    PAIR,
    RESPONSE_TEXT,
    VALUES,
    WHEN,
    comparison_task,
    fresh,
    judgements_of,
    ranking_task,
    record,
    refused,
    saved,
    task,
)

from assent.feedback.demonstration import Demonstration
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import insert, iter_chunks, read_file
from assent.formats.files.rows import detect_layout, iter_rows
from assent.formats.files.sniffing import FORMATS, sniff
from assent.records import Feedback, Prompt, Task

# Formulas in spreadsheets


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''-x"])
def test_formula_cell_is_escaped_and_restored(cell: str, tmp_path: Path) -> None:
    judged = comparison_task()
    event = replace(judged.feedback[0], comment=cell)
    write_file([judged._replace(feedback=(event,))], tmp_path / "x.csv", "csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["comment"] == f"'{cell}"
    assert read_file(tmp_path / "x.csv").feedback[0].comment == cell


@given(st.lists(RESPONSE_TEXT, min_size=1, max_size=4))
def test_no_csv_cell_begins_like_a_formula(notes: list[str]) -> None:
    judged = comparison_task()
    judgements = tuple(replace(judged.feedback[0], comment=note, id=str(place)) for place, note in enumerate(notes))
    with tempfile.TemporaryDirectory() as folder:
        write_file([judged._replace(feedback=judgements)], Path(folder) / "x.csv", "csv")
        with (Path(folder) / "x.csv").open(newline="", encoding="utf-8") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell[:1] in tuple("=+-@\t\r\n\0")]
        assert [event.comment for event in read_file(Path(folder) / "x.csv").feedback] == notes


def test_apostrophe_before_plain_text_stays(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,demonstration\nHi?,'tis\nHi?,'=1\n")
    assert judgements_of(read_file(path)) == [Demonstration("'tis"), Demonstration("=1")]


# Files that are larger than memory


def generate_rows(format: str, count: int) -> Iterator[str]:
    """Yield a file of `count` rows of forty kilobytes, in pieces."""
    if format == "csv":
        yield "prompt,a,b,preference\n"
    for n in range(count):
        long = f"{n} " + "word " * 4000
        pair = {"prompt": f"Question {n}?", "answer1": long + "x", "answer2": long + "y"}
        match format:
            case "csv":
                yield f"Question {n}?,{long}x,{long}y,a\n"
            case "label-studio":
                yield ("," if n else "[") + json.dumps(task(pair, LEFT)) + "]" * (n == count - 1)
            case "argilla":
                fields = {"prompt": pair["prompt"], "response_1": pair["answer1"], "response_2": pair["answer2"]}
                yield (
                    ("," if n else "[") + json.dumps(record(fields, preference=["response_1"])) + "]" * (n == count - 1)
                )
            case "preference":
                yield json.dumps({"prompt": pair["prompt"], "chosen": long + "x", "rejected": long + "y"}) + "\n"
            case "events":
                prompt = Prompt.ask(pair["prompt"])
                annotation_task = Task("demonstration", prompt.id, ())
                event = Feedback(annotation_task.id, "ann", Demonstration(long), WHEN[1])
                for stored in (event, annotation_task, prompt):  # in reverse order
                    (row,) = FORMATS["events"].encode(stored)
                    yield json.dumps(row) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["label-studio", "argilla", "csv", "preference", "events"])
def test_large_file_is_streamed_in_constant_memory(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assent.formats.files.exporting.CHUNK_TASKS", 10)
    path = tmp_path / f"large.{ENDS.get(format, 'jsonl')}"
    with path.open("w") as file:
        file.writelines(generate_rows(format, 600))
    with fresh() as store:
        tracemalloc.start()
        try:
            source = sniff(path)
            count = sum(insert(reading, store).feedback for reading in iter_chunks(source, chunk_rows=10))
            if format in NEW:
                assert write_file(store, tmp_path / "out", format).num_rows == 600
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (source.format, count) == (format, 600)
    assert path.stat().st_size > 12e6 and peak < 10e6, f"{peak / 1e6:.1f} MB"


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_json_array_is_parsed_alike_with_any_buffer_size(matches: list[Any], piece: int, indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("assent.formats.files.json_document.PIECE", piece)
        path = saved(Path(folder), "x.json", json.dumps(matches, indent=indent))
        layout = detect_layout(path, is_table=False)
        assert layout in ("array", "document")
        elements = [line.content for line in iter_rows(path, "x.json", layout)]
        assert json.dumps(elements) == json.dumps(matches)


@pytest.mark.parametrize(
    "spoiled", ["[1, 2", "[1 2]", "[1,]", "[,1]", "[1]]", "[1] x", '[{"a": 1}, {"a": ]', "[01]", '["a]']
)
def test_invalid_json_array_is_read_as_lines(spoiled: str, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "Hi?"})
    reading = read_file(saved(tmp_path, "x.jsonl", f"{spoiled}\n{good}\n"))
    assert [(location, reason.split(":")[0].split(" but")[0]) for location, reason in refused(reading)] in (
        [("x.jsonl:1", "broken JSON")],
        [("x.jsonl:1", "not a JSON object")],
    )
    assert len(reading.prompts) == 1


def test_json_array_from_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    whole = json.dumps([task(PAIR, LEFT, id=name) for name in (1, 2, 3)])
    writer = threading.Thread(target=pipe.write_text, args=(whole,))
    writer.start()
    assert len(read_file(pipe).feedback) == 3
    writer.join()


def test_events_in_any_order_are_read_alike(tmp_path: Path) -> None:
    with fresh(comparison_task(), ranking_task((0,), (1, 2))) as store:
        write_file(store, tmp_path / "events.jsonl", "events")
    turned = reversed((tmp_path / "events.jsonl").read_text().splitlines(keepends=True))
    first = read_file(tmp_path / "events.jsonl")
    second = read_file(saved(tmp_path, "turned.jsonl", "".join(turned)))
    assert (set(first.feedback), set(first.responses)) == (set(second.feedback), set(second.responses))
    assert second.skipped == ()


def test_feedback_flags_round_trip_through_events(tmp_path: Path) -> None:
    judged = comparison_task()
    flagged = replace(judged.feedback[0], flags=("harm",), id="flagged")
    with fresh(judged._replace(feedback=(*judged.feedback, flagged))) as store:
        write_file(store, tmp_path / "events.jsonl", "events")
        saved_rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        assert [row.get("flags") for row in saved_rows if row["record"] == "feedback"] == [None, ["harm"]]
        assert set(read_file(tmp_path / "events.jsonl").feedback) == set(store.feedback())
