"""Files in and out, on real data and on rows of every brokenness."""

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
from assent.formats.files.exchange import FORMATS, Reading, load, read, write
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

HH = Path(__file__).parents[2] / "shared/data/hh-rlhf"
needs_hh = pytest.mark.skipif(not HH.is_dir(), reason=f"needs the hh-rlhf files in {HH}")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SAID = st.one_of(
    TEXT, st.sampled_from(["a\n\nHuman: b", "\n\nAssistant: c", "\u2028", "\r\n", " x", "x ", '"', "\0"])
).filter(lambda text: bool(text.strip()))
TURNS = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=4)
PROMPTS = st.one_of(
    st.builds(Prompt.plain, TEXT), st.builds(Prompt, TURNS.map(tuple), st.sampled_from(["", "creative"]))
).filter(lambda prompt: any(message.content.strip() for message in prompt.messages))
WEIGHTS = st.sampled_from([1.0, 0.25])
REPLIES = st.builds(Completion, SAID)
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
    """Examples without their sources; a prompt counts by its messages, as in the store."""
    return Counter(replace(each, prompt=Prompt(each.prompt.messages), feedback_ids=()) for each in examples)


def there_and_back(examples: list[Any], format: str, name: str = "file.jsonl") -> Reading | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if write(examples, path, format).rows == 0:
            return None
        return read(path, format)


def reasons(reading: Reading) -> list[tuple[str, str]]:
    return [(rejected.where, rejected.reason) for rejected in reading.rejected]


# Real data


@needs_hh
@pytest.mark.parametrize(
    ("name", "rows", "unshared", "further", "identical", "empty", "longer"),
    [
        ("harmless-base", 2312, 4, 1, 0, 4, 44.2),
        ("helpful-base", 2354, 2, 7, 2, 4, 59.6),
        ("helpful-rejection-sampled", 2749, 1, 2, 32, 0, 55.8),
    ],
)
def test_every_row_of_hh_rlhf_is_read_or_named(
    name: str, rows: int, unshared: int, further: int, identical: int, empty: int, longer: float
) -> None:
    reading = read(HH / f"{name}.jsonl.gz")
    count = Counter(" ".join(rejected.reason.split()[:2]) for rejected in reading.rejected)
    expected = {"no shared": unshared, "'rejected' goes": further, "identical replies": identical, "empty reply": empty}
    assert count == Counter({reason: number for reason, number in expected.items() if number})
    assert reading.format == "hh-rlhf"
    assert reading.rows == rows == len(reading.examples) + len(reading.rejected)
    pairs = [each for each in reading.examples if isinstance(each, Preference)]
    assert 100 * sum(len(pair.chosen.text) > len(pair.rejected.text) for pair in pairs) / len(pairs) == pytest.approx(
        longer, abs=0.7
    )
    assert all(pair.prompt.messages[0].role == pair.prompt.messages[-1].role == "user" for pair in pairs)


@needs_hh
def test_a_transcript_becomes_turns_and_keeps_every_word() -> None:
    source = HH / "helpful-base.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(source.read_bytes()).decode().split("\n") if line]
    reading = read(source)
    broken = {int(rejected.where.rpartition(":")[2]) - 1 for rejected in reading.rejected}
    good = [row for number, row in enumerate(rows) if number not in broken]
    names = {"user": "Human", "assistant": "Assistant"}
    for row, pair in zip(good, reading.examples, strict=True):
        assert isinstance(pair, Preference)
        before = "".join(f"\n\n{names[turn.role]}: {turn.content}" for turn in pair.prompt.messages)
        for side, text in (("chosen", pair.chosen.text), ("rejected", pair.rejected.text)):
            assert f"{before}\n\nAssistant: {text}" == row[side]


@needs_hh
def test_importing_a_file_twice_changes_nothing_and_exporting_gives_it_back(tmp_path: Path) -> None:
    source = HH / "helpful-base.jsonl.gz"
    with Store.open(tmp_path / "store.db") as store:
        reading = load(source, store)
        counts = store.counts()
        assert load(source, store) == reading
        assert store.counts() == counts
        assert counts.feedback == len(reading.examples) == 2339
        made = convert.examples(store.feedback(), store.tasks(), store.prompts(), store.responses())
        assert made == list(reading.examples)
    assert write(made, tmp_path / "out.jsonl.gz", "preference") == (2339, ())
    assert multiset(read(tmp_path / "out.jsonl.gz").examples) == multiset(made)
    assert write(made, tmp_path / "hh.jsonl", "hh-rlhf") == (2339, ())
    again = read(tmp_path / "hh.jsonl")
    assert (again.format, multiset(again.examples)) == ("hh-rlhf", multiset(made))


def test_an_imported_preference_is_a_comparison_of_two_responses(tmp_path: Path) -> None:
    file = lines(tmp_path / "pairs.jsonl", {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"})
    with Store.open(tmp_path / "store.db") as store:
        assert str(load(file, store)) == "1 of 1 rows read as preference"
        (prompt,), (good, bad) = store.prompts(), store.responses()
        (query,), (event,) = store.tasks(), store.feedback()
    assert prompt == Prompt.plain("2 + 2 =", source="pairs.jsonl")
    assert [(each.text, each.policy) for each in (good, bad)] == [(" 4", POLICY), (" 5", POLICY)]
    assert (query.kind, set(query.items), query.purpose) == ("comparison", {good.id, bad.id}, "train")
    assert (event.judgement, event.annotator) == (Comparison(good.id), POLICY)


POLICY = "imported:pairs.jsonl"


def test_the_order_of_a_querys_items_does_not_tell_which_is_the_better() -> None:
    pairs = [Preference(Prompt.plain(str(n)), Completion("right"), Completion("wrong")) for n in range(400)]
    reading = there_and_back(pairs, "preference")
    assert reading
    answers = zip(reading.queries, reading.feedback, strict=True)
    first = sum(isinstance(e.judgement, Comparison) and e.judgement.preferred == q.items[0] for q, e in answers)
    assert 140 <= first <= 260  # 200 +- 6 standard deviations


def test_a_row_that_stands_twice_counts_twice(tmp_path: Path) -> None:
    row = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}
    reading = read(lines(tmp_path / "pairs.jsonl", row, row))
    assert len({event.id for event in reading.feedback}) == len(reading.examples) == 2
    assert len(reading.queries) == 1


@pytest.mark.parametrize(
    ("p_chosen", "verdict", "text"), [(0.9, "better", "Blue"), (0.1, "better", "Red"), (0.5, "tie", "")]
)
def test_a_soft_label_becomes_the_likelier_verdict_and_how_sure_it_is(
    tmp_path: Path, p_chosen: float, verdict: str, text: str
) -> None:
    row = {"prompt": "Sky?", "chosen": "Blue", "rejected": "Red", "p_chosen": p_chosen, "margin": 0.5, "weight": 3}
    reading = read(lines(tmp_path / "pairs.jsonl", row))
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
    (made,) = convert.examples((event,), reading.queries, reading.prompts, reading.responses)
    assert isinstance(made, Preference)
    assert (made.margin, made.weight) == (margin, 3.0)
    assert (made.p_chosen if made.chosen.text == "Blue" else 1 - made.p_chosen) == pytest.approx(p_chosen)


def test_labels_and_imitation_become_approvals_and_demonstrations(tmp_path: Path) -> None:
    labels = read(lines(tmp_path / "a.jsonl", {"prompt": "Sky?", "completion": "Blue", "label": False}))
    shown = read(lines(tmp_path / "b.jsonl", {"prompt": "Sky?", "completion": "Blue"}))
    assert labels.examples == (
        ScoredCompletion(labels.prompts[0], Completion("Blue"), 0.0, feedback_ids=(labels.feedback[0].id,)),
    )
    assert labels.feedback[0].judgement == Approval(False)
    assert shown.examples == (SFTExample(shown.prompts[0], Completion("Blue"), feedback_ids=(shown.feedback[0].id,)),)
    assert (shown.feedback[0].judgement, shown.responses) == (Demonstration("Blue"), ())


# Formats

USER, REPLY, RIVAL = (
    {"role": role, "content": text} for role, text in (("user", "Sky?"), ("assistant", "Blue"), ("assistant", "Green"))
)
CHAT, PLAIN = Prompt.ask("Sky?"), Prompt.plain("The sky is")
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
    ("prompt-only", {"prompt": "The sky is", "mode": "creative"}, Prompt.plain("The sky is", "creative")),
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
def test_each_format_is_told_by_its_keys(tmp_path: Path, format: str, row: Any, expected: Example | Prompt) -> None:
    reading = read(lines(tmp_path / "file.jsonl", row))
    assert reading.format == format
    if isinstance(expected, Prompt):
        assert reading.prompts == (replace(expected, source="file.jsonl"),)
    else:
        assert multiset(reading.examples) == multiset([expected])


def test_every_format_is_known_to_the_tests() -> None:
    elsewhere = {"events", "label-studio", "argilla", "csv", "lmarena", "prompt-responses", "sharegpt", "alpaca"}
    # below, in test_exchange_formats.py, test_import_refusals.py and test_import_files.py
    assert {format for format, _, _ in KNOWN} == set(FORMATS) - elsewhere


def test_a_conversation_keeps_its_spaces_and_its_system_message() -> None:
    prompt = Prompt((Message("system", " Be kind. \n"), Message("user", " Hi\n\nHuman: you ")))
    reading = there_and_back([Preference(prompt, Completion(" yes \n"), Completion("\n\nAssistant: no"))], "preference")
    assert reading
    assert multiset(reading.examples) == multiset(
        [Preference(prompt, Completion(" yes \n"), Completion("\n\nAssistant: no"))]
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(PREFERENCES, min_size=1, max_size=5), st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
def test_preferences_come_back_as_they_were(pairs: list[Preference], name: str) -> None:
    reading = there_and_back(pairs, "preference", name)
    assert reading
    assert not reading.rejected
    assert multiset(reading.examples) == multiset(pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=5), st.lists(IMITATIONS, min_size=1, max_size=5))
def test_labels_and_imitation_come_back_as_they_were(labels: list[ScoredCompletion], shown: list[SFTExample]) -> None:
    for examples, format in ((labels, "unpaired"), (shown, "prompt-completion")):
        reading = there_and_back(list(examples), format)
        assert reading
        assert not reading.rejected
        assert multiset(reading.examples) == multiset(examples)


@settings(max_examples=60, deadline=None)
@given(st.lists(PREFERENCES, min_size=1, max_size=4), st.sampled_from(["hh-rlhf", "preference-implicit"]))
def test_what_a_format_cannot_hold_is_left_out_and_named_and_the_rest_is_whole(
    pairs: list[Preference], format: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        rows, left_out = write(pairs, path, format)
        assert rows + len(left_out) == len(pairs)
        gone = {int(rejected.where.split()[1]) - 1 for rejected in left_out}
        kept = [pair for number, pair in enumerate(pairs) if number not in gone]
        if kept:
            assert multiset(read(path, format).examples) == multiset(kept)


@settings(max_examples=40, deadline=None)
@given(st.lists(PROMPTS, min_size=1, max_size=5, unique_by=lambda prompt: prompt.id))
def test_prompts_come_back_with_their_mode(prompts: list[Prompt]) -> None:
    reading = there_and_back(prompts, "prompt-only")
    assert reading
    assert [replace(prompt, source="") for prompt in reading.prompts] == prompts


def test_a_tie_or_a_rating_is_never_written_as_something_else(tmp_path: Path) -> None:
    tie, rating = (
        Preference(CHAT, Completion("Blue"), Completion("Azure"), 0.5),
        ScoredCompletion(CHAT, Completion("Blue"), 4.5),
    )
    pairs = write(
        [tie, Preference(CHAT, Completion("Green"), Completion("Blue"), 0.25), rating],
        tmp_path / "pairs.jsonl",
        "preference",
    )
    assert pairs.rows == 1
    assert [(each.where, each.reason) for each in pairs.left_out] == [
        ("example 1", "a tie, which this format would turn into a flip of a coin"),
        ("example 3", "a label, which this format does not hold"),
    ]
    assert multiset(read(tmp_path / "pairs.jsonl").examples) == multiset(
        [Preference(CHAT, Completion("Blue"), Completion("Green"), 0.75)]
    )
    assert "4.5, which is neither" in write([rating], tmp_path / "labels.jsonl", "unpaired").left_out[0].reason


# Our own events


def test_a_store_goes_through_a_file_whole(tmp_path: Path) -> None:
    prompts = [Prompt.ask("Sky?", "knowledge", "quiz"), Prompt.plain("\u2028\r\n\0 once", source="tales")]
    items = [
        Response(prompts[0].id, text, policy, False, "seed 3") for policy in ("a", "b") for text in ("Blue", "Red")
    ]
    names = (items[0].id, items[1].id)
    queries = [Task("ranking", prompts[0].id, names, "gold", "Which?"), Task("comparison", prompts[0].id, names)]
    first = Feedback(queries[0].id, "ann", Ranking((names[:1], names[1:])), "2026-11-20T10:00:00Z", 2.5, names, "hm")
    events = [first, Feedback(queries[1].id, "bob", Comparison(names[0], 3), "", supersedes=first.id, id="0192")]
    with Store.open(tmp_path / "one.db") as one, Store.open(tmp_path / "two.db") as two:
        one.add_prompts(prompts)
        one.add_responses(items)
        one.add_tasks(queries)
        one.add_feedback(events)
        assert write(one, tmp_path / "store.jsonl.gz", "events") == (10, ())
        for _ in range(2):
            reading = load(tmp_path / "store.jsonl.gz", two)
        assert (reading.format, reading.rejected) == ("events", ())
        assert list(two.prompts()) == prompts
        assert list(two.responses()) == items
        assert list(two.tasks()) == queries
        assert list(two.feedback()) == events
        write(two, tmp_path / "again.jsonl.gz", "events")
    assert (tmp_path / "again.jsonl.gz").read_bytes() == (tmp_path / "store.jsonl.gz").read_bytes()
    assert (tmp_path / "again.jsonl.gz").read_bytes()[4:8] == bytes(4)  # no time in the header


def test_an_event_that_was_changed_by_hand_takes_its_answers_with_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with Store.open(tmp_path / "store.db") as store:
        load(lines(tmp_path / "a.jsonl", {"prompt": "Sky?", "chosen": "Blue", "rejected": "Red"}), store)
        load(lines(tmp_path / "b.jsonl", {"prompt": "Grass?", "completion": "Green", "label": True}), store)
        write(store, path, "events")
    path.write_text(path.read_text().replace("Sky?", "Sea?") + '{"record": "vote", "id": "x"}\n', encoding="utf-8")
    reading = read(path)
    assert len(reading.feedback) == len(reading.prompts) == len(reading.queries) == 1
    assert [" ".join(reason.split()[:2]) for _, reason in reasons(reading)] == [
        "its content",
        *["its prompt"] * 3,
        "its query",
        "no record",
    ]
    with Store.open(tmp_path / "other.db") as store:
        load(path, store)
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
        "'content' holds a part of type 'image', and assent reads text alone",
    ),
    ({**GOOD, "prompt": [USER]}, "of 'prompt' and 'chosen' one is text and the other messages"),
    (
        {"prompt": [USER], "chosen": [REPLY, REPLY], "rejected": [RIVAL]},
        "'chosen' holds 2 messages, and does not begin with those of the prompt",
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
    (
        {"prompt": "Sea?", "chosen": [USER, REPLY], "rejected": [USER, RIVAL]},
        "'prompt' is not part of the conversation in 'chosen'",
    ),
    ({"prompt": "Sky?", "chosen": [USER, REPLY], "rejected": [RIVAL, RIVAL]}, "no shared prompt"),
    ({**GOOD, "rejected": "Blue"}, "identical replies"),
    ({**GOOD, "rejected": " \n"}, "empty reply in 'rejected'"),
    ({**GOOD, "chosen": "\ud800"}, "'chosen' holds half a character, a lone surrogate"),
    ({**GOOD, "p_chosen": 2}, f"'p_chosen' is 2, not a probability: {LEAVE_OUT.format('p_chosen')}"),
    ({**GOOD, "weight": "1"}, f"'weight' is '1', not a number: {LEAVE_OUT.format('weight')}"),
    ({**GOOD, "margin": float("nan")}, f"'margin' is nan, not a number: {LEAVE_OUT.format('margin')}"),
)


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_a_broken_row_is_named_and_the_others_are_read(tmp_path: Path, row: Any, reason: str) -> None:
    reading = read(lines(tmp_path / "file.jsonl", GOOD, "\n", row, GOOD))
    assert reasons(reading) == [("file.jsonl:3", reason)]
    assert (len(reading.examples), reading.rows) == (2, 3)
    assert str(reading) == f"2 of 3 rows read as preference; 1 rejected: {reason}"


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_a_broken_first_row_does_not_mislead(tmp_path: Path, row: Any, reason: str) -> None:
    reading = read(lines(tmp_path / "file.jsonl", row, GOOD, GOOD))
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
        ("hh-rlhf", {"chosen": "Blue", "rejected": "Green"}, "'chosen' is no transcript of Human and Assistant"),
    ],
)
def test_a_row_that_is_broken_in_its_own_way_is_named(tmp_path: Path, format: str, row: Any, reason: str) -> None:
    assert reasons(read(lines(tmp_path / "file.jsonl", row), format)) == [("file.jsonl:1", reason)]


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\n", json.dumps(GOOD).encode() + b"\n"]))))
def test_no_bytes_whatever_crash_the_reader_or_are_lost(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        path.write_bytes(b"".join(parts))
        try:
            reading = read(path)
        except AssentError:
            return
        assert len(reading.examples) + len(reading.rejected) == reading.rows


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_marks_line_ends_and_compression_make_no_difference(
    tmp_path: Path, start: bytes, end: bytes, pack: Any
) -> None:
    rows = [json.dumps({**GOOD, "chosen": f"Blå {n} \u2028 \u0085"}, ensure_ascii=False).encode() for n in range(3)]
    (tmp_path / "file").write_bytes(pack(start + end.join([rows[0], b'{"a": }', *rows[1:]]) + end))
    reading = read(tmp_path / "file")
    assert [each.chosen.text for each in reading.examples if isinstance(each, Preference)] == [
        f"Blå {n} \u2028 \u0085" for n in range(3)
    ]
    assert reasons(reading) == [("file:2", "broken JSON: Expecting value")]


def test_one_array_is_read_as_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "file.json", json.dumps([GOOD, 7, GOOD], indent=1))
    reading = read(path)
    assert reasons(reading) == [("file.json:row 2", "not a JSON object but int")]
    assert len(reading.examples) == 2


def broken_files(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "missing.jsonl", "cannot read .*No such file"
    yield folder, "is a folder without Parquet or Arrow files: name"
    yield lines(folder / "empty.jsonl", ""), "is empty"
    yield lines(folder / "blank.jsonl", "\n \n"), "is empty"
    yield lines(folder / "none.json", "[]"), "is empty"
    yield lines(folder / "letter.txt", "Dear reader,\n"), "holds no JSON object; first letter.txt:1: broken JSON"
    yield lines(folder / "other.jsonl", {"question": 1, "answer": 2}), "no format has rows of question, answer; known: "
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    yield folder / "cut.jsonl.gz", "cannot read"


def test_a_file_that_cannot_be_read_is_one_error_in_one_line(tmp_path: Path) -> None:
    for path, message in broken_files(tmp_path):
        with pytest.raises(AssentError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_an_unknown_format_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="did you mean 'preference'"):
        read(lines(tmp_path / "file.jsonl", GOOD), "preferences")
    with pytest.raises(AssentError, match="did you mean 'unpaired'"):
        write([], tmp_path / "file.jsonl", "unpared")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(AssentError, match="cannot write"):
        write([CHAT], tmp_path / "missing" / "file.jsonl", "prompt-only")
    with pytest.raises(AssentError, match="'events' is for a store"):
        write([CHAT], tmp_path / "file.jsonl", "events")
    with pytest.raises(ZeroDivisionError):
        write((Prompt.ask(str(1 // n)) for n in (1, 0)), tmp_path / "file.jsonl", "prompt-only")
    assert list(tmp_path.iterdir()) == []
