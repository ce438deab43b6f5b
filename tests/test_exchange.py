"""Import and export, on real data and on broken rows of every kind."""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.formats.files.exporting import write_file
from assent.formats.files.importing import import_file, read_file
from assent.formats.files.results import ImportResult
from assent.formats.files.sniffing import FORMATS
from assent.preferences import convert
from assent.records import (
    Completion,
    Example,
    Feedback,
    Message,
    Preference,
    Prompt,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    Task,
)
from assent.store.database import Store

DATA = Path(__file__).parent / "data"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
REPLY_TEXT = st.one_of(
    TEXT, st.sampled_from(["a\n\nHuman: b", "\n\nAssistant: c", "\u2028", "\r\n", " x", "x ", '"', "\0"])
).filter(lambda text: bool(text.strip()))
TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=4)
PROMPTS = st.one_of(
    st.builds(Prompt.plain, TEXT), st.builds(Prompt, TURNS.map(tuple), st.sampled_from(["", "creative"]))
).filter(lambda prompt: any(message.content.strip() for message in prompt.messages))
WEIGHTS = st.sampled_from([1.0, 0.25])
REPLIES = st.builds(Completion, REPLY_TEXT)
PAIRS = st.builds(
    Preference, PROMPTS, REPLIES, REPLIES, st.sampled_from([1.0, 0.75]), st.sampled_from([0.0, 1.5]), WEIGHTS
)
PREFERENCES = PAIRS.filter(lambda pair: pair.chosen.text.split() != pair.rejected.text.split())
LABELS = st.builds(ScoredCompletion, PROMPTS, REPLIES, st.sampled_from([0.0, 1.0]), WEIGHTS)
IMITATIONS = st.builds(SFTExample, PROMPTS, REPLIES, WEIGHTS)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def multiset(examples: Iterable[Example]) -> Counter[Example]:
    """Count examples without their sources; the messages identify a prompt, as in the store."""
    return Counter(replace(entry, prompt=Prompt(entry.prompt.messages), feedback_ids=()) for entry in examples)


def round_trip(examples: list[Any], format: str, name: str = "file.jsonl") -> ImportResult | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if write_file(examples, path, format).num_rows == 0:
            return None
        return read_file(path, format)


def reasons(reading: ImportResult) -> list[tuple[str, str]]:
    return [(rejected.location, rejected.reason) for rejected in reading.skipped]


# Real data


@pytest.mark.parametrize(
    ("name", "rows", "unshared", "further", "identical", "empty", "longer"),
    [
        ("harmless_base", 49, 4, 1, 0, 4, 22),
        ("helpful_base", 75, 2, 7, 2, 4, 35),
        ("helpful_rejection_sampled", 53, 1, 2, 10, 0, 24),
    ],
)
def test_every_hh_rlhf_row_is_read_or_named(
    name: str, rows: int, unshared: int, further: int, identical: int, empty: int, longer: int
) -> None:
    reading = read_file(DATA / f"hh_rlhf_{name}.jsonl.gz")
    count = Counter(" ".join(rejected.reason.split()[:2]) for rejected in reading.skipped)
    expected = {"no shared": unshared, "'rejected' has": further, "identical replies": identical, "empty reply": empty}
    assert count == Counter({reason: number for reason, number in expected.items() if number})
    assert reading.format == "hh-rlhf"
    assert reading.num_rows == rows == len(reading.examples) + len(reading.skipped)
    pairs = [entry for entry in reading.examples if isinstance(entry, Preference)]
    assert len(pairs) == len(reading.examples)
    assert sum(len(pair.chosen.text) > len(pair.rejected.text) for pair in pairs) == longer
    assert all(pair.prompt.messages[0].role == pair.prompt.messages[-1].role == "user" for pair in pairs)


def test_hh_rlhf_transcript_keeps_every_word() -> None:
    source = DATA / "hh_rlhf_helpful_base.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(source.read_bytes()).decode().split("\n") if line]
    reading = read_file(source)
    broken = {int(rejected.location.rpartition(":")[2]) - 1 for rejected in reading.skipped}
    good = [row for number, row in enumerate(rows) if number not in broken]
    names = {"user": "Human", "assistant": "Assistant"}
    for row, pair in zip(good, reading.examples, strict=True):
        assert isinstance(pair, Preference)
        before = "".join(f"\n\n{names[turn.role]}: {turn.content}" for turn in pair.prompt.messages)
        for side, text in (("chosen", pair.chosen.text), ("rejected", pair.rejected.text)):
            assert f"{before}\n\nAssistant: {text}" == row[side]


def test_repeated_import_changes_nothing_and_export_returns_it(tmp_path: Path) -> None:
    source = DATA / "hh_rlhf_helpful_base.jsonl.gz"
    with Store.open(tmp_path / "store.db") as store:
        reading = import_file(source, store)
        counts = store.counts()
        assert import_file(source, store) == reading
        assert store.counts() == counts
        assert counts.feedback == len(reading.examples) == 60
        produced = convert.to_examples(store.feedback(), store.tasks(), store.prompts(), store.responses())
        assert produced == list(reading.examples)
    assert write_file(produced, tmp_path / "out.jsonl.gz", "preference") == (60, ())
    assert multiset(read_file(tmp_path / "out.jsonl.gz").examples) == multiset(produced)
    assert write_file(produced, tmp_path / "hh.jsonl", "hh-rlhf") == (60, ())
    again = read_file(tmp_path / "hh.jsonl")
    assert (again.format, multiset(again.examples)) == ("hh-rlhf", multiset(produced))


def test_imported_preference_is_a_comparison_of_two_responses(tmp_path: Path) -> None:
    file = lines(tmp_path / "pairs.jsonl", {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"})
    with Store.open(tmp_path / "store.db") as store:
        assert str(import_file(file, store)) == "1 of 1 rows read as preference"
        (prompt,) = store.prompts()
        good, bad = store.responses()
        (task,) = store.tasks()
        (event,) = store.feedback()
    assert prompt == Prompt.plain("2 + 2 =", source="pairs.jsonl")
    assert [(entry.text, entry.policy) for entry in (good, bad)] == [(" 4", POLICY), (" 5", POLICY)]
    assert (task.kind, set(task.items), task.purpose) == ("comparison", {good.id, bad.id}, "train")
    assert (event.judgement, event.annotator) == (Comparison(good.id), POLICY)


POLICY = "imported:pairs.jsonl"


def test_task_item_order_does_not_reveal_the_preference() -> None:
    pairs = [Preference(Prompt.plain(str(n)), Completion("right"), Completion("wrong")) for n in range(400)]
    reading = round_trip(pairs, "preference")
    assert reading
    tasks_with_feedback = zip(reading.tasks, reading.feedback, strict=True)
    first = sum(
        isinstance(e.judgement, Comparison) and e.judgement.preferred == q.items[0] for q, e in tasks_with_feedback
    )
    assert 140 <= first <= 260  # 200 +- 6 standard deviations


def test_equal_rows_count_twice(tmp_path: Path) -> None:
    row = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}
    reading = read_file(lines(tmp_path / "pairs.jsonl", row, row))
    assert len({event.id for event in reading.feedback}) == len(reading.examples) == 2
    assert len(reading.tasks) == 1


@pytest.mark.parametrize(
    ("p_chosen", "verdict", "text"), [(0.9, "better", "Blue"), (0.1, "better", "Red"), (0.5, "tie", "")]
)
def test_soft_label_becomes_verdict_with_certainty(tmp_path: Path, p_chosen: float, verdict: str, text: str) -> None:
    row = {"prompt": "Sky?", "chosen": "Blue", "rejected": "Red", "p_chosen": p_chosen, "margin": 0.5, "weight": 3}
    reading = read_file(lines(tmp_path / "pairs.jsonl", row))
    texts = {item.id: item.text for item in reading.responses} | {"": ""}
    (event,) = reading.feedback
    assert isinstance(event.judgement, Comparison)
    assert (event.judgement.verdict, texts[event.judgement.preferred]) == (verdict, text)
    margin = 0.5 if text else 0.0
    assert (event.judgement.certainty, event.judgement.margin, event.judgement.weight) == (
        0.9 if text else 1.0,
        margin,
        3.0,
    )
    (produced,) = convert.to_examples((event,), reading.tasks, reading.prompts, reading.responses)
    assert isinstance(produced, Preference)
    assert (produced.margin, produced.weight) == (margin, 3.0)
    assert (produced.p_chosen if produced.chosen.text == "Blue" else 1 - produced.p_chosen) == pytest.approx(p_chosen)


def test_labels_become_approvals_and_sft_rows_demonstrations(tmp_path: Path) -> None:
    labels = read_file(lines(tmp_path / "a.jsonl", {"prompt": "Sky?", "completion": "Blue", "label": False}))
    demonstrated = read_file(lines(tmp_path / "b.jsonl", {"prompt": "Sky?", "completion": "Blue"}))
    assert labels.examples == (
        ScoredCompletion(labels.prompts[0], Completion("Blue"), 0.0, feedback_ids=(labels.feedback[0].id,)),
    )
    assert labels.feedback[0].judgement == Approval(False)
    assert demonstrated.examples == (
        SFTExample(demonstrated.prompts[0], Completion("Blue"), feedback_ids=(demonstrated.feedback[0].id,)),
    )
    assert (demonstrated.feedback[0].judgement, demonstrated.responses) == (Demonstration("Blue"), ())


# Formats

USER, REPLY, RIVAL = (
    {"role": role, "content": text} for role, text in (("user", "Sky?"), ("assistant", "Blue"), ("assistant", "Green"))
)
CHAT = Prompt.ask("Sky?")
PLAIN = Prompt.plain("The sky is")
KNOWN: tuple[tuple[str, dict[str, Any], Example | Prompt], ...] = (
    (
        "preference",
        {"prompt": "The sky is", "chosen": " blue", "rejected": " green"},
        Preference(PLAIN, Completion(" blue"), Completion(" green")),
    ),
    (
        "preference",
        {"prompt": [USER], "chosen": [REPLY], "rejected": [RIVAL]},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
    (
        "preference",
        {"prompt": "Sky?", "chosen": [USER, REPLY], "rejected": [USER, RIVAL]},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
    (
        "preference",
        {"prompt": "Sea?", "chosen": [USER, REPLY], "rejected": [USER, RIVAL]},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
    (
        "preference-implicit",
        {"chosen": "The sky is blue", "rejected": "The sky is black"},
        Preference(PLAIN, Completion(" blue"), Completion(" black")),
    ),
    (
        "preference-implicit",
        {"chosen": [USER, REPLY], "rejected": [USER, RIVAL]},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
    (
        "ranking",
        {"prompt": "The sky is", "completions": [" green", " blue", " grey"], "ranks": [3, 1, 1]},
        RankedCompletions(PLAIN, ((Completion(" blue"), Completion(" grey")), (Completion(" green"),))),
    ),
    (
        "ranking",
        {"prompt": [USER], "completions": [[REPLY], [RIVAL]], "ranks": [1, 2.5]},
        RankedCompletions(CHAT, ((Completion("Blue"),), (Completion("Green"),))),
    ),
    (
        "rating",
        {"prompt": "The sky is", "completion": " blue", "rating": 4},
        ScoredCompletion(PLAIN, Completion(" blue"), 0.5),
    ),
    ("rating", {"prompt": [USER], "completion": [REPLY], "rating": 7}, ScoredCompletion(CHAT, Completion("Blue"), 1.0)),
    (
        "unpaired",
        {"prompt": "The sky is", "completion": " blue", "label": True},
        ScoredCompletion(PLAIN, Completion(" blue"), 1.0),
    ),
    (
        "unpaired",
        {"prompt": [USER], "completion": [REPLY], "label": 0},
        ScoredCompletion(CHAT, Completion("Blue"), 0.0),
    ),
    ("prompt-completion", {"prompt": "The sky is", "completion": " blue"}, SFTExample(PLAIN, Completion(" blue"))),
    ("prompt-completion", {"prompt": [USER], "completion": [REPLY]}, SFTExample(CHAT, Completion("Blue"))),
    ("language-modelling", {"text": "The sky is blue"}, SFTExample(Prompt.plain(""), Completion("The sky is blue"))),
    ("language-modelling", {"messages": [USER, REPLY]}, SFTExample(CHAT, Completion("Blue"))),
    ("prompt-only", {"prompt": "The sky is", "category": "creative"}, Prompt.plain("The sky is", "creative")),
    ("prompt-only", {"prompt": [USER]}, CHAT),
    (
        "openai-preference",
        {"input": {"messages": [USER]}, "preferred_output": [REPLY], "non_preferred_output": [RIVAL]},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
    (
        "hh-rlhf",
        {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue", "rejected": "\n\nHuman: Sky?\n\nAssistant: Green"},
        Preference(CHAT, Completion("Blue"), Completion("Green")),
    ),
)


@pytest.mark.parametrize(("format", "row", "expected"), KNOWN)
def test_each_format_is_detected_by_its_keys(tmp_path: Path, format: str, row: Any, expected: Example | Prompt) -> None:
    reading = read_file(lines(tmp_path / "file.jsonl", row))
    assert reading.format == format
    if isinstance(expected, Prompt):
        assert reading.prompts == (replace(expected, source="file.jsonl"),)
    else:
        assert multiset(reading.examples) == multiset([expected])


def test_every_format_has_a_detection_test() -> None:
    elsewhere = {"events", "label-studio", "argilla", "csv", "lmarena", "prompt-responses", "sharegpt", "alpaca"}
    elsewhere |= {"helpsteer", "oasst", "prism", "saferlhf", "shp", "summarize-feedback", "ultrafeedback", "webgpt"}
    # below, in test_exchange_formats.py, test_import_refusals.py, test_import_files.py and test_known_data_sets.py
    assert {format for format, _, _ in KNOWN} == set(FORMATS) - elsewhere


def test_conversation_keeps_spaces_and_system_message() -> None:
    prompt = Prompt((Message("system", " Be kind. \n"), Message("user", " Hi\n\nHuman: you ")))
    reading = round_trip([Preference(prompt, Completion(" yes \n"), Completion("\n\nAssistant: no"))], "preference")
    assert reading
    assert multiset(reading.examples) == multiset(
        [Preference(prompt, Completion(" yes \n"), Completion("\n\nAssistant: no"))]
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(PREFERENCES, min_size=1, max_size=5), st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
def test_preferences_round_trip(pairs: list[Preference], name: str) -> None:
    reading = round_trip(pairs, "preference", name)
    assert reading
    assert not reading.skipped
    assert multiset(reading.examples) == multiset(pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=5), st.lists(IMITATIONS, min_size=1, max_size=5))
def test_labels_and_sft_examples_round_trip(labels: list[ScoredCompletion], demonstrated: list[SFTExample]) -> None:
    for examples, format in ((labels, "unpaired"), (demonstrated, "prompt-completion")):
        reading = round_trip(list(examples), format)
        assert reading
        assert not reading.skipped
        assert multiset(reading.examples) == multiset(examples)


@settings(max_examples=60, deadline=None)
@given(st.lists(PREFERENCES, min_size=1, max_size=4), st.sampled_from(["hh-rlhf", "preference-implicit"]))
def test_unsupported_records_are_skipped_by_name_on_export(pairs: list[Preference], format: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        rows, left_out = write_file(pairs, path, format)
        assert rows + len(left_out) == len(pairs)
        skipped = {int(rejected.location.split()[1]) - 1 for rejected in left_out}
        exported = [pair for number, pair in enumerate(pairs) if number not in skipped]
        if exported:
            assert multiset(read_file(path, format).examples) == multiset(exported)


@settings(max_examples=40, deadline=None)
@given(st.lists(PROMPTS, min_size=1, max_size=5, unique_by=lambda prompt: prompt.id))
def test_prompts_round_trip_with_category(prompts: list[Prompt]) -> None:
    reading = round_trip(prompts, "prompt-only")
    assert reading
    assert [replace(prompt, source="") for prompt in reading.prompts] == prompts


def test_tie_and_rating_are_never_altered_on_export(tmp_path: Path) -> None:
    tie = Preference(CHAT, Completion("Blue"), Completion("Azure"), 0.5)
    rating = ScoredCompletion(CHAT, Completion("Blue"), 4.5)
    pairs = write_file(
        [tie, Preference(CHAT, Completion("Green"), Completion("Blue"), 0.25), rating],
        tmp_path / "pairs.jsonl",
        "preference",
    )
    assert pairs.num_rows == 1
    assert [(entry.location, entry.reason) for entry in pairs.skipped] == [
        ("example 1", "a tie, which this format would turn into a random choice"),
        ("example 3", "a scored completion, which this format cannot hold"),
    ]
    assert multiset(read_file(tmp_path / "pairs.jsonl").examples) == multiset(
        [Preference(CHAT, Completion("Blue"), Completion("Green"), 0.75)]
    )
    assert "4.5, which is neither" in write_file([rating], tmp_path / "labels.jsonl", "unpaired").skipped[0].reason


# Events


def test_store_round_trips_through_events(tmp_path: Path) -> None:
    prompts = [Prompt.ask("Sky?", "knowledge", "quiz"), Prompt.plain("\u2028\r\n\0 once", source="tales")]
    items = [
        Response(prompts[0].id, text, policy, False, "seed 3") for policy in ("a", "b") for text in ("Blue", "Red")
    ]
    names = (items[0].id, items[1].id)
    tasks = [Task("ranking", prompts[0].id, names, "gold", "Which?"), Task("comparison", prompts[0].id, names)]
    first = Feedback(tasks[0].id, "ann", Ranking((names[:1], names[1:])), "2026-11-20T10:00:00Z", 2.5, names, "hm")
    events = [first, Feedback(tasks[1].id, "bob", Comparison(names[0], 3), "", supersedes=first.id, id="0192")]
    with Store.open(tmp_path / "one.db") as first_store, Store.open(tmp_path / "two.db") as two:
        first_store.add_prompts(prompts)
        first_store.add_responses(items)
        first_store.add_tasks(tasks)
        first_store.add_feedback(events)
        assert write_file(first_store, tmp_path / "store.jsonl.gz", "events") == (10, ())
        for _ in range(2):
            reading = import_file(tmp_path / "store.jsonl.gz", two)
        assert (reading.format, reading.skipped) == ("events", ())
        assert list(two.prompts()) == prompts
        assert list(two.responses()) == items
        assert list(two.tasks()) == tasks
        assert list(two.feedback()) == events
        write_file(two, tmp_path / "again.jsonl.gz", "events")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == (tmp_path / "store.jsonl.gz").read_bytes()
    assert (tmp_path / "again.jsonl.gz").read_bytes()[4:8] == bytes(4)  # no time in the header


def test_edited_event_also_skips_events_that_refer_to_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Store.open(tmp_path / "store.db") as store:
        import_file(lines(tmp_path / "a.jsonl", {"prompt": "Sky?", "chosen": "Blue", "rejected": "Red"}), store)
        import_file(lines(tmp_path / "b.jsonl", {"prompt": "Grass?", "completion": "Green", "label": True}), store)
        write_file(store, path, "events")
    path.write_text(path.read_text().replace("Sky?", "Sea?") + '{"record": "vote", "id": "x"}\n', encoding="utf-8")
    reading = read_file(path)
    assert len(reading.feedback) == len(reading.prompts) == len(reading.tasks) == 1
    assert [" ".join(reason.split()[:2]) for _, reason in reasons(reading)] == [
        "its content",
        *["its prompt"] * 3,
        "its task",
        "no record",
    ]
    with Store.open(tmp_path / "other.db") as store:
        import_file(path, store)
        assert store.counts() == (1, 1, 1, 1)


# Broken files and rows

GOOD = {"prompt": "Sky?", "chosen": "Blue", "rejected": "Green"}
LEAVE_OUT = "'assent import --ignore {}' leaves it out"
BROKEN: tuple[tuple[Any, str], ...] = (
    ('{"prompt": "Sky?", "chosen"\n', "broken JSON: Expecting ':' delimiter"),
    ("[1, 2]\n", "not a JSON object but list"),
    ("null\n", "not a JSON object but NoneType"),
    ("[" * 100_000 + "\n", "broken JSON: RecursionError"),
    ('{"prompt": ' + "9" * 5000 + "}\n", "broken JSON: ValueError"),
    ({"prompt": "Sky?", "chosen": "Blue"}, "no 'rejected'"),
    ({"chosen": "Blue", "rejected": "Green"}, "no 'prompt'"),
    ({**GOOD, "rejected": None}, "'rejected' is NoneType, not text"),
    ({**GOOD, "prompt": 7}, "'prompt' is int, not text"),
    ({**GOOD, "prompt": []}, "'prompt' holds no messages"),
    ({**GOOD, "prompt": ["Sky?"]}, "a message of 'prompt' is str, not an object"),
    ({**GOOD, "prompt": [{"role": "user"}]}, "no 'content'"),
    (
        {**GOOD, "prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        "'content' has a part of type 'image', but assent reads text only",
    ),
    ({**GOOD, "prompt": [USER]}, "'prompt' and 'chosen' must both be text or both be messages"),
    (
        {"prompt": [USER], "chosen": [REPLY, REPLY], "rejected": [RIVAL]},
        "'chosen' holds 2 messages and does not begin with those of the prompt",
    ),
    (
        {"prompt": [USER], "chosen": [USER], "rejected": [RIVAL]},
        "'chosen' does not end with a message of the assistant",
    ),
    (
        {"prompt": [USER], "chosen": [{**REPLY, "timestamp": 7}], "rejected": [RIVAL]},
        (
            "a message of 'chosen' has 'timestamp', which assent does not read: "
            "'assent import --ignore messages.timestamp' leaves it out"
        ),
    ),
    ({"prompt": "Sky?", "chosen": [USER, REPLY], "rejected": [RIVAL, RIVAL]}, "no shared prompt"),
    ({**GOOD, "rejected": "Blue"}, "identical replies"),
    ({**GOOD, "rejected": " \n"}, "empty reply in 'rejected'"),
    ({**GOOD, "chosen": "\ud800"}, "'chosen' contains an unpaired surrogate"),
    ({**GOOD, "p_chosen": 2}, f"'p_chosen' is 2, not a probability: {LEAVE_OUT.format('p_chosen')}"),
    ({**GOOD, "weight": "1"}, f"'weight' is '1', not a number: {LEAVE_OUT.format('weight')}"),
    ({**GOOD, "margin": float("nan")}, f"'margin' is nan, not a number: {LEAVE_OUT.format('margin')}"),
)


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_broken_row_is_skipped_by_location(tmp_path: Path, row: Any, reason: str) -> None:
    reading = read_file(lines(tmp_path / "file.jsonl", GOOD, "\n", row, GOOD))
    assert reasons(reading) == [("file.jsonl:3", reason)]
    assert (len(reading.examples), reading.num_rows) == (2, 3)
    assert str(reading) == f"2 of 3 rows read as preference; 1 skipped: {reason}"


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_broken_first_row_does_not_change_the_format(tmp_path: Path, row: Any, reason: str) -> None:
    reading = read_file(lines(tmp_path / "file.jsonl", row, GOOD, GOOD))
    assert (reading.format, reasons(reading)) == ("preference", [("file.jsonl:1", reason)])


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("preference-implicit", {"chosen": "Blue", "rejected": "Green"}, "no shared prompt"),
        ("preference-implicit", {"chosen": [REPLY], "rejected": [RIVAL]}, "no shared prompt"),
        (
            "unpaired",
            {"prompt": "Sky?", "completion": "Blue", "label": 0.5},
            f"'label' is 0.5, not true or false: {LEAVE_OUT.format('label')}",
        ),
        ("language-modelling", {"messages": [REPLY]}, "'messages' holds no message before the reply"),
        ("language-modelling", {"text": ""}, "empty reply in 'text'"),
        ("hh-rlhf", {"chosen": "Blue", "rejected": "Green"}, "'chosen' is not a transcript of Human and Assistant"),
    ],
)
def test_broken_row_of_each_format_has_its_reason(tmp_path: Path, format: str, row: Any, reason: str) -> None:
    assert reasons(read_file(lines(tmp_path / "file.jsonl", row), format)) == [("file.jsonl:1", reason)]


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\n", json.dumps(GOOD).encode() + b"\n"]))))
def test_random_bytes_do_not_crash_the_reader(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        path.write_bytes(b"".join(parts))
        try:
            reading = read_file(path)
        except AssentError:
            return
        assert len(reading.examples) + len(reading.skipped) == reading.num_rows


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_byte_order_mark_line_ends_and_gzip_are_read_alike(tmp_path: Path, start: bytes, end: bytes, pack: Any) -> None:
    rows = [json.dumps({**GOOD, "chosen": f"Blå {n} \u2028 \u0085"}, ensure_ascii=False).encode() for n in range(3)]
    (tmp_path / "file").write_bytes(pack(start + end.join([rows[0], b'{"a": }', *rows[1:]]) + end))
    reading = read_file(tmp_path / "file")
    assert [entry.chosen.text for entry in reading.examples if isinstance(entry, Preference)] == [
        f"Blå {n} \u2028 \u0085" for n in range(3)
    ]
    assert reasons(reading) == [("file:2", "broken JSON: Expecting value")]


def test_json_array_is_read_as_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "file.json", json.dumps([GOOD, 7, GOOD], indent=1))
    reading = read_file(path)
    assert reasons(reading) == [("file.json:row 2", "not a JSON object but int")]
    assert len(reading.examples) == 2


def broken_files(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "missing.jsonl", "cannot read .*No such file"
    yield folder, "is a folder without files of Parquet, Arrow, JSON or tables: name"
    yield lines(folder / "empty.jsonl", ""), "is empty"
    yield lines(folder / "blank.jsonl", "\n \n"), "is empty"
    yield lines(folder / "none.json", "[]"), "is empty"
    yield lines(folder / "letter.txt", "Dear reader,\n"), "holds no JSON object; first letter.txt:1: broken JSON"
    yield lines(folder / "other.jsonl", {"question": 1, "answer": 2}), "no format has rows of question, answer; known: "
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    yield folder / "cut.jsonl.gz", "cannot read"


def test_unreadable_file_is_one_error_in_one_line(tmp_path: Path) -> None:
    for path, message in broken_files(tmp_path):
        with pytest.raises(AssentError, match=message) as error:
            read_file(path)
        assert "\n" not in str(error.value)


def test_unknown_format_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="did you mean 'preference'"):
        read_file(lines(tmp_path / "file.jsonl", GOOD), "preferences")
    with pytest.raises(AssentError, match="did you mean 'unpaired'"):
        write_file([], tmp_path / "file.jsonl", "unpared")


def test_failed_export_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="cannot write"):
        write_file([CHAT], tmp_path / "missing" / "file.jsonl", "prompt-only")
    with pytest.raises(AssentError, match="the format 'events' is for a whole store"):
        write_file([CHAT], tmp_path / "file.jsonl", "events")
    with pytest.raises(ZeroDivisionError):
        write_file((Prompt.ask(str(1 // n)) for n in (1, 0)), tmp_path / "file.jsonl", "prompt-only")
    assert list(tmp_path.iterdir()) == []
