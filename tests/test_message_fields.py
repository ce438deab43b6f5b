"""Extra message keys are stored, reported or refused; ids do not change."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_exchange import lines, reasons, round_trip

from assent.cli import main
from assent.errors import AssentError
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import import_file, insert_examples, read_file
from assent.formats.files.sniffing import FORMATS, sniff
from assent.preferences import convert
from assent.records import (
    Completion,
    Example,
    Feedback,
    Message,
    Preference,
    Prompt,
    Response,
    SFTExample,
    Task,
)
from assent.store.database import Store
from assent.training.texts import read_texts

USER = {"role": "user", "content": "Sky?"}
SYSTEM = {"role": "system", "content": "Be brief."}
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("Blue", "Green"))
CALL = {"type": "function", "function": {"name": "look", "arguments": {"where": "up"}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SEEN = {"role": "tool", "content": "blue", "tool_call_id": "c1", "name": "look"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
THOUGHT = {**BLUE, "reasoning_content": "Light scatters."}


def only(path: Path) -> Example:
    reading = read_file(path)
    assert reasons(reading) == []
    (example,) = reading.examples
    return example


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


# Stored keys


@pytest.mark.parametrize(
    "key", ["reasoning_content", "reasoning", "thinking", "tool_plan", "tool_call_id", "function_call", "name"]
)
def test_message_keys_of_templates_are_kept(key: str, tmp_path: Path) -> None:
    row = {"messages": [USER, {**BLUE, key: "x"}, {**USER, "tool_calls": None, key: ""}, {**GREEN, "name": []}]}
    example = only(lines(tmp_path / "x.jsonl", row))
    assert isinstance(example, SFTExample)
    assert [message.extra for message in example.prompt.messages] == [{}, {key: "x"}, {}]
    assert example.completion == Completion("Green")


def test_tool_call_is_a_completion_and_tools_are_the_prompts(tmp_path: Path) -> None:
    row = {"messages": [SYSTEM, USER, CALLS], "tools": [TOOL]}
    example = only(lines(tmp_path / "x.jsonl", row))
    assert isinstance(example, SFTExample)
    assert example.completion == Completion("", extra={"tool_calls": [CALL]})
    assert example.prompt.tools == (TOOL,)
    assert example.prompt.id != Prompt(example.prompt.messages).id
    spelt = only(lines(tmp_path / "x.jsonl", {**row, "tools": json.dumps([TOOL])}))
    assert spelt.prompt == example.prompt


def test_completion_of_reasoning_only_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {"messages": [USER, {**THOUGHT, "content": ""}]})
    assert reasons(read_file(path)) == [("x.jsonl:1", "empty reply in 'messages'")]


ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("language-modelling", {"messages": [SYSTEM, USER, CALLS, SEEN, THOUGHT]}),
    ("prompt-completion", {"prompt": [SYSTEM, USER, CALLS, SEEN], "completion": [THOUGHT]}),
    ("preference", {"prompt": [SYSTEM, USER, CALLS, SEEN], "chosen": [THOUGHT], "rejected": [CALLS]}),
    ("preference-implicit", {"chosen": [USER, CALLS, SEEN, THOUGHT], "rejected": [USER, CALLS, SEEN, BLUE]}),
    ("ranking", {"prompt": [USER], "completions": [[THOUGHT], [BLUE], [CALLS]], "ranks": [1, 2, 3]}),
    ("rating", {"prompt": [USER], "completion": [CALLS], "rating": 7}),
    ("unpaired", {"prompt": [USER], "completion": [THOUGHT], "label": True}),
)


@pytest.mark.parametrize(("format", "row"), ROWS)
def test_message_fields_round_trip_through_the_store(format: str, row: dict[str, Any], tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", {**row, "tools": [TOOL]})
    with Store.open(tmp_path / "store.db") as store:
        reading = import_file(path, store)
        assert (reading.format, reading.skipped) == (format, ())
        examples = convert.to_examples(store.feedback(), store.tasks(), store.prompts(), store.responses())
    assert examples == list(reading.examples)
    assert [key for key in ("tool_calls", "reasoning_content", "tool_call_id") if key in str(row)] == [
        key for key in ("tool_calls", "reasoning_content", "tool_call_id") if key in str(examples)
    ]
    back = round_trip(examples, format)
    assert back and back.skipped == ()
    assert [event.judgement for event in back.feedback] == [event.judgement for event in reading.feedback]
    assert {prompt.id for prompt in back.prompts} == {reading.prompts[0].id}


def test_openai_keeps_tools_and_names_unread_keys(tmp_path: Path) -> None:
    request = {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True}
    row = {"input": request, "preferred_output": [CALLS], "non_preferred_output": [BLUE]}
    path = lines(tmp_path / "x.jsonl", row)
    pair = only(path)
    assert isinstance(pair, Preference) and pair.prompt.tools == (TOOL,) and pair.chosen.extra == {"tool_calls": [CALL]}
    assert sniff(path).unread_counts == {}
    assert sniff(lines(path, {**row, "input": {**request, "seed": 3}})).unread_counts == {"input.seed": 1}
    back = round_trip([pair], "openai-preference")
    assert back and back.prompts[0].tools == (TOOL,)


JSON_CALL = {"type": "function", "function": {"name": "look", "arguments": '{"where": "up"}'}}
"""`CALL` as OpenAI spells it."""


def test_json_arguments_of_tool_calls_become_objects(tmp_path: Path) -> None:
    spelt = {**CALLS, "tool_calls": [JSON_CALL]}
    flat = {**CALLS, "tool_calls": [JSON_CALL["function"]]}
    rows = [{"messages": [USER, spelt, SEEN, USER, spelt]}, {"messages": [USER, flat]}]
    old = {"role": "assistant", "content": None, "function_call": JSON_CALL["function"]}
    talk, plain, older = read_file(lines(tmp_path / "x.jsonl", *rows, {"messages": [USER, old]})).examples
    assert isinstance(talk, SFTExample) and isinstance(plain, SFTExample) and isinstance(older, SFTExample)
    assert talk.prompt.messages[1].extra == talk.completion.extra == {"tool_calls": [CALL]}
    assert plain.completion.extra == {"tool_calls": [CALL["function"]]}
    assert older.completion.extra == {"function_call": CALL["function"]}
    turns = [{"from": "human", "value": "Sky?"}, {"from": "function_call", "value": json.dumps(JSON_CALL["function"])}]
    shared = only(lines(tmp_path / "y.jsonl", {"conversations": turns}))
    assert isinstance(shared, SFTExample) and shared.completion.extra == {"tool_calls": [CALL]}


@pytest.mark.parametrize(
    "arguments", ["up", "", '["up"]', '{"where": NaN}', '{"where": "up"', "[" * 100_000, None, ["up"]]
)
def test_other_arguments_of_tool_calls_are_kept(arguments: Any, tmp_path: Path) -> None:
    call = {"function": {"name": "look", "arguments": arguments}}
    example = only(lines(tmp_path / "x.jsonl", {"messages": [USER, {**CALLS, "tool_calls": [call, 3]}]}))
    assert isinstance(example, SFTExample) and example.completion.extra == {"tool_calls": [call, 3]}


def test_openai_export_writes_arguments_as_text(tmp_path: Path) -> None:
    spelt = {**CALLS, "tool_calls": [JSON_CALL]}
    request = {"messages": [USER, spelt, SEEN], "tools": [TOOL]}
    pair = only(
        lines(tmp_path / "x.jsonl", {"input": request, "preferred_output": [BLUE], "non_preferred_output": [spelt]})
    )
    assert isinstance(pair, Preference) and pair.rejected.extra == {"tool_calls": [CALL]}
    assert write_file([pair], tmp_path / "y.jsonl", "openai-preference") == (1, ())
    row = json.loads((tmp_path / "y.jsonl").read_text())
    assert row["input"]["messages"][1]["tool_calls"] == row["non_preferred_output"][0]["tool_calls"] == [JSON_CALL]
    assert write_file([pair], tmp_path / "z.jsonl", "preference") == (1, ())
    assert json.loads((tmp_path / "z.jsonl").read_text())["rejected"][0]["tool_calls"] == [CALL]


def test_tasks_about_tool_calls_keep_them(tmp_path: Path) -> None:
    row = {"prompt": [USER], "tools": [TOOL], "responses": [[CALLS], [THOUGHT], [BLUE]]}
    path = lines(tmp_path / "x.jsonl", row)
    with Store.open(tmp_path / "store.db") as store:
        import_file(path, store)
        assert [item.extra for item in store.responses()] == [
            {"tool_calls": [CALL]},
            {"reasoning_content": "Light scatters."},
            {},
        ]
        assert write_file(store, tmp_path / "y.jsonl", "prompt-responses") == (1, ())
        assert read_file(tmp_path / "y.jsonl").tasks == read_file(path).tasks


def test_pair_may_differ_in_tool_calls_only(tmp_path: Path) -> None:
    second_call = {
        **CALLS,
        "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"where": "down"}}}],
    }
    pair = only(lines(tmp_path / "x.jsonl", {"prompt": [USER], "chosen": [CALLS], "rejected": [second_call]}))
    assert isinstance(pair, Preference) and pair.chosen != pair.rejected
    path = lines(tmp_path / "x.jsonl", {"prompt": [USER], "chosen": [CALLS], "rejected": [CALLS]})
    assert reasons(read_file(path)) == [("x.jsonl:1", "identical replies")]


# Refused keys


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"messages": [USER, {**BLUE, "weight": 0}]},
            (
                "a message of 'messages' has 'weight', which marks messages for the loss, but assent trains "
                "on the last message only: 'assent import --ignore messages.weight' leaves it out"
            ),
        ),
        (
            {"prompt": [{**USER, "message_id": "m1"}], "completion": [BLUE]},
            (
                "a message of 'prompt' has 'message_id', which assent does not read: "
                "'assent import --ignore messages.message_id' leaves it out"
            ),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, BLUE]},
            "'content' has a part of type 'image_url', but assent reads text only",
        ),
        (
            {"messages": [{"role": "text", "content": "Sky?"}, BLUE]},
            "a message of 'messages' has the role 'text', which is reserved for prompts without messages",
        ),
        (
            {"prompt": "Sky?", "completion": "Blue", "tools": [TOOL]},
            "'tools' with a prompt that is text: write the prompt as messages",
        ),
        ({"messages": [USER, BLUE], "tools": "look"}, "'tools' is text, but not JSON"),
        ({"messages": [USER, BLUE], "tools": {"name": "look"}}, "'tools' is not a list of objects"),
        ({"messages": [USER, {**BLUE, "thinking": "\ud800"}]}, "'messages' contains an unpaired surrogate"),
    ],
)
def test_unsupported_message_keys_refuse_the_row(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    assert reasons(read_file(lines(tmp_path / "x.jsonl", row))) == [("x.jsonl:1", reason)]


def test_ptx_texts_refused_by_the_template_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.make(tmp_path / "model")
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + tiny.CHATML
    (tmp_path / "model" / "chat_template.jinja").write_text(strict)
    chat_tokenizer = tiny.load(tmp_path / "model").chat_tokenizer
    refused_row = {"messages": [SYSTEM, USER, BLUE]}
    path = lines(tmp_path / "x.jsonl", {"messages": [USER, BLUE]}, refused_row, {"messages": [SYSTEM, USER, GREEN]})
    assert len(read_texts(str(path), chat_tokenizer, 64)) == 1
    warned = capsys.readouterr().err
    assert warned.startswith("note: 2 rows that cannot be encoded are left out; the first, 'Sky?': ")
    assert warned.count("\n") == 1 and "no system turn" in warned
    with pytest.raises(
        AssentError, match=r"context of 64 tokens; 1 cannot be encoded, the first 'Sky\?': .*no system turn"
    ):
        read_texts(str(lines(path, refused_row)), chat_tokenizer, 64)


def test_text_parts_of_a_message_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Sk"}, {"type": "text", "text": "y?"}]
    example = only(lines(tmp_path / "x.jsonl", {"messages": [{"role": "user", "content": parts}, BLUE]}))
    assert example.prompt.text == "Sky?"


def test_ignored_message_key_is_dropped_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = {**CALL, "id": "c1"}
    row = {"prompt": [{**USER, "id": 1}], "chosen": [{**CALLS, "tool_calls": [call], "id": 2}], "rejected": [BLUE]}
    path = lines(tmp_path / "x.jsonl", {**row, "weight": 2, "tools": [{**TOOL, "role": "x", "id": 7}]})
    run = tmp_path / "run"
    status, out, _ = run_command(capsys, "import", path, "--run", run, "--ignore", "messages.id")
    assert status == 0 and "\n  not read: messages.id (1 row)\n" in out
    with Store.open(run / "feedback.db") as store:
        assert store.prompts()
        (prompt,) = store.prompts()
        (event,) = store.feedback()
        calls = [item.extra for item in store.responses() if item.extra]
    assert prompt.messages == (Message("user", "Sky?"),) and prompt.tools == ({**TOOL, "role": "x", "id": 7},)
    assert calls == [{"tool_calls": [call]}], "what stands inside a call is the call's own"
    assert isinstance(event.judgement, Comparison) and event.judgement.weight == 2
    with pytest.raises(AssentError, match=r"no key 'messages\.ident' to ignore"):
        sniff(path, ignore=["messages.ident"])


@pytest.mark.parametrize("format", ["hh-rlhf"])
def test_hh_rlhf_export_skips_unsupported_fields(format: str, tmp_path: Path) -> None:
    talk = Prompt.ask("Sky?")
    tools = Prompt((Message("user", "Sky?"),), tools=(TOOL,))
    pairs = [
        Preference(talk, Completion("Blue", extra={"thinking": "Hm."}), Completion("Green")),
        Preference(tools, Completion("Blue"), Completion("Green")),
        Preference(talk, Completion("Blue"), Completion("Green")),
    ]
    written = write_file(pairs, tmp_path / "x.jsonl", format)
    assert written.num_rows == 1
    assert [entry.reason for entry in written.skipped] == [
        "a message with 'thinking', which this format cannot hold",
        "a prompt with tools, which this format cannot hold",
    ]


@pytest.mark.parametrize("format", ["csv", "label-studio", "argilla"])
def test_labelling_exports_skip_unsupported_fields(format: str, tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": [THOUGHT], "rejected": [BLUE]}
    with Store.open(tmp_path / "store.db") as store:
        import_file(lines(tmp_path / "x.jsonl", row), store)
        import_file(lines(tmp_path / "y.jsonl", {"messages": [USER, CALLS]}), store)
        written = write_file(store, tmp_path / "out", format)
    assert written.num_rows == 0
    assert [entry.reason for entry in written.skipped] == [
        "a message with 'reasoning_content', which this format cannot hold",
        "a message with 'tool_calls', which this format cannot hold",
    ]


def test_token_ids_do_not_prevent_an_export(tmp_path: Path) -> None:
    sampled = Completion("Blue", token_ids=(4, 7), tokenizer="t")
    assert write_file([SFTExample(Prompt.ask("Sky?"), sampled)], tmp_path / "x.jsonl", "prompt-completion") == (1, ())


# The store and its events


def test_events_keep_message_fields_and_token_ids(tmp_path: Path) -> None:
    prompt = Prompt((Message("user", "Sky?"), Message("tool", "", {"name": "look"})), "creative", "quiz", (TOOL,))
    called = Response(prompt.id, "", "sft", True, "seed 3", {"tool_calls": [CALL]}, (5, 6, 2), "fingerprint")
    plain = Response(prompt.id, "Blue", "sft", token_ids=(7, 2), tokenizer="fingerprint")
    query = Task("demonstration", prompt.id, ())
    event = Feedback(query.id, "ann", Demonstration("", 1.0, '{"tool_calls": []}'), "2026-11-20T10:00:00Z")
    with Store.open(tmp_path / "one.db") as first, Store.open(tmp_path / "two.db") as two:
        first.add_prompts([prompt])
        first.add_responses([called, plain])
        first.add_tasks([query])
        first.add_feedback([event])
        write_file(first, tmp_path / "events.jsonl", "events")
        for _ in range(2):
            assert import_file(tmp_path / "events.jsonl", two).skipped == ()
        assert list(two.prompts()) == [prompt]
        assert list(two.responses()) == [called, plain]
        assert [(entry.token_ids, entry.tokenizer) for entry in two.responses()] == [
            ((5, 6, 2), "fingerprint"),
            ((7, 2), "fingerprint"),
        ]
        assert list(two.feedback()) == [event]
        write_file(two, tmp_path / "again.jsonl", "events")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "events.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token_ids": [1, "2"]}, "'token_ids' is not a list of integers"),
        ({"token_ids": [1, True]}, "'token_ids' is not a list of integers"),
        ({"token_ids": [1, 2.0]}, "'token_ids' is not a list of integers"),
        ({"token_ids": [1, -1]}, "'token_ids' is not a list of integers"),
        ({"extra": [1]}, "'extra' is list, not an object"),
        ({"extra": {"thinking": "Hm."}}, "its content has id "),
    ],
)
def test_events_refuse_an_invalid_response(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    prompt = Prompt.ask("Sky?")
    with Store.open(tmp_path / "one.db") as store:
        store.add_prompts([prompt])
        store.add_responses([Response(prompt.id, "Blue", "sft")])
        write_file(store, tmp_path / "x.jsonl", "events")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    ((_, reason_text),) = reasons(read_file(lines(tmp_path / "x.jsonl", rows[0], {**rows[1], **changes})))
    assert reason_text.startswith(reason)


def test_python_preference_keeps_tool_calls_and_token_ids(tmp_path: Path) -> None:
    called = Completion("", False, {"tool_calls": [CALL]}, (3, 4), "t")
    preferences = [Preference(Prompt.ask("Sky?"), called, Completion("Blue"))]
    with Store.open(tmp_path / "store.db") as store:
        insert_examples(preferences, store, "python")
        assert [item.completion for item in store.responses()] == [called, Completion("Blue")]
        assert next(iter(store.responses())).token_ids == (3, 4)
        same = Preference(Prompt.ask("Sky?"), Completion("Blue"), Completion("Blue", False))
        with pytest.raises(AssentError, match="prefers a completion to itself: 'Blue'"):
            insert_examples([same], store, "python")


def test_content_ids_without_message_fields_are_unchanged(tmp_path: Path) -> None:
    """Compare with ids of the commit before messages had other keys (5ec97d8)."""
    pairs = lines(
        tmp_path / "pairs.jsonl",
        {"prompt": [SYSTEM, USER], "chosen": [BLUE], "rejected": [GREEN], "margin": 0.5},
        {"prompt": "The sky is", "chosen": " blue", "rejected": " green"},
    )
    examples_path = lines(tmp_path / "shown.jsonl", {"messages": [USER, BLUE]}, {"text": "The sky is blue"})
    reading = read_file(pairs)
    assert [entry.id for entry in reading.prompts] == ["794e033a0ae4d6385d9b", "fee237661a37fa5d9dd6"]
    assert [entry.id for entry in reading.responses] == [
        *("fdf2bb71ad63bdc8b922", "1f98d7776e2b21a6f440", "61b6b5190827317c9ffd", "ffbe2535c91274ba5fa5")
    ]
    assert [entry.id for entry in reading.tasks] == ["f8402e0c68065d71c27d", "3c14bd5aece524b5e7db"]
    assert [entry.id for entry in reading.feedback] == ["d6d7884e9e61799ba866", "fd48ee113f38fe0b2ba4"]
    assert [entry.id for entry in read_file(examples_path).feedback] == ["d3b7e650e6c5031ac7b3", "602863b2b31345b63b48"]
    assert Feedback("q", "ann", Demonstration("So."), "2026").id == "2c2940a24cfaef6586bc"
    assert Feedback("q", "ann", Comparison("a"), "2026").id == "0aadd7d1e2d66fb77252"
    table = tmp_path / "x.csv"
    table.write_text("prompt,response,demonstration\nName a fish.,,A carp.\n")
    (event,) = read_file(table).feedback
    assert event.id == "5830f228c85446b474bf"
    with Store.open(tmp_path / "store.db") as store:
        for path in (pairs, examples_path):
            import_file(path, store)
        write_file(store, tmp_path / "events.jsonl", "events")
    rows = [_with_old_keys(json.loads(line)) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    old = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    digest = hashlib.sha256(old.encode()).hexdigest()
    assert digest == "885d2189df54d674d2d871c3af297345efaf846bc9e1a1e1f881bf2e6d8d6fcf"


def _with_old_keys(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of events with the keys of that commit."""
    old = {
        "task": "query",
        "judgement": "answer",
        "created_at": "at",
        "duration": "seconds",
        "display_order": "shown",
        "comment": "note",
        "category": "mode",
    }
    if row["record"] == "task":
        row["record"] = "query"
    if row["record"] == "feedback":
        assert row.pop("source") == "human"
    return {old.get(key, key): value for key, value in row.items()}


def test_read_only_format_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "x.jsonl", {"instruction": "Name a fish.", "output": "A carp."})
    assert run_command(capsys, "import", path, "--run", tmp_path / "run")[0] == 0
    out = tmp_path / "out.jsonl"
    status, _, err = run_command(capsys, "export", out, "--run", tmp_path / "run", "--format", "alpaca")
    assert status == 2 and "alpaca cannot hold what" in err and "prompt-completion" in err
    assert not out.exists() and not FORMATS["alpaca"].record_types
