"""Files of several tools: Parquet, Arrow, folders of `datasets`, splits, ShareGPT, Alpaca and small tables."""

import gzip
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_exchange import lines, reasons

from assent.cli import main
from assent.errors import AssentError
from assent.formats.files import arrow
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import import_file, read_file
from assent.formats.files.importing import iter_chunks as stored
from assent.formats.files.sniffing import sniff
from assent.records import Completion, Example, Message, Preference, Prompt, ScoredCompletion, SFTExample
from assent.store.database import Store

USER, BLUE, GREEN = (
    {"role": role, "content": text} for role, text in (("user", "Sky?"), ("assistant", "Blue"), ("assistant", "Green"))
)
CALL = {"type": "function", "function": {"name": "look", "arguments": {"where": "up"}}}
ROWS = [{"prompt": f"Bird {n}?", "chosen": f"An owl, {n}.", "rejected": "No idea."} for n in range(5)]


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def parquet(path: Path, rows: Sequence[Any] = ROWS, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def stream(path: Path, rows: Sequence[Any] = ROWS, whole: bool = False) -> Path:
    """Write an Arrow stream, or with `whole` an Arrow file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    with path.open("wb") as file, (pa.ipc.new_file if whole else pa.ipc.new_stream)(file, table.schema) as writer:
        writer.write_table(table, 2)
    return path


def saved(folder: Path, *shards: Sequence[Any]) -> Path:
    """Write the files of `Dataset.save_to_disk`."""
    names = [f"data-{place:05}-of-{len(shards):05}.arrow" for place in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        stream(folder / name, rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def saved_splits(folder: Path, **splits: Sequence[Any]) -> Path:
    """Write the files of `DatasetDict.save_to_disk`."""
    for split, rows in splits.items():
        saved(folder / split, rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def examples(path: Path) -> list[Example]:
    reading = read_file(path)
    assert reasons(reading) == []
    return list(reading.examples)


def texts(path: Path) -> list[str]:
    return [entry.prompt.text for entry in examples(path)]


BIRDS = [row["prompt"] for row in ROWS]


# Parquet and Arrow


def of_every_kind(folder: Path) -> Iterator[Path]:
    yield parquet(folder / "a.parquet", row_group_size=2)
    yield parquet(folder / "no-ending", compression="zstd")
    yield stream(folder / "a.arrow")
    yield stream(folder / "b.arrow", whole=True)
    yield saved(folder / "saved", ROWS[:2], ROWS[2:])
    yield saved_splits(folder / "splits", train=ROWS, test=ROWS[:1])
    for place, subset in enumerate((ROWS[:3], ROWS[3:])):
        parquet(folder / "shards" / f"part-{place}.parquet", subset)
        parquet(folder / "hub" / "data" / f"train-{place:05}-of-00002.parquet", subset)
    parquet(folder / "hub" / "data" / "test-00000-of-00001.parquet", ROWS[:1])
    yield folder / "shards"
    yield folder / "hub"


def test_parquet_and_arrow_are_read_like_json_lines(tmp_path: Path) -> None:
    expected = [
        (entry.chosen, entry.rejected)
        for entry in examples(lines(tmp_path / "a.jsonl", *ROWS))
        if isinstance(entry, Preference)
    ]
    for path in of_every_kind(tmp_path):
        matches = [(entry.chosen, entry.rejected) for entry in examples(path) if isinstance(entry, Preference)]
        assert (matches, texts(path)) == (expected, BIRDS), path


def test_parquet_row_is_named_by_file_and_number(tmp_path: Path) -> None:
    reading = read_file(parquet(tmp_path / "a.parquet", [*ROWS, {**ROWS[0], "rejected": ROWS[0]["chosen"]}]))
    assert reasons(reading) == [("a.parquet:row 6", "identical replies")]
    assert json.loads(reading.skipped[0].row)["prompt"] == "Bird 0?"
    assert sniff(tmp_path / "a.parquet", encoding="windows-1252").num_rows == 6, "an encoding is for text"


def test_arrow_message_keys_filled_with_null_are_dropped(tmp_path: Path) -> None:
    second = {"type": "function", "function": {"name": "count", "arguments": {"birds": 3}}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", key: 1}}}
        for name, key in (("look", "a"), ("count", "b"))
    ]
    talks = [
        [{**USER, "tool_calls": None}, {"role": "assistant", "content": None, "tool_calls": [call], "name": None}]
        for call in (CALL, second)
    ]
    rows = [{"messages": talk, "tools": tools} for talk in talks]
    demonstrated = examples(parquet(tmp_path / "a.parquet", rows))
    assert [entry.completion.extra for entry in demonstrated if isinstance(entry, SFTExample)] == [
        {"tool_calls": [CALL]},
        {"tool_calls": [second]},
    ]
    assert [entry.prompt for entry in demonstrated] == [
        Prompt((Message("user", "Sky?"),), "", "a.parquet", tuple(tools))
    ] * 2


def test_arrow_values_become_json_values(tmp_path: Path) -> None:
    at = datetime(2026, 11, 20, 10, tzinfo=UTC)
    raw_values = {"at": at, "day": at.date(), "price": Decimal("1.50"), "bytes": b"caf\xc3\xa9", "odd": b"\xff"}
    table = pa.Table.from_pylist([{**raw_values, "n": 3, "x": 0.5, "yes": True, "none": None}])
    table = table.append_column("kind", pa.array(["a"]).dictionary_encode())
    table = table.append_column("map", pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())))
    table = table.append_column("json", pa.array(['{"a": [1]}'], pa.json_()))
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = arrow.iter_rows([tmp_path / "a.parquet"])
    odd = row.pop("odd")
    assert row == {
        "at": "2026-11-20T10:00:00+00:00",
        "price": 1.5,
        "bytes": "café",
        "day": "2026-11-20",
        "n": 3,
        "x": 0.5,
        "yes": True,
        "none": None,
        "kind": "a",
        "map": {"k": 1},
        "json": {"a": [1]},
    }
    assert odd == "\udcff", "no text: refused where a text is needed"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.timestamp("ns"), 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789"),
        (pa.timestamp("ns"), -1, "1969-12-31T23:59:59.999999999"),
        (pa.timestamp("ns", "UTC"), 1_700_000_000_000_000_000, "2023-11-14T22:13:20.000000000+00:00"),
        (pa.time64("ns"), 1_000_000_001, "00:00:01.000000001"),
        (pa.duration("ns"), 90_000_000_000_001, "PT90000.000000001S"),
        (pa.duration("ms"), -1500, "-PT1.500000S"),
    ],
)
def test_arrow_nanosecond_times_become_text(kind: Any, value: int, text: str, tmp_path: Path) -> None:
    values = pa.array([value, None], pa.int64()).cast(kind)
    nested = pa.StructArray.from_arrays([values], names=["at"])
    table = pa.table(
        {
            **{name: [row[name] for row in ROWS[:2]] for name in ROWS[0]},
            "at": values,
            "nested": nested,
            "list": pa.ListArray.from_arrays(pa.array([0, 2, 2]), values),
            "large": pa.LargeListArray.from_arrays(pa.array([0, 2, 2], pa.int64()), values),
            "map": pa.MapArray.from_arrays([0, 1, 2], ["k", "k"], values),
            "fixed": pa.FixedSizeListArray.from_arrays(values, 1),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = arrow.iter_rows([tmp_path / "a.parquet"])
    assert [first[name] for name in ("at", "nested", "list", "large", "map", "fixed")] == [
        *(text, {"at": text}, [text, None], [text, None], {"k": text}, [text]),
    ]
    assert [second[name] for name in ("at", "nested", "list", "map", "fixed")] == [None, {}, [], {"k": None}, [None]]
    assert texts(tmp_path / "a.parquet") == BIRDS[:2]


def test_arrow_time_out_of_range_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pa.Table.from_pylist(ROWS[:1]).append_column("at", pa.array([2**62], pa.timestamp("us")))
    pq.write_table(rows, tmp_path / "a.parquet")
    status, _, err = run_command(capsys, "import", tmp_path / "a.parquet", "--run", tmp_path / "run")
    assert (status, err.count("\n")) == (2, 1) and err.startswith(f"assent: cannot read {tmp_path / 'a.parquet'}: ")


def test_arrow_stream_yields_rows_before_its_end(tmp_path: Path) -> None:
    path = stream(tmp_path / "a.arrow")
    path.write_bytes(path.read_bytes()[:-200])
    matches = arrow.iter_rows([path])
    assert [next(matches)["prompt"] for _ in range(4)] == BIRDS[:4]
    with pytest.raises(AssentError, match=r"cannot read .*a\.arrow: .+"):
        list(matches)


@pytest.mark.parametrize(
    "content", [b"PAR1", b"PAR1 and no more of it PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff\xff\0\0\0"]
)
def test_truncated_parquet_is_one_error_in_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    status, _, err = run_command(capsys, "import", tmp_path / "a.parquet", "--run", tmp_path / "run")
    assert (status, err.count("\n")) == (2, 1)
    assert "a.parquet" in err and "UTF-8" not in err


def test_parquet_from_a_pipe_is_detected(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    feeder.start()
    assert texts(pipe) == BIRDS
    feeder.join()


def test_error_without_pyarrow_names_the_package_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run_command(capsys, "import", path, "--run", tmp_path / "run")
    assert (status, err) == (2, f"assent: to read {path}, install pyarrow: pip install 'assent[data]'\n")


# Folders and splits


def test_train_split_is_read_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved_splits(tmp_path / "birds", test=ROWS[:1], train=ROWS)
    status, out, _ = run_command(capsys, "import", folder, "--run", tmp_path / "run")
    assert status == 0
    split = "split train of test, train; name birds/test for another"
    assert f"{folder}: 5 of 5 rows read as preference (detected)\n  {split}\n" in out
    read_file(folder)
    assert capsys.readouterr().err == f"note: {folder}: split train of test, train; name birds/test for another\n"
    with Store.open(tmp_path / "run" / "feedback.db") as store:
        assert {prompt.source for prompt in store.prompts()} == {"birds/train"}


def test_split_is_chosen_by_path_suffix(tmp_path: Path) -> None:
    saved_splits(tmp_path / "saved", train=ROWS, test=ROWS[:1])
    parquet(tmp_path / "hub" / "train-00000-of-00001-ab12.parquet")
    parquet(tmp_path / "hub" / "test_sft-00000-of-00001.parquet", ROWS[:1])
    (tmp_path / "splits.json").write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    (tmp_path / "packed.json.gz").write_bytes(
        gzip.compress(json.dumps({"train": ROWS, "val": ROWS[:1]}, indent=1).encode())
    )
    for name, split in (("saved", "test"), ("hub", "test_sft"), ("splits.json", "test"), ("packed.json.gz", "val")):
        assert (texts(tmp_path / name), texts(tmp_path / name / split)) == (BIRDS, BIRDS[:1])
        assert sniff(tmp_path / name / split).name == f"{name}/{split}"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("prefs_train.parquet", "prefs_test.parquet"),
        ("prefs-train-00000-of-00001.parquet", "prefs-test-00000-of-00001.parquet"),
        ("my.test.train.arrow", "my.train.test.arrow"),
        ("UltraFeedback_Train.parquet", "UltraFeedback_Test.parquet"),
        ("a_train_sft.parquet", "a_test_sft.parquet"),
        ("a_train1.parquet", "a_test1.parquet"),
    ],
)
def test_split_word_anywhere_in_a_shard_name(train: str, test: str, tmp_path: Path) -> None:
    for name, rows in ((train, ROWS), (test, ROWS[:1])):
        (parquet if name.endswith("parquet") else stream)(tmp_path / "hub" / name, rows)
    assert (texts(tmp_path / "hub"), texts(tmp_path / "hub" / "test")) == (BIRDS, BIRDS[:1])


def test_word_containing_a_split_name_is_not_a_split(tmp_path: Path) -> None:
    for name, rows in (("latest_retrain.parquet", ROWS[:1]), ("trains_testing_devices.parquet", ROWS[1:])):
        parquet(tmp_path / "hub" / name, rows)
    assert texts(tmp_path / "hub") == BIRDS


def test_location_without_train_asks_for_a_split(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"test": ROWS, "validation": ROWS}))
    for path in (saved_splits(tmp_path / "saved", train_sft=ROWS, test_sft=ROWS), tmp_path / "a.json"):
        with pytest.raises(
            AssentError, match=rf"{path.name} has the splits \w+, \w+: name one of them, such as .*/\w+$"
        ):
            read_file(path)
    with pytest.raises(AssentError, match=r"a\.json has the splits test, validation: name one of them"):
        read_file(tmp_path / "a.json" / "training")
    with pytest.raises(AssentError, match=r"pairs\.jsonl is a file without splits: name it alone"):
        read_file(lines(tmp_path / "pairs.jsonl", *ROWS) / "test")


def test_single_split_is_read_whatever_its_name(tmp_path: Path) -> None:
    folder = saved_splits(tmp_path / "saved", validation=ROWS)
    assert texts(folder) == BIRDS and str(sniff(folder).location) == ""


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "is a folder without files of Parquet, Arrow, JSON or tables: name a file$"),
        (("x.md", "b.txt"), r"name one of its files or folders, such as .*/b\.txt$"),
        (("a/x.parquet",), "name one of its files or folders, such as .*/a$"),
        (("train.parquet", "x.parquet"), r"holds x\.parquet besides its splits: name one of its files"),
        (("dataset_dict.json",), r"cannot read .*dataset_dict\.json: `datasets` did not write it"),
    ],
)
def test_folder_without_a_data_set_names_candidates(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    for name in names:
        parquet(tmp_path / "folder" / name)
    (tmp_path / "folder").mkdir(exist_ok=True)
    with pytest.raises(AssentError, match=message):
        read_file(tmp_path / "folder")


def test_row_that_resembles_a_splits_object_is_a_row(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", *({"test": ["x"], **row} for row in ROWS))
    assert texts(path) == BIRDS and sniff(path).meta_counts == {"test": 5}


# ShareGPT and Alpaca


HUMAN, GPT, NO = (
    {"from": annotator, "value": text} for annotator, text in (("human", "Sky?"), ("gpt", "Blue"), ("gpt", "Green"))
)
PROMPT = Prompt.ask("Sky?", source="x.jsonl")
REPLY = Completion("Blue")
REJECTED = Completion("Green")
PROMPT_WITH_SYSTEM = Prompt((Message("system", "Be brief."), *PROMPT.messages), source="x.jsonl")


@pytest.mark.parametrize(
    ("row", "format", "expected"),
    [
        ({"conversations": [HUMAN, GPT]}, "sharegpt", SFTExample(PROMPT, REPLY)),
        ({"conversations": [HUMAN, GPT], "system": "Be brief."}, "sharegpt", SFTExample(PROMPT_WITH_SYSTEM, REPLY)),
        (
            {"conversations": [{"from": "system", "value": "Be brief."}, HUMAN, GPT], "system": "Be brief."},
            "sharegpt",
            SFTExample(PROMPT_WITH_SYSTEM, REPLY),
        ),
        ({"conversations": [USER, BLUE], "tools": ""}, "sharegpt", SFTExample(PROMPT, REPLY)),
        (
            {"conversations": [HUMAN], "chosen": GPT, "rejected": NO, "margin": 2},
            "sharegpt",
            Preference(PROMPT, REPLY, REJECTED, margin=2),
        ),
        (
            {"conversations": [HUMAN], "chosen": [BLUE], "rejected": [GREEN]},
            "sharegpt",
            Preference(PROMPT, REPLY, REJECTED),
        ),
        ({"conversations": [HUMAN, GPT], "kto_tag": False}, "sharegpt", ScoredCompletion(PROMPT, REPLY, 0.0)),
        ({"instruction": "Sky?", "input": "", "output": "Blue"}, "alpaca", SFTExample(PROMPT, REPLY)),
        (
            {"instruction": "Sky?", "output": "Blue", "system": "Be brief.", "history": []},
            "alpaca",
            SFTExample(PROMPT_WITH_SYSTEM, REPLY),
        ),
        (
            {"instruction": "Sky?", "chosen": "Blue", "rejected": "Green", "weight": 2},
            "alpaca",
            Preference(PROMPT, REPLY, REJECTED, weight=2),
        ),
        ({"instruction": "Sky?", "output": "Blue", "kto_tag": True}, "alpaca", ScoredCompletion(PROMPT, REPLY, 1.0)),
    ],
)
def test_sharegpt_and_alpaca_are_detected_by_their_keys(row: Any, format: str, expected: Any, tmp_path: Path) -> None:
    reading = read_file(lines(tmp_path / "x.jsonl", row))
    assert (reading.format, reasons(reading)) == (format, [])
    (produced,) = reading.examples
    assert (type(produced), produced.prompt) == (type(expected), expected.prompt)
    assert replace(produced, feedback_ids=()) == expected


def test_sharegpt_function_calls_become_tool_messages(tmp_path: Path) -> None:
    call = {"from": "function_call", "value": '{"name": "look", "arguments": {"where": "up"}}'}
    tools = [{"type": "function", "function": {"name": "look"}}]
    turns = [HUMAN, call, {"from": "observation", "value": "blue"}, GPT]
    rows = [{"conversations": talk, "tools": json.dumps(tools)} for talk in (turns, turns[:2])]
    whole, called = examples(lines(tmp_path / "x.jsonl", *rows))
    assert isinstance(whole, SFTExample) and isinstance(called, SFTExample)
    assert [(entry.role, entry.content, entry.extra) for entry in whole.prompt.messages[1:]] == [
        ("assistant", "", {"tool_calls": [CALL]}),
        ("tool", "blue", {}),
    ]
    assert whole.prompt.tools == tuple(tools)
    assert called.completion == Completion("", extra={"tool_calls": [CALL]})


def test_alpaca_prompt_is_history_instruction_and_input(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "Blau", "output": "Blue", "history": [["Hi.", "Yes?"]]}
    (demonstrated,) = examples(lines(tmp_path / "x.jsonl", row))
    assert [(entry.role, entry.content) for entry in demonstrated.prompt.messages] == [
        ("user", "Hi."),
        ("assistant", "Yes?"),
        ("user", "Translate.\nBlau"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": [GPT]}, "'conversations' holds no message before the reply"),
        ({"conversations": [HUMAN, GPT, HUMAN]}, "'conversations' does not end with a message of the assistant"),
        ({"conversations": [{"from": "narrator", "value": "x"}, GPT]}, "a turn from 'narrator', not human, user, "),
        (
            {"conversations": [HUMAN, {**GPT, "weight": 0}]},
            "a message of 'conversations' has 'weight', which marks messages for the loss",
        ),
        (
            {"conversations": [HUMAN, {"from": "function_call", "value": "look()"}]},
            "a turn from 'function_call' is not a JSON",
        ),
        (
            {"conversations": [{"from": "system", "value": "x"}, HUMAN, GPT], "system": "y"},
            "'system' differs from the first",
        ),
        ({"conversations": [HUMAN], "chosen": "Blue", "rejected": "Green"}, "'chosen' holds no messages"),
        ({"conversations": [HUMAN, GPT], "kto_tag": "good"}, "'kto_tag' is 'good', not true or false"),
        ({"instruction": "Sky?", "output": ""}, "empty reply in 'output'"),
        ({"instruction": "Sky?", "output": "Blue", "history": ["Hi."]}, "'history' is not a list of pairs"),
        ({"instruction": "Sky?", "chosen": "Blue", "rejected": "Blue"}, "identical replies"),
    ],
)
def test_broken_sharegpt_and_alpaca_rows_have_reasons(row: Any, reason: str, tmp_path: Path) -> None:
    ((_, expected),) = reasons(read_file(lines(tmp_path / "x.jsonl", row)))
    assert expected.startswith(reason)


# Small tables


@pytest.mark.parametrize("mark", [",", "\t"])
@pytest.mark.parametrize(
    ("head", "cells", "format", "expected"),
    [
        ("prompt,completion", "Sky?,Blue", "prompt-completion", SFTExample(Prompt.plain("Sky?"), REPLY)),
        ("prompt,completion,label", "Sky?,Blue,1", "unpaired", ScoredCompletion(Prompt.plain("Sky?"), REPLY, 1.0)),
        (
            "prompt,completion,label,weight",
            "Sky?,Blue,No,0.5",
            "unpaired",
            ScoredCompletion(Prompt.plain("Sky?"), REPLY, 0.0, 0.5),
        ),
        (
            "prompt,completion,rating,weight",
            "Sky?,Blue,4,",
            "rating",
            ScoredCompletion(Prompt.plain("Sky?"), REPLY, 0.5),
        ),
        ("instruction,input,output", "Sky?,,Blue", "alpaca", SFTExample(Prompt.ask("Sky?"), REPLY)),
        ("prompt,chosen,rejected", "Sky?,Blue,Green", "csv", Preference(Prompt.plain("Sky?"), REPLY, REJECTED)),
    ],
)
def test_table_format_is_detected_by_its_header(
    head: str, cells: str, mark: str, format: str, expected: Any, tmp_path: Path
) -> None:
    path = tmp_path / ("x.tsv" if mark == "\t" else "x.csv")
    path.write_text(f"{head}\n{cells}\n".replace(",", mark))
    reading = read_file(path)
    assert (reading.format, reasons(reading)) == (format, [])
    (produced,) = reading.examples
    assert produced.prompt.messages == expected.prompt.messages
    assert replace(produced, feedback_ids=(), prompt=expected.prompt) == expected


def test_table_of_prompts_is_prompt_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("prompt,category\nSky?,knowledge\nSea?,\n")
    status, out, _ = run_command(capsys, "import", tmp_path / "x.csv", "--run", tmp_path / "run")
    assert status == 0 and "2 of 2 rows read as prompt-only (detected)" in out
    with Store.open(tmp_path / "run" / "feedback.db") as store:
        assert list(store.prompts()) == [Prompt.ask("Sky?", "knowledge", "x.csv"), Prompt.ask("Sea?", "", "x.csv")]


@pytest.mark.parametrize(("cell", "reason"), [("maybe", "'label' is 'maybe', not true or false"), ("", "no 'label'")])
def test_invalid_label_cell_is_named(cell: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"prompt,completion,label\nSky?,Blue,{cell}\nSky?,Blue,true\n")
    ((location, expected),) = reasons(read_file(tmp_path / "x.csv"))
    assert location == "x.csv:2" and expected.startswith(reason)


# Replies that repeat the prompt


def test_replies_that_repeat_the_prompt_lose_it(tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": [USER, BLUE], "rejected": [USER, GREEN]}
    assert examples(lines(tmp_path / "x.jsonl", row)) == examples(
        lines(tmp_path / "x.jsonl", {**row, "chosen": [BLUE], "rejected": [GREEN]})
    )
    second = {**USER, "content": "Sea?"}
    path = lines(tmp_path / "x.jsonl", {**row, "rejected": [second, GREEN]})
    assert reasons(read_file(path)) == [
        ("x.jsonl:1", "'rejected' holds 2 messages and does not begin with those of the prompt")
    ]


# Columns with another meaning


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"category": 3}, "'category' is int, not text"),
        ({"weight": "0.5"}, "'weight' is '0.5', not a number"),
        ({"weight": -1}, "'weight' is -1, less than 0"),
        ({"margin": "large"}, "'margin' is 'large', not a number"),
        ({"p_chosen": 7}, "'p_chosen' is 7, not a probability"),
    ],
)
def test_ignore_advice_for_an_invalid_column_works(
    extra: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "x.jsonl", *({**row, **extra} for row in ROWS))
    (key,) = extra
    status, out, _ = run_command(capsys, "import", path, "--run", tmp_path / "run")
    assert status == 2 and f"5  {expected}: 'assent import --ignore {key}' leaves it out: x.jsonl:1, " in out
    status, out, _ = run_command(capsys, "import", path, "--run", tmp_path / "run", "--ignore", key)
    assert status == 0 and f"5 of 5 rows read as preference (detected)\n  not read: {key} (5 rows)\n" in out


@pytest.mark.parametrize(("row", "key"), [({"label": 7}, "label"), ({"rating": 9}, "rating")])
def test_ignore_advice_for_an_unread_judgement_works(
    row: dict[str, Any], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "x.jsonl", {"prompt": "Sky?", "completion": "Blue", **row})
    ((_, expected),) = reasons(read_file(path))
    assert expected.endswith(f"'assent import --ignore {key}' leaves it out")
    status, out, _ = run_command(capsys, "import", path, "--run", tmp_path / "run", "--ignore", key)
    assert status == 0 and "read as prompt-completion (detected)" in out


def test_unusual_category_and_zero_weight_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "x.jsonl", *({**row, "category": "train", "weight": 0} for row in ROWS))
    _, out, _ = run_command(capsys, "import", path, "--run", tmp_path / "run")
    hint = "if the column is not a category, leave it out with --ignore category"
    assert f"\n  category train of 5 prompts: {hint}\n" in out
    assert "\n  5 judgements: a weight of 0: not used in training\n" in out
    _, out, _ = run_command(capsys, "import", path, "--run", tmp_path / "other", "--ignore", "category,weight")
    assert "category train" not in out and "judgements:" not in out


def test_ignored_message_key_applies_to_sharegpt_turns(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {"conversations": [HUMAN, {**GPT, "weight": 1}], "weight": 2})
    (reading,) = stored(sniff(path, ignore=["messages.weight"]))
    (demonstrated,) = reading.examples
    assert (demonstrated.weight, reading.skipped) == (2, ())


def test_events_in_any_order_without_an_ignored_column(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        import_file(lines(tmp_path / "x.jsonl", *ROWS), store)
        write_file(store, tmp_path / "events.jsonl", "events")
    rows = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    path = lines(tmp_path / "shuffled.jsonl", *({**row, "flags": 7} for row in reversed(rows)))
    assert {reason for _, reason in reasons(read_file(path))} == {"'flags' is int, not a list of texts"}
    (reading,) = stored(sniff(path, ignore=["flags"]))
    assert (reading.skipped, reading.num_used) == ((), len(rows))
