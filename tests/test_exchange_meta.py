"""Columns that no format reads become the prompt's meta, and are written back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_exchange import lines
from test_exchange_formats import comparison_task, fresh

from assent.formats.files.exporting import write_file
from assent.formats.files.importing import import_file, read_file
from assent.formats.files.sniffing import FORMATS, sniff
from assent.records import Completion, Example, Preference, Prompt, RankedCompletions, ScoredCompletion, SFTExample

META = {"solution": "42", "group": ["a", {"n": 1.5}]}
CLASHING = {"label": 1, "completion": "x", "score_chosen": 2, "quality": "good", "a": "1", "b": "2", "empty": ""}
"""Keys that a format reads, that look like a judgement, or that would change the detected format."""
PROMPT = replace(Prompt.ask("Sky?", "creative"), meta=META)
BLUE = Completion("Blue")
GREEN = Completion("Green")
EXAMPLES: list[tuple[str, Example | Prompt]] = [
    ("prompt-only", PROMPT),
    ("prompt-completion", SFTExample(PROMPT, BLUE)),
    ("language-modelling", SFTExample(PROMPT, BLUE)),
    ("unpaired", ScoredCompletion(PROMPT, BLUE, 1.0)),
    ("rating", ScoredCompletion(PROMPT, BLUE, 0.5)),
    ("ranking", RankedCompletions(PROMPT, ((BLUE,), (GREEN,)))),
    ("preference", Preference(PROMPT, BLUE, GREEN)),
    ("preference-implicit", Preference(PROMPT, BLUE, GREEN)),
    ("hh-rlhf", Preference(PROMPT, BLUE, GREEN)),
    ("openai-preference", Preference(PROMPT, BLUE, GREEN)),
]


def with_meta(record: Any, meta: dict[str, Any]) -> Any:
    if isinstance(record, Prompt):
        return replace(record, meta=meta)
    return replace(record, prompt=replace(record.prompt, meta=meta))


@pytest.mark.parametrize("meta", [META, CLASHING, META | CLASHING])
@pytest.mark.parametrize(("format", "record"), EXAMPLES)
def test_prompt_meta_round_trips_in_every_format(
    format: str, record: Example | Prompt, meta: dict[str, Any], tmp_path: Path
) -> None:
    result = write_file([with_meta(record, meta)], tmp_path / "x.jsonl", format)
    assert (result.num_rows, result.skipped) == (1, ())
    again = read_file(tmp_path / "x.jsonl")
    assert again.format == format
    assert [(prompt.meta, prompt.category) for prompt in again.prompts] == [(meta, "creative")]


def test_prompt_meta_is_written_as_columns(tmp_path: Path) -> None:
    write_file([replace(PROMPT, meta=META | {"label": 1})], tmp_path / "x.jsonl", "prompt-only")
    row = json.loads((tmp_path / "x.jsonl").read_text())
    assert row == {
        "prompt": [{"role": "user", "content": "Sky?"}],
        "category": "creative",
        **META,
        "meta": {"label": 1},
    }


def test_prompt_meta_leaves_out_side_columns_and_nan(tmp_path: Path) -> None:
    row = (
        '{"prompt": "a", "chosen": "b", "rejected": "c", "x": 1, "y": NaN, "z": "\\ud800", "chosen_tokens": 7, "w": 2}'
    )
    file = sniff(lines(tmp_path / "x.jsonl", row + "\n"), ignore=("w",))
    assert dict(file.meta_counts) == {"x": 1}
    assert dict(file.unread_counts) == {"y": 1, "z": 1, "chosen_tokens": 1, "w": 1}
    assert [prompt.meta for prompt in read_file(tmp_path / "x.jsonl").prompts] == [{"x": 1, "w": 2}]


def test_prompt_meta_of_tasks_stays_out_of_labelling_tools(tmp_path: Path) -> None:
    task = comparison_task()
    secret = task._replace(prompt=replace(task.prompt, meta={"solution": "hidden-answer"}))
    for format in ("label-studio", "argilla"):
        assert write_file([secret], tmp_path / format, format).num_rows == 1
        assert "hidden-answer" not in (tmp_path / format).read_text()
        assert [prompt.meta for prompt in read_file(tmp_path / format).prompts] == [{}]


@pytest.mark.parametrize("format", ["csv", "lmarena", "prompt-responses", "events"])
def test_prompt_meta_of_tasks_round_trips(format: str, tmp_path: Path) -> None:
    task = comparison_task()
    task = task._replace(prompt=replace(task.prompt, meta=META))
    if format == "prompt-responses":
        task = task._replace(feedback=())
    path = tmp_path / f"x.{'csv' if format == 'csv' else 'jsonl'}"
    with fresh(task) as store, fresh() as second:
        assert write_file(store, path, format).skipped == ()
        assert import_file(path, second).format == format
        assert [prompt.meta for prompt in second.prompts()] == [META]
        assert FORMATS[format].writes_meta


def test_feedback_source_round_trips_in_labelling_formats(tmp_path: Path) -> None:
    task = comparison_task(annotator="gpt")
    task = task._replace(feedback=tuple(replace(event, source="model") for event in task.feedback))
    for format, suffix in (("csv", "csv"), ("label-studio", "json"), ("argilla", "json"), ("lmarena", "jsonl")):
        path = tmp_path / f"{format}.{suffix}"
        assert write_file([task], path, format).skipped == ()
        assert [event.source for event in read_file(path).feedback] == ["model"]
