"""Layouts of files: JSON documents that are streamed or parsed whole, and tables with unclosed quotes."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_exchange import lines
from test_exchange_formats import refused, saved

from assent.errors import AssentError
from assent.formats.files.importing import import_file, read_file
from assent.formats.files.rows import detect_layout, iter_rows
from assent.formats.files.tables import escape_formula, unescape_formula
from assent.store.database import Store

HEADER = "prompt,a,b,preference\n"


@pytest.mark.parametrize(
    ("element", "layout"),
    [
        ('{"a": 1, "b": 0.5, "c": "\\ud83d\\ude00", "d": [null, true, 1e5]}', "array"),
        ('{"a": NaN}', "document"),
        ('{"a": -Infinity}', "document"),
        ('{"a": 123456789012345678901234567890}', "document"),
        ('{"a": 1e400}', "document"),
        ('{"a": "\\ud83d"}', "document"),
        ('{"a": "\\ude00"}', "document"),
        ('{"a": "\\ud83d \\ude00"}', "document"),
        ('{"a": ' + "[" * 600 + "]" * 600 + "}", "document"),
        ('{"a": 1, "a": 2}', "array"),
    ],
)
def test_array_values_are_those_of_pythons_json(element: str, layout: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.json", f"[{element}, {element}]")
    assert detect_layout(path, is_table=False) == layout
    (first, second) = (row.content for row in iter_rows(path, "x.json", detect_layout(path, is_table=False)))
    expected = json.loads(element)
    assert repr(first) == repr(second) == repr(expected)


@pytest.mark.parametrize("opening", ["[", '[{"a":', '{"train": ['])
def test_deep_nesting_neither_crashes_nor_fills_memory(opening: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.json", opening * 100_000)
    assert detect_layout(path, is_table=False) == "lines"


@pytest.mark.parametrize("value", ["NaN", "0.5"])
def test_splits_are_read_alike_streamed_or_whole(value: str, tmp_path: Path) -> None:
    row = '{"prompt": "Sky?", "x": %s}'
    path = saved(tmp_path, "x.json", '{"train": [' + row % value + '], "test": [' + row % 1 + "]}")
    assert detect_layout(path, is_table=False) == ("splits" if value == "0.5" else "document")
    assert [prompt.source for prompt in read_file(path).prompts] == ["x.json/train"]
    assert [prompt.meta for prompt in read_file(path / "test").prompts] == [{"x": 1}]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ('"Hi?,Yes,No,a\n', 2),
        ('Hi?,Yes,No,a\nHi?,"Yes,No,a\nBye?,Yes,No,b\n', 3),
        ('"two\nlines",Yes,No,a\n"also\ntwo",Yes,"No,a\nBye?,Yes,No,b\n', 5),
    ],
)
def test_unclosed_quote_refuses_the_table_with_its_line(body: str, line: int, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", HEADER + body)
    with Store.open(tmp_path / "store.db") as store:
        with pytest.raises(AssentError, match=rf"^x\.csv:{line}: the quotation mark is never closed: close it"):
            import_file(path, store)
        assert store.counts() == (0, 0, 0, 0)


def test_csv_field_size_limit_of_the_process_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "word " * 40_000
    reading = read_file(saved(tmp_path, "x.csv", f'{HEADER}Hi?,{long}x,{long}y,a\n"Hi"?,Yes,No,a\n'))
    assert len(reading.feedback) == 1 and len(long) > before == csv.field_size_limit()
    assert refused(reading) == [("x.csv:3", "broken quotation: ',' expected after '\"'")]


@pytest.mark.parametrize("cell", ["=1", "＝1", "＋1", "－1", "＠x", "'=1", "\t1", "\0"])
def test_formula_escape_covers_full_width_forms(cell: str) -> None:
    assert escape_formula(cell) == f"'{cell}"
    assert unescape_formula(escape_formula(cell)) == cell


@pytest.mark.parametrize("cell", ["'tis", "1=1", "", "a@b"])
def test_formula_escape_leaves_other_cells(cell: str) -> None:
    assert escape_formula(cell) == unescape_formula(cell) == cell


def test_old_keys_of_our_formats_are_not_read(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "Sky?", "mode": "creative"}
    (prompt,) = read_file(lines(tmp_path / "x.jsonl", row)).prompts
    assert (prompt.category, prompt.meta) == ("", {"mode": "creative"})
