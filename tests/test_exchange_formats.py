"""Label Studio, Argilla and tables: round trips, files of other tools, and broken rows with their reasons."""

import csv
import gzip
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exchange import REPLY_TEXT, TEXT, lines

from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats import TaskWithJudgements
from assent.formats.files.annotation import pseudonym
from assent.formats.files.exporting import iter_tasks, write_file
from assent.formats.files.importing import import_file, insert, read_file
from assent.formats.files.results import ImportResult
from assent.formats.files.sniffing import FORMATS
from assent.records import Feedback, Judgement, Message, Prompt, Purpose, Response, Task
from assent.store.database import Store

NEW = ("label-studio", "argilla", "csv")
ENDS = {"label-studio": "json", "argilla": "json", "csv": "csv"}
KINDS = ("comparison", "ranking", "rating", "approval", "correction", "critique", "demonstration")
WHEN = ["1970-01-01T00:00:00Z", "2026-11-20T10:00:00Z", "2021-03-09T22:16:08.728353Z"]
WHO = ["ann", "imported:old.jsonl", "argilla:06f7d4c0-e048-43d2-ab3f-06f147616ac6", "0193a5f27c1e7aaa"]
PURPOSES: list[Purpose] = ["train", "evaluate", "gold"]
UNUSUAL_TEXTS = (
    *("=1+1", "'=1+1", "''@SUM(A1)", "+49 30", "-1", "\t=x", "a", "b", "left", "response_2", "\ufeffbom", 'say "x"'),
    *("one,two;three\tfour", "line\r\nline\n", "[1, 2]", '[{"role": "user"}]', "tie", "yes", "'", "'\r-"),
)
"""Texts that one format or another could take for something else."""
RESPONSE_TEXT = st.one_of(REPLY_TEXT, st.sampled_from(UNUSUAL_TEXTS))
PROMPT_TEXT = st.one_of(TEXT, RESPONSE_TEXT)
PROMPTS = st.one_of(
    st.builds(Prompt.plain, PROMPT_TEXT, st.sampled_from(["", "creative"])),
    st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), PROMPT_TEXT), min_size=1, max_size=3
    ).map(lambda turns: Prompt(tuple(turns))),
)


@st.composite
def tasks_with_judgements(draw: st.DrawFn, usual: bool) -> TaskWithJudgements:
    """Draw a task of any kind with up to three judgements; with `usual`, every labelling tool can store them."""
    kind = draw(st.sampled_from(KINDS))
    prompt = draw(PROMPTS)
    many = {"comparison": (2, 2), "ranking": (2, 6), "demonstration": (0, 3)}.get(kind, (1, 1))
    texts = draw(st.lists(RESPONSE_TEXT, min_size=many[0], max_size=many[1], unique=True))
    items = [Response(prompt.id, text, "policy", draw(st.booleans())) for text in texts]
    ids = draw(st.permutations([item.id for item in items]))
    purpose = draw(st.sampled_from(PURPOSES))
    annotation_task = Task(kind, prompt.id, tuple(ids), purpose, draw(st.sampled_from(["", "Which is kinder?"])))
    judgements = tuple(
        Feedback(
            annotation_task.id,
            draw(st.sampled_from(WHO)),
            draw(judgement(kind, ids, {item.id: item.text for item in items}, usual)),
            draw(st.sampled_from(WHEN)),
            draw(st.sampled_from([0.0, 2.5, 4.288, 1e-3])),
            draw(st.sampled_from([(), tuple(ids), tuple(reversed(ids))])),
            draw(st.one_of(st.just(""), RESPONSE_TEXT)),
            "",
            draw(st.uuids()).hex,
            draw(st.sampled_from([(), ("harm",), ("pii", "language")])),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    return TaskWithJudgements(prompt, tuple(items), annotation_task, judgements)


def judgement(kind: str, ids: list[str], texts: dict[str, str], usual: bool) -> st.SearchStrategy[Judgement]:
    weight = st.just(1.0) if usual else st.sampled_from([1.0, 0.25, 3.0])
    match kind:
        case "comparison":
            sure = () if usual else (st.sampled_from([1.0, 0.75]), st.sampled_from([0.0, -1.5]), weight)
            better = st.builds(Comparison, st.sampled_from(ids), st.sampled_from([1, 2, 3]), st.just("better"), *sure)
            verdict = st.sampled_from(["tie", "both bad", "cannot tell"])
            return st.one_of(better, st.builds(Comparison, verdict=verdict, weight=weight))
        case "ranking":
            return st.builds(Ranking, tiers(ids), weight)
        case "rating":
            stars = st.integers(1, 7) if usual else st.sampled_from([1, 2.5, 7.0, 3.3])
            named = ["overall", "harmless", "=odd", "Kind ", "a:b, c"] + ["rating"] * (not usual)
            axes = st.dictionaries(st.sampled_from(named), stars, min_size=1)
            return st.builds(Rating, axes.map(lambda matches: tuple(matches.items())), weight)
        case "approval":
            return st.builds(Approval, st.booleans(), weight)
        case "correction":
            return st.builds(Correction, RESPONSE_TEXT)
        case "critique":
            part = st.sampled_from(["", *{texts[ids[0]], texts[ids[0]][:2]}])
            return st.builds(Critique, RESPONSE_TEXT, part if usual else st.one_of(part, st.just("nowhere in it")))
    return st.builds(Demonstration, RESPONSE_TEXT, weight)


@st.composite
def tiers(draw: st.DrawFn, ids: list[str]) -> tuple[tuple[str, ...], ...]:
    """Draw tiers of at least two of the items."""
    order = draw(st.permutations(ids))[: draw(st.integers(2, len(ids)))]
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1))))
    ends = zip([0, *cuts], [*cuts, len(order)], strict=True)
    return tuple(tuple(order[start:end]) for start, end in ends)


USUAL, ANY = tasks_with_judgements(True), tasks_with_judgements(False)


@cache
def empty() -> Path:
    """Return the path of an empty store to copy: creating one takes longer than the tests that use it."""
    path = Path(tempfile.mkdtemp()) / "empty.db"
    Store.open(path).close()
    return path


@contextmanager
def fresh(*judged: TaskWithJudgements) -> Iterator[Store]:
    """Open a store that holds these tasks and their feedback."""
    with tempfile.TemporaryDirectory() as folder, Store.open(shutil.copy(empty(), folder)) as store:
        for entry in judged:
            store.add_prompts([entry.prompt])
            store.add_responses(entry.items)
            store.add_tasks([entry.task])
            store.add_feedback(entry.feedback)
        yield store


def saved(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(reading: ImportResult) -> list[tuple[str, str]]:
    return [(entry.location, entry.reason) for entry in reading.skipped]


def judgements_of(reading: ImportResult) -> list[Judgement]:
    return [event.judgement for event in reading.feedback]


def texts(reading: ImportResult, ids: Iterable[str]) -> list[str]:
    matches = {item.id: item.text for item in reading.responses}
    return [matches[item] for item in ids]


# Round trips


@pytest.mark.parametrize("format", NEW)
@settings(max_examples=50)
@given(judged=st.lists(USUAL, min_size=1, max_size=3))
def test_supported_judgements_round_trip_in_labelling_formats(format: str, judged: list[TaskWithJudgements]) -> None:
    with fresh(*judged) as first, fresh() as two, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{ENDS[format]}"
        assert write_file(first, path, format).skipped == ()
        assert import_file(path, two).skipped == ()
        assert Counter(two.feedback()) == Counter(first.feedback())
        assert set(two.tasks()) == set(first.tasks())
        bare = [{(p.messages, p.category) for p in store.prompts()} for store in (first, two)]
        assert len({messages for messages, _ in bare[0]}) < len(bare[0]) or bare[0] == bare[1]
        counts = first.counts()
        assert insert(read_file(path), first) == (0, 0, 0, 0)  # the ids are recognised: nothing new
        assert first.counts() == counts


@pytest.mark.parametrize("format", NEW)
@settings(max_examples=50)
@given(judged=st.lists(ANY, min_size=1, max_size=3))
def test_unsupported_judgements_are_skipped_and_never_altered(format: str, judged: list[TaskWithJudgements]) -> None:
    with fresh(*judged) as first, fresh() as two, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{ENDS[format]}"
        left_out = write_file(first, path, format).skipped
        skipped = {entry.location.removeprefix("judgement ") for entry in left_out}
        saved_rows = [event for event in first.feedback() if event.id not in skipped]
        assert len(saved_rows) + len(left_out) == len(list(first.feedback()))
        assert all(any(no in entry.reason for no in CANNOT[format]) for entry in left_out), left_out
        if saved_rows:
            import_file(path, two)
        assert Counter(two.feedback()) == Counter(saved_rows)


UNSUPPORTED = (
    *("empty prompt", "cannot store", "not a whole number", "a quote that is not in"),
    *("names each axis once", "a different record", "a second", "two responses of"),  # an axis called rating
)
CANNOT = {"label-studio": UNSUPPORTED, "argilla": UNSUPPORTED, "csv": ()}


def ranking_task(*tiers: tuple[int, ...]) -> TaskWithJudgements:
    """Return a ranking task about three birds, with a judgement."""
    prompt = Prompt.ask("Name a bird.")
    items = tuple(Response(prompt.id, text, "secret-model") for text in ("A wren.", "An owl.", "A bat."))
    ids = [item.id for item in items]
    annotation_task = Task("ranking", prompt.id, tuple(ids))
    judgement = Ranking(tuple(tuple(ids[place] for place in tier) for tier in tiers))
    return TaskWithJudgements(
        prompt,
        items,
        annotation_task,
        (Feedback(annotation_task.id, "ann", judgement, WHEN[1], display_order=tuple(ids)),),
    )


def comparison_task(
    judgement: str = "", annotator: str = "ann", display: tuple[int, ...] = (0, 1), **extra: Any
) -> TaskWithJudgements:
    """Return a comparison of two birds; the first is preferred unless a verdict is given."""
    prompt = Prompt.ask("Name a bird.")
    items = tuple(Response(prompt.id, text, "secret-model") for text in ("A wren.", "An owl."))
    ids = tuple(item.id for item in items)
    annotation_task = Task("comparison", prompt.id, ids)
    judged = Comparison(verdict=judgement) if judgement else Comparison(ids[0], **extra)  # type: ignore[arg-type]
    event = Feedback(
        annotation_task.id, annotator, judged, WHEN[1], display_order=tuple(ids[place] for place in display)
    )
    return TaskWithJudgements(prompt, items, annotation_task, (event,))


def test_ranking_ties_in_label_studio_argilla_and_csv(tmp_path: Path) -> None:
    judged = ranking_task((1,), (0, 2))
    for format in NEW:
        write_file([judged], tmp_path / format, format)
    (task,), (record,) = (json.loads((tmp_path / name).read_text()) for name in NEW[:2])
    assert task["annotations"][0]["result"][0]["value"] == {"ranker": {"tier-1": ["2"], "tier-2": ["1", "3"]}}
    assert record["responses"]["ranking"][0]["value"] == [
        {"value": "response_2", "rank": 1},
        {"value": "response_1", "rank": 2},
        {"value": "response_3", "rank": 2},
    ]
    (row,) = csv.DictReader((tmp_path / "csv").read_text().splitlines())
    assert (row["ranking"], row["a"], row["display_order"]) == ("b > a = c", "A wren.", "a b c")


def test_strict_ranking_is_one_label_studio_list(tmp_path: Path) -> None:
    write_file([ranking_task((1,), (2,), (0,))], tmp_path / "tasks.json", "label-studio")
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["annotations"][0]["result"][0]["value"] == {"ranker": {"rank": ["2", "3", "1"]}}


def test_label_studio_left_follows_each_display_order(tmp_path: Path) -> None:
    first = comparison_task(display=(0, 1))
    second = comparison_task(annotator="bob", display=(1, 0))
    write_file([first._replace(feedback=first.feedback + second.feedback)], tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [(exported["data"]["answer1"], exported["annotations"][0]["annotator"]) for exported in tasks] == [
        ("A wren.", "ann"),
        ("An owl.", "bob"),
    ]
    assert [exported["annotations"][0]["result"][0]["value"]["selected"] for exported in tasks] == ["left", "right"]
    reading = read_file(tmp_path / "tasks.json")
    assert [texts(reading, event.display_order) for event in reading.feedback] == [
        ["A wren.", "An owl."],
        ["An owl.", "A wren."],
    ]
    assert len(reading.tasks) == 1 and len({event.judgement for event in reading.feedback}) == 1


def test_open_task_round_trips(tmp_path: Path) -> None:
    open_task = comparison_task()._replace(feedback=())
    for format in ("label-studio", "argilla"):
        assert write_file([open_task], tmp_path / format, format).num_rows == 1
        reading = read_file(tmp_path / format)
        assert (reading.tasks, reading.feedback) == ((open_task.task,), ())
    assert write_file([open_task], tmp_path / "csv", "csv").skipped[0].reason.startswith("a task without a judgement")


@pytest.mark.parametrize("format", NEW)
def test_export_hides_email_addresses_and_policy_names(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{ENDS[format]}"
    write_file([comparison_task(annotator="Bob@Example.org ")], path, format)
    assert "xample" not in path.read_text() and "secret" not in path.read_text()
    assert [event.annotator for event in read_file(path).feedback] == [pseudonym("bob@example.org")]


def test_judgement_edited_in_another_tool_is_new(tmp_path: Path) -> None:
    judged = comparison_task()
    with fresh(judged) as store:
        write_file(store, tmp_path / "tasks.json", "label-studio")
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        task["annotations"][0]["result"][0]["value"]["selected"] = "right"
        new = insert(read_file(saved(tmp_path, "tasks.json", json.dumps([task]))), store)
        assert new == (0, 0, 0, 1)
        before, after = store.feedback()
    assert isinstance(before.judgement, Comparison) and isinstance(after.judgement, Comparison)
    assert (before.judgement.preferred, after.judgement.preferred) == (judged.items[0].id, judged.items[1].id)


def test_superseded_feedback_is_not_exported(tmp_path: Path) -> None:
    first = comparison_task()
    second = comparison_task("tie")
    event = replace(second.feedback[0], supersedes=first.feedback[0].id, id="later")
    with fresh(first._replace(feedback=(*first.feedback, event))) as store:
        assert [entry.id for open_task in iter_tasks(store) for entry in open_task.feedback] == ["later"]
        for format in NEW:
            assert write_file(store, tmp_path / format, format).num_rows == 1
            assert (
                insert(read_file(tmp_path / format, format), store).feedback == 0
            )  # the superseded event is not exported: no conflict


# Files of other tools


def task(data: Any, *results: Any, **extra: Any) -> dict[str, Any]:
    """Return a task as Label Studio exports it."""
    matches = [
        {"id": "Dx_aB91ISN", "from_name": n, "to_name": n, "type": exported, "value": v} for n, exported, v in results
    ]
    annotation = {"id": 9, "completed_by": 7, "lead_time": 4.288, "created_at": "2021-03-09T22:16:08.728353Z"}
    annotation |= {"was_cancelled": False, "ground_truth": False, "result": matches, **extra}
    return {"id": 1, "project": 83, "data": data, "annotations": [annotation], "predictions": []}


PAIR = {"prompt": "Capital of France?", "answer1": "Paris", "answer2": "London"}
LIST = {
    "prompt": "Why?",
    "items": [{"id": f"llm_{n}", "title": f"LLM {n}", "body": text} for n, text in enumerate("xyz")],
}
GRADED = {"document": "Opossums live in America.", "summary": "They play dead."}
LEFT = ("comparison", "pairwise", {"selected": "left"})


def test_label_studio_templates_are_read(tmp_path: Path) -> None:
    tasks = [
        task(PAIR, LEFT, ("why", "textarea", {"text": ["It is."]})),
        task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_2", "llm_0", "llm_1"]}})),
        task(GRADED, ("rating", "rating", {"rating": 4})),
        task({"prompt": "Write sum."}, ("instruction", "textarea", {"text": ["def sum(): ..."]})),
        task({"prompt": "Hi", "response": "Helo"}, ("corrected", "textarea", {"text": "Hello"})),
    ]
    reading = read_file(saved(tmp_path, "export.json", json.dumps(tasks, indent=2)))
    assert (reading.format, reading.num_used, reading.skipped) == ("label-studio", 5, ())
    first = reading.feedback[0]
    assert (first.annotator, first.created_at, first.duration) == (
        "label-studio:83:7",
        "2021-03-09T22:16:08.728353Z",
        4.288,
    )
    assert (texts(reading, first.display_order), first.comment) == (["Paris", "London"], "It is.")
    assert isinstance(first.judgement, Comparison) and texts(reading, [first.judgement.preferred]) == ["Paris"]
    ranking, *remaining = judgements_of(reading)[1:]
    assert isinstance(ranking, Ranking) and texts(reading, ranking.items) == ["z", "x", "y"]
    assert remaining == [Rating((("overall", 4),)), Demonstration("def sum(): ..."), Correction("Hello")]
    with fresh() as store:
        assert insert(reading, store).feedback == 5
        assert insert(reading, store) == (0, 0, 0, 0)


def test_numbered_ranker_buckets_are_ranks(tmp_path: Path) -> None:
    value = {"ranker": {"_": ["llm_1"], "tier-2": ["llm_0"], "tier-1": ["llm_2"], "tier-3": []}}
    (judgement,) = judgements_of(
        read_file(saved(tmp_path, "x.json", json.dumps([task(LIST, ("rank", "ranker", value))])))
    )
    assert isinstance(judgement, Ranking) and [len(tier) for tier in judgement.tiers] == [1, 1]


def test_label_studio_tasks_without_annotations_are_open(tmp_path: Path) -> None:
    wrapped = read_file(
        saved(tmp_path, "tasks.json", json.dumps([{"data": PAIR}, {"data": LIST}, {"data": {"prompt": "Hm?"}}]))
    )
    bare = read_file(saved(tmp_path, "bare.json", json.dumps([PAIR, LIST, {"prompt": "Hm?"}])), "label-studio")
    for reading in (wrapped, bare):
        assert [annotation_task.kind for annotation_task in reading.tasks] == ["comparison", "ranking", "demonstration"]
        assert reading.feedback == ()


def test_second_label_studio_export_adds_new_annotations(tmp_path: Path) -> None:
    first = task(PAIR, LEFT)
    second = task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_1", "llm_0"]}}))
    with fresh() as store:
        insert(read_file(saved(tmp_path, "monday.json", json.dumps([first]))), store)
        assert insert(read_file(saved(tmp_path, "tuesday.json", json.dumps([first, second]))), store).feedback == 1


def record(fields: Any, **responses: Any) -> dict[str, Any]:
    """Return a record as `to_json` of Argilla 2.8 writes it, with one value for each of two users."""
    users = ("06f7d4c0-e048-43d2-ab3f-06f147616ac6", "16f7d4c0-e048-43d2-ab3f-06f147616ac6")
    matches = {q: [{"value": v, "user_id": u} for v, u in zip(vs, users, strict=False)] for q, vs in responses.items()}
    judged = {"id": "1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": matches}
    return judged | {"vectors": {}, "status": "completed", "_server_id": None}


TWO = {"instruction": "Say hi.", "response_1": "Hi.", "response_2": "Go."}
ONE = {"prompt": "Say hi.", "response": "Hi there."}


def test_argilla_question_types_are_read(tmp_path: Path) -> None:
    records = [
        record(TWO, preference=["response_2", "tie"]),
        record(TWO, ranking=[["response_2", "response_1"], [{"value": f"response_{n}", "rank": 1} for n in (1, 2)]]),
        record(ONE, rating=[3], helpful=[7]),
        record(ONE, correction=["Hello there."], comment=["stiff"]),
        record(ONE, marks=[[{"label": "rude", "start": 0, "end": 2}, {"label": "vague", "start": 3, "end": 8}]]),
        record({"prompt": "Say hi."}, answer=["Hi!"]),
    ]
    reading = read_file(saved(tmp_path, "records.json", json.dumps(records)))
    assert (reading.format, reading.skipped) == ("argilla", ())
    chosen, tie, order, tied, *remaining = judgements_of(reading)
    assert isinstance(chosen, Comparison) and texts(reading, [chosen.preferred]) == ["Go."]
    assert isinstance(order, Ranking) and [texts(reading, tier) for tier in order.tiers] == [["Go."], ["Hi."]]
    assert isinstance(tied, Ranking) and [texts(reading, tier) for tier in tied.tiers] == [["Hi.", "Go."]]
    assert tie == Comparison(verdict="tie")
    assert remaining == [
        Rating((("helpful", 7), ("overall", 3))),
        Correction("Hello there."),
        Critique("rude", "Hi"),
        Critique("vague", "there"),
        Demonstration("Hi!"),
    ]
    assert {event.comment for event in reading.feedback} == {"", "stiff"}
    assert reading.feedback[0].annotator == "argilla:06f7d4c0-e048-43d2-ab3f-06f147616ac6"


def flattened(first: dict[str, Any]) -> dict[str, Any]:
    flat = {"id": first["id"], "status": first["status"], "_server_id": None, **first["fields"]}
    for question, judgements in first["responses"].items():
        flat[f"{question}.responses"] = [judgement["value"] for judgement in judgements]
        flat[f"{question}.responses.users"] = [judgement["user_id"] for judgement in judgements]
        flat[f"{question}.responses.status"] = ["submitted", "draft"][: len(judgements)]
    return flat


def test_argilla_export_shapes_are_equivalent(tmp_path: Path) -> None:
    first = record(TWO, preference=["response_2"])
    shapes = [
        [first],
        [flattened(first)],
        {name: [value] for name, value in first.items()},
        {name: [value] for name, value in flattened(first).items()},
        {"1": first},
    ]
    readings = [read_file(saved(tmp_path, "file.json", json.dumps(shape))) for shape in shapes]
    assert {(reading.format, reading.feedback) for reading in readings} == {("argilla", readings[0].feedback)}
    pretty = read_file(saved(tmp_path, "file.json", json.dumps(shapes[2], indent=2)))
    assert pretty.feedback == readings[0].feedback


def test_handwritten_csv_is_read(tmp_path: Path) -> None:
    table = """Prompt,A,B,C,Preference,Ranking,Strength,Annotator
Capital of France?,Paris,London,,a,,3,ann
Capital of Spain?,Rome,Madrid,,B,,,bob@example.org
Best fruit?,Apple,Pear,,tie,,,
Best bird?,Wren,Owl,Bat,,c>a = b,,ann
"""
    reading = read_file(saved(tmp_path, "hand.csv", table))
    assert (reading.format, reading.num_used, reading.skipped) == ("csv", 4, ())
    paris, madrid, tie, ranking = judgements_of(reading)
    assert isinstance(paris, Comparison) and (texts(reading, [paris.preferred]), paris.strength) == (["Paris"], 3)
    assert isinstance(madrid, Comparison) and texts(reading, [madrid.preferred]) == ["Madrid"]
    assert tie == Comparison(verdict="tie")
    assert isinstance(ranking, Ranking) and [texts(reading, tier) for tier in ranking.tiers] == [
        ["Bat"],
        ["Wren", "Owl"],
    ]
    annotator = [event.annotator for event in reading.feedback]
    assert annotator == ["ann", pseudonym("bob@example.org"), "imported:hand.csv", "ann"]
    assert all(list(annotation_task.items) == sorted(annotation_task.items) for annotation_task in reading.tasks)


def test_csv_columns_of_each_judgement_kind(tmp_path: Path) -> None:
    table = """prompt;response;rating;rating:kind;approved;correction;critique;quote;demonstration
Hi?;Hello.;5;6,5;;;;;
Hi?;Hello.;;;no;;;;
Hi?;Helo.;;;;Hello.;;;
Hi?;Helo.;;;;;A typo.;Helo;
Hi?;;;;;;;;Hello!
"""
    reading = read_file(saved(tmp_path, "hand.csv", table))
    assert judgements_of(reading) == [
        Rating((("kind", 6.5), ("overall", 5))),
        Approval(False),
        Correction("Hello."),
        Critique("A typo.", "Helo"),
        Demonstration("Hello!"),
    ]


@pytest.mark.parametrize(
    ("format", "scale", "given", "stars"), [("csv", "1-5", "5", 7), ("csv", "0-10", "5", 4), ("csv", "", "5", 5)]
)
def test_rating_is_rescaled_to_1_to_7(format: str, scale: str, given: str, stars: float, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", f"prompt,response,rating\nHi?,Hello.,{given}\n")
    assert judgements_of(read_file(path, scale=scale)) == [Rating((("overall", stars),))]
    tasks = saved(tmp_path, "x.json", json.dumps([task(GRADED, ("rating", "rating", {"rating": int(given)}))]))
    assert judgements_of(read_file(tasks, scale=scale)) == [Rating((("overall", stars),))]


def test_invalid_or_needless_scale_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,response,rating\nHi?,Hello.,5\n")
    with pytest.raises(AssentError, match="a scale is the lowest and the highest rating, such as 1-5, not '5'"):
        read_file(path, scale="5")
    with pytest.raises(AssentError, match="--scale does not apply to prompt-only: leave it out"):
        read_file(lines(tmp_path / "x.jsonl", {"prompt": "Hi?"}), scale="1-5")


# Broken files


BROKEN: list[tuple[str, Any, str, str]] = [
    ("label-studio", task(PAIR), "annotation 1", "no judgement"),
    ("label-studio", task(PAIR, LEFT, was_cancelled=True), "annotation 1", "skipped by its annotator"),
    (
        "label-studio",
        task(PAIR, LEFT, LEFT),
        "annotation 1",
        "'comparison' gives a second preferred: each needs an annotation of its own",
    ),
    (
        "label-studio",
        task(PAIR, LEFT, ("verdict", "choices", {"choices": ["tie"]})),
        "annotation 1",
        "both 'answer1' and 'tie' were chosen",
    ),
    ("label-studio", task(PAIR, LEFT, result=None), "annotation 1", "'result' is not a list of objects"),
    (
        "label-studio",
        task(PAIR, LEFT, created_at="yesterday"),
        "annotation 1",
        "'created_at' is 'yesterday', not a time such as 2026-11-20T10:00:00Z",
    ),
    ("label-studio", task(PAIR, ("x", "pairwise", {"selected": "none"})), "annotation 1", "'none' of 2 responses"),
    (
        "label-studio",
        task(GRADED, ("rating", "rating", {"rating": 9})),
        "annotation 1",
        "a rating of 9 on a scale of 1-7: name the right one with --scale",
    ),
    ("label-studio", task(PAIR, ("rating", "rating", {"rating": 3})), "annotation 1", "a rating of 2 responses"),
    (
        "label-studio",
        task(PAIR, ("box", "rectanglelabels", {"x": 1})),
        "annotation 1",
        "a result of type 'rectanglelabels' is no kind of judgement",
    ),
    (
        "label-studio",
        task(GRADED, ("free", "textarea", {"text": ["hm"]})),
        "annotation 1",
        "the role of the text 'free' is unknown: call it correction, critique, demonstration or comment",
    ),
    (
        "label-studio",
        task(LIST, ("rank", "ranker", {"ranker": {"good": ["llm_1"], "bad": ["llm_2"]}})),
        "annotation 1",
        "the buckets good, bad are categories, not ranks: call them tier-1, tier-2, ...",
    ),
    (
        "label-studio",
        task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_1", "llm_9"]}})),
        "annotation 1",
        "no response 'llm_9' among llm_0, llm_1, llm_2",
    ),
    (
        "label-studio",
        {"data": {"text1": "x", "text2": "y"}},
        "",
        "no prompt among text1, text2: name one of them 'prompt'",
    ),
    ("label-studio", {"data": {**PAIR, "answer2": "Paris"}}, "", "identical replies"),
    (
        "label-studio",
        {"data": {**PAIR, "assent": {"kind": "comparisson"}}},
        "",
        "no 'comparisson' among feedback; did you mean 'comparison'?",
    ),
    (
        "label-studio",
        {"data": {**PAIR, "assent": {"task_order": [0, 0]}}},
        "",
        "'task_order' is [0, 0], which does not name each of 2 items once",
    ),
    (
        "argilla",
        record(TWO, preference=["response_3"]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "no response 'response_3' among response_1, response_2",
    ),
    (
        "argilla",
        record(ONE, sentiment=["glad"]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "the role of the text 'sentiment' is unknown: call it correction, critique, demonstration or comment",
    ),
    (
        "argilla",
        record(ONE, quote=[[{"label": "quote", "start": 0, "end": 99}]]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "'quote' marks 0 to 99 of a response of 9 characters",
    ),
    (
        "argilla",
        record(ONE, topics=[["a", "b"]]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "no response 'a' among response",
    ),
    (
        "argilla",
        record(ONE, rating=[None]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "null for 'rating' is no kind of judgement",
    ),
    ("argilla", {**record(ONE), "responses": []}, "", ""),
    ("argilla", {**record(ONE), "responses": {"rating": 5}}, "", "'rating' in 'responses' is not a list of objects"),
    ("argilla", {**record(ONE), "metadata": {"assent": "{"}}, "", "'assent' in 'metadata' is broken JSON"),
]


@pytest.mark.parametrize(("format", "row", "part", "reason"), BROKEN)
def test_broken_annotation_is_skipped_with_its_reason(
    format: str, row: Any, part: str, reason: str, tmp_path: Path
) -> None:
    good = {"label-studio": task(PAIR, LEFT, id=1), "argilla": record(TWO, preference=["response_1"])}[format]
    second = {"label-studio": task(PAIR, LEFT, id=2), "argilla": {**good, "id": "2"}}[format]
    reading = read_file(saved(tmp_path, "file.json", json.dumps([good, row, second])))
    assert refused(reading) == ([(", ".join(filter(None, ("file.json:row 2", part))), reason)] if reason else [])
    assert (reading.format, len(reading.feedback), reading.num_rows, reading.num_used) == (
        format,
        2,
        3,
        2 + (not reason),
    )


def test_broken_annotation_does_not_skip_the_others(tmp_path: Path) -> None:
    row = task(PAIR, LEFT)
    row["annotations"] += [task(PAIR)["annotations"][0], {**row["annotations"][0], "completed_by": 8}]
    reading = read_file(saved(tmp_path, "x.json", json.dumps([row])))
    assert [event.annotator for event in reading.feedback] == ["label-studio:83:7", "label-studio:83:8"]
    assert refused(reading) == [("x.json:row 1, annotation 2", "no judgement")]
    assert str(reading) == "1 of 1 rows read as label-studio; 1 skipped: no judgement"


def test_argilla_drafts_are_skipped_by_name(tmp_path: Path) -> None:
    reading = read_file(
        saved(tmp_path, "x.json", json.dumps([flattened(record(TWO, preference=["response_1", "response_2"]))]))
    )
    assert len(reading.feedback) == 1
    assert refused(reading)[0][1] == "its status is 'draft', not submitted"


HEADER = "prompt,a,b,preference\n"
ROWS: list[tuple[str, str]] = [
    ("Hi?,Yes,No\n", "3 cells under 4 columns"),
    ("Hi?,Yes,No,a,more\n", "5 cells under 4 columns"),
    ("Hi?,Yes,No,c\n", "no response 'c' among a, b"),
    ("Hi?,Yes,No,\n", "no judgement"),
    ("Hi?,Yes,Yes,a\n", "identical replies"),
    ("Hi?,Yes,,a\n", "a comparison of 1 responses"),
    ('Hi?,"Yes" and,No,a\n', "broken quotation: ',' expected after '\"'"),
]


@pytest.mark.parametrize(("row", "reason"), ROWS)
def test_broken_csv_row_is_named_by_its_line(row: str, reason: str, tmp_path: Path) -> None:
    good = '"Which of\nthese?",Yes,No,a\n'
    whole = (HEADER + good + "\n" + row + good.replace('"Which of\nthese?"', "Which?")).encode(errors="surrogateescape")
    reading = read_file(saved(tmp_path, "x.csv", whole))
    assert refused(reading) == [("x.csv:5", reason)]
    assert [prompt.text for prompt in reading.prompts] == ["Which of\nthese?", "Which?"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_csv_separators_and_line_ends_are_read_alike(
    mark: str, start: str, end: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    rows = [
        ["prompt", "response", "rating"],
        ["Sky, or sea?", 'Blå; "ja"', "6"],
        ["", "", ""],
        ["Grass?", "Green\nor\tnot", "2"],
    ]
    cells = (mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    path = saved(tmp_path, "x.csv.gz", pack((start + end.join(cells) + end).encode()))
    reading = read_file(path)
    assert [prompt.text for prompt in reading.prompts] == ["Sky, or sea?", "Grass?"]
    assert [item.text for item in reading.responses] == ['Blå; "ja"', "Green\nor\tnot"]
    assert (reading.skipped, reading.num_rows) == ((), 2)


@pytest.mark.parametrize(
    ("content", "judged"),
    [
        (b"", "x.csv is empty"),
        (b"prompt,a,b\n", "x.csv is empty"),
        (b"prompt,a,b\nx\n", "x.csv holds no row under its header; first x.csv:2: 1 cells under 3 columns"),
        (b"question,a\nx,y\n", "no format has rows of question, a; known: alpaca, csv, label-studio, "),
        (b"prompt,A,a\nx,y,z\n", "x.csv:1: the header names 'a' twice: remove one"),
        ("prompt,a\nx,y\n".encode("utf-16"), "x.csv is UTF-16: save it as UTF-8"),
        (b'"prompt,a\nx,y\n', "x.csv:1: the quotation mark is never closed: close it"),
    ],
)
def test_unreadable_csv_is_one_error_in_one_line(content: bytes, judged: str, tmp_path: Path) -> None:
    with pytest.raises(AssentError) as error:
        read_file(saved(tmp_path, "x.csv", content))
    assert judged in str(error.value) and "\n" not in str(error.value)


WORDS = (
    *("data", "annotations", "result", "type", "value", "selected", "ranker", "rating", "choices", "text", "labels"),
    *(
        "from_name",
        "completed_by",
        "created_at",
        "lead_time",
        "assent",
        "task_order",
        "truncated",
        "kind",
        "is_display_order",
        "prompt",
    ),
    *("conversations", "from", "tool_calls", "system", "tools", "kto_tag"),
    *("answer1", "answer2", "items", "id", "body", "messages", "role", "content", "fields", "responses", "metadata"),
    *(
        "user_id",
        "status",
        "rank",
        "start",
        "end",
        "label",
        "preference",
        "x.responses",
        "x.responses.users",
        "answers",
    ),
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 9), st.floats(), TEXT, st.sampled_from(["left", "response_1", "tie"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from(WORDS), VALUES, min_size=1),
    st.sampled_from([format for format in FORMATS if format not in ("csv", "events")]),
)
def test_random_rows_do_not_crash_a_format(row: dict[str, Any], format: str) -> None:
    rows: tuple[dict[str, Any], ...] = (
        row,
        task(PAIR, LEFT) | row,
        record(TWO, preference=["response_1"]) | row,
        {**PAIR, "annotation_id": 1, "annotator": 2, "comparison": "left"} | row,
        {"conversation_a": row.get("messages"), "conversation_b": row.get("messages"), "winner": "tie"} | row,
        {"conversations": row.get("messages"), "chosen": row.get("value"), "rejected": row} | row,
        {"instruction": row.get("text"), "output": row.get("body"), "history": row.get("items")} | row,
        {"input": row, "preferred_output": row.get("messages"), "non_preferred_output": []} | row,
    )
    for changed in rows:
        for look_at in (
            FORMATS[format].unread_fields,
            FORMATS[format].match_score,
            lambda entry: list(FORMATS[format].decode(entry, "x")),
        ):
            with suppress(AssentError):
                look_at(json.loads(json.dumps(changed)))


@given(st.text(st.sampled_from("ab,;\t\"\n\r =@'é"), max_size=60))
def test_random_tables_do_not_crash_the_reader(content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            reading = read_file(saved(Path(folder), "x.csv", HEADER + content))
        except AssentError:
            return
        assert reading.num_used + len(reading.skipped) == reading.num_rows
