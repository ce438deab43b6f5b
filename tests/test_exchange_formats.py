"""Label Studio, Argilla and tables: what goes out comes back, what others wrote comes in, what is broken is named."""

import csv
import gzip
import json
import os
import shutil
import tempfile
import threading
import tracemalloc
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
from test_exchange import SAID, TEXT, lines
from test_import_export_inspect import here

from assent.cli import main
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
from assent.formats.files.exchange import FORMATS, Reading, load, look, put, questions, read, stream, write
from assent.formats.files.rows import rows
from assent.records import Feedback, Judgement, Message, Prompt, Purpose, Response, Task
from assent.registry import names, resolve
from assent.store.database import Store

NEW = ("label-studio", "argilla", "csv")
ENDS = {"label-studio": "json", "argilla": "json", "csv": "csv"}
KINDS = ("comparison", "ranking", "rating", "approval", "correction", "critique", "demonstration")
WHEN = ["1970-01-01T00:00:00Z", "2026-11-20T10:00:00Z", "2021-03-09T22:16:08.728353Z"]
WHO = ["ann", "imported:old.jsonl", "argilla:06f7d4c0-e048-43d2-ab3f-06f147616ac6", "0193a5f27c1e7aaa"]
PURPOSES: list[Purpose] = ["train", "evaluate", "gold"]
ODD = (
    *("=1+1", "'=1+1", "''@SUM(A1)", "+49 30", "-1", "\t=x", "a", "b", "left", "response_2", "\ufeffbom", 'say "x"'),
    *("one,two;three\tfour", "line\r\nline\n", "[1, 2]", '[{"role": "user"}]', "tie", "yes", "'", "'\r-"),
)
"""Texts that one format or another could take for something else."""
SPOKEN = st.one_of(SAID, st.sampled_from(ODD))
ASKED = st.one_of(TEXT, SPOKEN)
PROMPTS = st.one_of(
    st.builds(Prompt.plain, ASKED, st.sampled_from(["", "creative"])),
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), ASKED), min_size=1, max_size=3).map(
        lambda turns: Prompt(tuple(turns))
    ),
)


@st.composite
def inquiry(draw: st.DrawFn, usual: bool) -> TaskWithJudgements:
    """A question of any kind with up to three answers; `usual` says only what every labelling tool has words for."""
    kind = draw(st.sampled_from(KINDS))
    prompt = draw(PROMPTS)
    many = {"comparison": (2, 2), "ranking": (2, 6), "demonstration": (0, 3)}.get(kind, (1, 1))
    texts = draw(st.lists(SPOKEN, min_size=many[0], max_size=many[1], unique=True))
    items = [Response(prompt.id, text, "policy", draw(st.booleans())) for text in texts]
    ids = draw(st.permutations([item.id for item in items]))
    purpose = draw(st.sampled_from(PURPOSES))
    query = Task(kind, prompt.id, tuple(ids), purpose, draw(st.sampled_from(["", "Which is kinder?"])))
    answers = tuple(
        Feedback(
            query.id,
            draw(st.sampled_from(WHO)),
            draw(answer(kind, ids, {item.id: item.text for item in items}, usual)),
            draw(st.sampled_from(WHEN)),
            draw(st.sampled_from([0.0, 2.5, 4.288, 1e-3])),
            draw(st.sampled_from([(), tuple(ids), tuple(reversed(ids))])),
            draw(st.one_of(st.just(""), SPOKEN)),
            "",
            draw(st.uuids()).hex,
            draw(st.sampled_from([(), ("harm",), ("pii", "language")])),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    return TaskWithJudgements(prompt, tuple(items), query, answers)


def answer(kind: str, ids: list[str], texts: dict[str, str], usual: bool) -> st.SearchStrategy[Judgement]:
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
            return st.builds(Rating, axes.map(lambda found: tuple(found.items())), weight)
        case "approval":
            return st.builds(Approval, st.booleans(), weight)
        case "correction":
            return st.builds(Correction, SPOKEN)
        case "critique":
            part = st.sampled_from(["", *{texts[ids[0]], texts[ids[0]][:2]}])
            return st.builds(Critique, SPOKEN, part if usual else st.one_of(part, st.just("nowhere in it")))
    return st.builds(Demonstration, SPOKEN, weight)


@st.composite
def tiers(draw: st.DrawFn, ids: list[str]) -> tuple[tuple[str, ...], ...]:
    """Any tiers of two items or more; some items may be left out."""
    order = draw(st.permutations(ids))[: draw(st.integers(2, len(ids)))]
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1))))
    ends = zip([0, *cuts], [*cuts, len(order)], strict=True)
    return tuple(tuple(order[start:end]) for start, end in ends)


USUAL, ANY = inquiry(True), inquiry(False)


@cache
def empty() -> Path:
    """A store without anything, to be copied: making one takes longer than all that is done with it."""
    path = Path(tempfile.mkdtemp()) / "empty.db"
    Store.open(path).close()
    return path


@contextmanager
def fresh(*told: TaskWithJudgements) -> Iterator[Store]:
    """A store that holds these questions and answers."""
    with tempfile.TemporaryDirectory() as folder, Store.open(shutil.copy(empty(), folder)) as store:
        for each in told:
            store.add_prompts([each.prompt])
            store.add_responses(each.items)
            store.add_tasks([each.query])
            store.add_feedback(each.answers)
        yield store


def saved(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(reading: Reading) -> list[tuple[str, str]]:
    return [(each.where, each.reason) for each in reading.rejected]


def said(reading: Reading) -> list[Judgement]:
    return [event.judgement for event in reading.feedback]


def texts(reading: Reading, ids: Iterable[str]) -> list[str]:
    found = {item.id: item.text for item in reading.responses}
    return [found[item] for item in ids]


# There and back


@pytest.mark.parametrize("format", NEW)
@settings(max_examples=50)
@given(told=st.lists(USUAL, min_size=1, max_size=3))
def test_what_every_tool_has_words_for_comes_back_as_it_was(format: str, told: list[TaskWithJudgements]) -> None:
    with fresh(*told) as one, fresh() as two, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{ENDS[format]}"
        assert write(one, path, format).left_out == ()
        assert load(path, two).rejected == ()
        assert Counter(two.feedback()) == Counter(one.feedback())
        assert set(two.tasks()) == set(one.tasks())
        bare = [{(p.messages, p.category) for p in store.prompts()} for store in (one, two)]
        assert len({messages for messages, _ in bare[0]}) < len(bare[0]) or bare[0] == bare[1]
        counts = one.counts()
        assert put(read(path), one) == (0, 0, 0, 0)  # and where it came from it is known
        assert one.counts() == counts


@pytest.mark.parametrize("format", NEW)
@settings(max_examples=50)
@given(told=st.lists(ANY, min_size=1, max_size=3))
def test_what_a_tool_has_no_word_for_is_left_out_by_name_and_never_altered(
    format: str, told: list[TaskWithJudgements]
) -> None:
    with fresh(*told) as one, fresh() as two, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file.{ENDS[format]}"
        left_out = write(one, path, format).left_out
        gone = {each.where.removeprefix("answer ") for each in left_out}
        kept = [event for event in one.feedback() if event.id not in gone]
        assert len(kept) + len(left_out) == len(list(one.feedback()))
        assert all(any(no in each.reason for no in CANNOT[format]) for each in left_out), left_out
        if kept:
            load(path, two)
        assert Counter(two.feedback()) == Counter(kept)


TWICE = ("names each axis once", "as something else", "as a second", "two answers of")  # an axis called rating
CANNOT = {
    "label-studio": ("has no word for", "whole stars", "a quote that does not stand", *TWICE),
    "argilla": ("has no word for", "whole numbers", "a quote that does not stand", *TWICE),
    "csv": (),
}


def ranked(*tiers: tuple[int, ...]) -> TaskWithJudgements:
    """Three birds, ranked."""
    prompt = Prompt.ask("Name a bird.")
    items = tuple(Response(prompt.id, text, "secret-model") for text in ("A wren.", "An owl.", "A bat."))
    ids = [item.id for item in items]
    query = Task("ranking", prompt.id, tuple(ids))
    answer = Ranking(tuple(tuple(ids[place] for place in tier) for tier in tiers))
    return TaskWithJudgements(
        prompt, items, query, (Feedback(query.id, "ann", answer, WHEN[1], display_order=tuple(ids)),)
    )


def compared(answer: str = "", who: str = "ann", shown: tuple[int, ...] = (0, 1), **more: Any) -> TaskWithJudgements:
    """Two birds, of which the first is preferred unless there is a verdict."""
    prompt = Prompt.ask("Name a bird.")
    items = tuple(Response(prompt.id, text, "secret-model") for text in ("A wren.", "An owl."))
    ids = tuple(item.id for item in items)
    query = Task("comparison", prompt.id, ids)
    told = Comparison(verdict=answer) if answer else Comparison(ids[0], **more)  # type: ignore[arg-type]
    event = Feedback(query.id, who, told, WHEN[1], display_order=tuple(ids[place] for place in shown))
    return TaskWithJudgements(prompt, items, query, (event,))


def test_ties_are_buckets_ranks_and_equal_signs(tmp_path: Path) -> None:
    told = ranked((1,), (0, 2))
    for format in NEW:
        write([told], tmp_path / format, format)
    (task,), (record,) = (json.loads((tmp_path / name).read_text()) for name in NEW[:2])
    assert task["annotations"][0]["result"][0]["value"] == {"ranker": {"tier-1": ["2"], "tier-2": ["1", "3"]}}
    assert record["responses"]["ranking"][0]["value"] == [
        {"value": "response_2", "rank": 1},
        {"value": "response_1", "rank": 2},
        {"value": "response_3", "rank": 2},
    ]
    (row,) = csv.DictReader((tmp_path / "csv").read_text().splitlines())
    assert (row["ranking"], row["a"], row["shown"]) == ("b > a = c", "A wren.", "a b c")


def test_an_order_without_ties_is_one_list_of_label_studio(tmp_path: Path) -> None:
    write([ranked((1,), (2,), (0,))], tmp_path / "tasks.json", "label-studio")
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["annotations"][0]["result"][0]["value"] == {"ranker": {"rank": ["2", "3", "1"]}}


def test_left_is_the_answer_that_stood_on_the_left_for_each_annotator(tmp_path: Path) -> None:
    one, other = compared(shown=(0, 1)), compared(who="bob", shown=(1, 0))
    write([one._replace(answers=one.answers + other.answers)], tmp_path / "tasks.json", "label-studio")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [(t["data"]["answer1"], t["annotations"][0]["annotator"]) for t in tasks] == [
        ("A wren.", "ann"),
        ("An owl.", "bob"),
    ]
    assert [t["annotations"][0]["result"][0]["value"]["selected"] for t in tasks] == ["left", "right"]
    reading = read(tmp_path / "tasks.json")
    assert [texts(reading, event.display_order) for event in reading.feedback] == [
        ["A wren.", "An owl."],
        ["An owl.", "A wren."],
    ]
    assert len(reading.queries) == 1 and len({event.judgement for event in reading.feedback}) == 1


def test_a_question_that_nobody_answered_goes_out_as_a_task_and_comes_back_as_a_question(tmp_path: Path) -> None:
    asked = compared()._replace(answers=())
    for format in ("label-studio", "argilla"):
        assert write([asked], tmp_path / format, format).rows == 1
        reading = read(tmp_path / format)
        assert (reading.queries, reading.feedback) == ((asked.query,), ())
    assert write([asked], tmp_path / "csv", "csv").left_out[0].reason.startswith("a question without an answer")


@pytest.mark.parametrize("format", NEW)
def test_nobody_is_named_by_an_address_and_no_model_by_its_name(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{ENDS[format]}"
    write([compared(who="Bob@Example.org ")], path, format)
    assert "xample" not in path.read_text() and "secret" not in path.read_text()
    assert [event.annotator for event in read(path).feedback] == [pseudonym("bob@example.org")]


def test_an_answer_that_was_changed_in_the_other_tool_is_a_new_one(tmp_path: Path) -> None:
    told = compared()
    with fresh(told) as store:
        write(store, tmp_path / "tasks.json", "label-studio")
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        task["annotations"][0]["result"][0]["value"]["selected"] = "right"
        new = put(read(saved(tmp_path, "tasks.json", json.dumps([task]))), store)
        assert new == (0, 0, 0, 1)
        before, after = store.feedback()
    assert isinstance(before.judgement, Comparison) and isinstance(after.judgement, Comparison)
    assert (before.judgement.preferred, after.judgement.preferred) == (told.items[0].id, told.items[1].id)


def test_an_answer_that_was_superseded_stays_at_home(tmp_path: Path) -> None:
    first = compared()
    second = compared("tie")
    event = replace(second.answers[0], supersedes=first.answers[0].id, id="later")
    with fresh(first._replace(answers=(*first.answers, event))) as store:
        assert [each.id for asked in questions(store) for each in asked.answers] == ["later"]
        for format in NEW:
            assert write(store, tmp_path / format, format).rows == 1
            assert (
                put(read(tmp_path / format, format), store).feedback == 0
            )  # what it replaced is not told: no conflict


# Files of others


def task(data: Any, *results: Any, **more: Any) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    found = [{"id": "Dx_aB91ISN", "from_name": n, "to_name": n, "type": t, "value": v} for n, t, v in results]
    annotation = {"id": 9, "completed_by": 7, "lead_time": 4.288, "created_at": "2021-03-09T22:16:08.728353Z"}
    annotation |= {"was_cancelled": False, "ground_truth": False, "result": found, **more}
    return {"id": 1, "project": 83, "data": data, "annotations": [annotation], "predictions": []}


PAIR = {"prompt": "Capital of France?", "answer1": "Paris", "answer2": "London"}
LIST = {
    "prompt": "Why?",
    "items": [{"id": f"llm_{n}", "title": f"LLM {n}", "body": text} for n, text in enumerate("xyz")],
}
GRADED = {"document": "Opossums live in America.", "summary": "They play dead."}
LEFT = ("comparison", "pairwise", {"selected": "left"})


def test_the_templates_of_label_studio_are_read(tmp_path: Path) -> None:
    tasks = [
        task(PAIR, LEFT, ("why", "textarea", {"text": ["It is."]})),
        task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_2", "llm_0", "llm_1"]}})),
        task(GRADED, ("rating", "rating", {"rating": 4})),
        task({"prompt": "Write sum."}, ("instruction", "textarea", {"text": ["def sum(): ..."]})),
        task({"prompt": "Hi", "response": "Helo"}, ("corrected", "textarea", {"text": "Hello"})),
    ]
    reading = read(saved(tmp_path, "export.json", json.dumps(tasks, indent=2)))
    assert (reading.format, reading.used, reading.rejected) == ("label-studio", 5, ())
    first = reading.feedback[0]
    assert (first.annotator, first.created_at, first.duration) == (
        "label-studio:83:7",
        "2021-03-09T22:16:08.728353Z",
        4.288,
    )
    assert (texts(reading, first.display_order), first.comment) == (["Paris", "London"], "It is.")
    assert isinstance(first.judgement, Comparison) and texts(reading, [first.judgement.preferred]) == ["Paris"]
    ranking, *rest = said(reading)[1:]
    assert isinstance(ranking, Ranking) and texts(reading, ranking.items) == ["z", "x", "y"]
    assert rest == [Rating((("overall", 4),)), Demonstration("def sum(): ..."), Correction("Hello")]
    with fresh() as store:
        assert put(reading, store).feedback == 5
        assert put(reading, store) == (0, 0, 0, 0)


def test_buckets_with_numbers_are_ranks_and_items_that_nobody_moved_were_not_judged(tmp_path: Path) -> None:
    value = {"ranker": {"_": ["llm_1"], "tier-2": ["llm_0"], "tier-1": ["llm_2"], "tier-3": []}}
    (answer,) = said(read(saved(tmp_path, "x.json", json.dumps([task(LIST, ("rank", "ranker", value))]))))
    assert isinstance(answer, Ranking) and [len(tier) for tier in answer.tiers] == [1, 1]


def test_tasks_without_annotations_are_questions_in_either_of_their_two_forms(tmp_path: Path) -> None:
    wrapped = read(
        saved(tmp_path, "tasks.json", json.dumps([{"data": PAIR}, {"data": LIST}, {"data": {"prompt": "Hm?"}}]))
    )
    bare = read(saved(tmp_path, "bare.json", json.dumps([PAIR, LIST, {"prompt": "Hm?"}])), "label-studio")
    for reading in (wrapped, bare):
        assert [query.kind for query in reading.queries] == ["comparison", "ranking", "demonstration"]
        assert reading.feedback == ()


def test_a_grown_export_of_the_same_project_adds_only_what_is_new(tmp_path: Path) -> None:
    first, second = task(PAIR, LEFT), task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_1", "llm_0"]}}))
    with fresh() as store:
        put(read(saved(tmp_path, "monday.json", json.dumps([first]))), store)
        assert put(read(saved(tmp_path, "tuesday.json", json.dumps([first, second]))), store).feedback == 1


def record(fields: Any, **responses: Any) -> dict[str, Any]:
    """A record as `to_json` of Argilla 2.8 writes it; one value for each of two users."""
    users = ("06f7d4c0-e048-43d2-ab3f-06f147616ac6", "16f7d4c0-e048-43d2-ab3f-06f147616ac6")
    found = {q: [{"value": v, "user_id": u} for v, u in zip(vs, users, strict=False)] for q, vs in responses.items()}
    told = {"id": "1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": found}
    return told | {"vectors": {}, "status": "completed", "_server_id": None}


TWO = {"instruction": "Say hi.", "response_1": "Hi.", "response_2": "Go."}
ONE = {"prompt": "Say hi.", "response": "Hi there."}


def test_every_question_of_argilla_that_is_an_answer_of_ours_is_read(tmp_path: Path) -> None:
    records = [
        record(TWO, preference=["response_2", "tie"]),
        record(TWO, ranking=[["response_2", "response_1"], [{"value": f"response_{n}", "rank": 1} for n in (1, 2)]]),
        record(ONE, rating=[3], helpful=[7]),
        record(ONE, correction=["Hello there."], comment=["stiff"]),
        record(ONE, marks=[[{"label": "rude", "start": 0, "end": 2}, {"label": "vague", "start": 3, "end": 8}]]),
        record({"prompt": "Say hi."}, answer=["Hi!"]),
    ]
    reading = read(saved(tmp_path, "records.json", json.dumps(records)))
    assert (reading.format, reading.rejected) == ("argilla", ())
    chosen, tie, order, tied, *rest = said(reading)
    assert isinstance(chosen, Comparison) and texts(reading, [chosen.preferred]) == ["Go."]
    assert isinstance(order, Ranking) and [texts(reading, tier) for tier in order.tiers] == [["Go."], ["Hi."]]
    assert isinstance(tied, Ranking) and [texts(reading, tier) for tier in tied.tiers] == [["Hi.", "Go."]]
    assert tie == Comparison(verdict="tie")
    assert rest == [
        Rating((("helpful", 7), ("overall", 3))),
        Correction("Hello there."),
        Critique("rude", "Hi"),
        Critique("vague", "there"),
        Demonstration("Hi!"),
    ]
    assert {event.comment for event in reading.feedback} == {"", "stiff"}
    assert reading.feedback[0].annotator == "argilla:06f7d4c0-e048-43d2-ab3f-06f147616ac6"


def flattened(one: dict[str, Any]) -> dict[str, Any]:
    flat = {"id": one["id"], "status": one["status"], "_server_id": None, **one["fields"]}
    for question, answers in one["responses"].items():
        flat[f"{question}.responses"] = [answer["value"] for answer in answers]
        flat[f"{question}.responses.users"] = [answer["user_id"] for answer in answers]
        flat[f"{question}.responses.status"] = ["submitted", "draft"][: len(answers)]
    return flat


def test_the_shapes_that_argilla_exports_say_the_same(tmp_path: Path) -> None:
    one = record(TWO, preference=["response_2"])
    shapes = [
        [one],
        [flattened(one)],
        {name: [value] for name, value in one.items()},
        {name: [value] for name, value in flattened(one).items()},
        {"1": one},
    ]
    readings = [read(saved(tmp_path, "file.json", json.dumps(shape))) for shape in shapes]
    assert {(reading.format, reading.feedback) for reading in readings} == {("argilla", readings[0].feedback)}
    pretty = read(saved(tmp_path, "file.json", json.dumps(shapes[2], indent=2)))
    assert pretty.feedback == readings[0].feedback


def test_a_table_that_somebody_wrote_by_hand_is_read(tmp_path: Path) -> None:
    table = """Prompt,A,B,C,Preference,Ranking,Strength,Annotator
Capital of France?,Paris,London,,a,,3,ann
Capital of Spain?,Rome,Madrid,,B,,,bob@example.org
Best fruit?,Apple,Pear,,tie,,,
Best bird?,Wren,Owl,Bat,,c>a = b,,ann
"""
    reading = read(saved(tmp_path, "hand.csv", table))
    assert (reading.format, reading.used, reading.rejected) == ("csv", 4, ())
    paris, madrid, tie, ranking = said(reading)
    assert isinstance(paris, Comparison) and (texts(reading, [paris.preferred]), paris.strength) == (["Paris"], 3)
    assert isinstance(madrid, Comparison) and texts(reading, [madrid.preferred]) == ["Madrid"]
    assert tie == Comparison(verdict="tie")
    assert isinstance(ranking, Ranking) and [texts(reading, tier) for tier in ranking.tiers] == [
        ["Bat"],
        ["Wren", "Owl"],
    ]
    who = [event.annotator for event in reading.feedback]
    assert who == ["ann", pseudonym("bob@example.org"), "imported:hand.csv", "ann"]
    assert all(list(query.items) == sorted(query.items) for query in reading.queries)


def test_ratings_demonstrations_and_the_rest_have_columns_of_their_own(tmp_path: Path) -> None:
    table = """prompt;response;rating;rating:kind;approved;correction;critique;quote;demonstration
Hi?;Hello.;5;6,5;;;;;
Hi?;Hello.;;;no;;;;
Hi?;Helo.;;;;Hello.;;;
Hi?;Helo.;;;;;A typo.;Helo;
Hi?;;;;;;;;Hello!
"""
    reading = read(saved(tmp_path, "hand.csv", table))
    assert said(reading) == [
        Rating((("kind", 6.5), ("overall", 5))),
        Approval(False),
        Correction("Hello."),
        Critique("A typo.", "Helo"),
        Demonstration("Hello!"),
    ]


@pytest.mark.parametrize(
    ("format", "scale", "given", "stars"), [("csv", "1-5", "5", 7), ("csv", "0-10", "5", 4), ("csv", "", "5", 5)]
)
def test_a_rating_is_brought_from_its_scale_to_ours(
    format: str, scale: str, given: str, stars: float, tmp_path: Path
) -> None:
    path = saved(tmp_path, "x.csv", f"prompt,response,rating\nHi?,Hello.,{given}\n")
    assert said(read(path, scale=scale)) == [Rating((("overall", stars),))]
    tasks = saved(tmp_path, "x.json", json.dumps([task(GRADED, ("rating", "rating", {"rating": int(given)}))]))
    assert said(read(tasks, scale=scale)) == [Rating((("overall", stars),))]


def test_a_scale_that_is_none_or_that_the_format_tells_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,response,rating\nHi?,Hello.,5\n")
    with pytest.raises(AssentError, match="a scale of ratings is its lowest and highest, such as 1-5, not '5'"):
        read(path, scale="5")
    with pytest.raises(AssentError, match="prompt-only tells the scale of its ratings: leave --scale out"):
        read(lines(tmp_path / "x.jsonl", {"prompt": "Hi?"}), scale="1-5")


# What is broken


BROKEN: list[tuple[str, Any, str, str]] = [
    ("label-studio", task(PAIR), "annotation 1", "no answer"),
    ("label-studio", task(PAIR, LEFT, was_cancelled=True), "annotation 1", "skipped by its annotator"),
    (
        "label-studio",
        task(PAIR, LEFT, LEFT),
        "annotation 1",
        "'comparison' is a second better: each needs an annotation of its own",
    ),
    (
        "label-studio",
        task(PAIR, LEFT, ("verdict", "choices", {"choices": ["tie"]})),
        "annotation 1",
        "both 'answer1' and 'tie' were chosen",
    ),
    ("label-studio", task(PAIR, LEFT, result=None), "annotation 1", "'result' is no list of objects"),
    (
        "label-studio",
        task(PAIR, LEFT, created_at="yesterday"),
        "annotation 1",
        "'created_at' is 'yesterday', not a time such as 2026-11-20T10:00:00Z",
    ),
    ("label-studio", task(PAIR, ("x", "pairwise", {"selected": "none"})), "annotation 1", "'none' of 2 answers"),
    (
        "label-studio",
        task(GRADED, ("rating", "rating", {"rating": 9})),
        "annotation 1",
        "a rating of 9 on a scale of 1-7: name the right one with --scale",
    ),
    ("label-studio", task(PAIR, ("rating", "rating", {"rating": 3})), "annotation 1", "a rating about 2 answers"),
    (
        "label-studio",
        task(PAIR, ("box", "rectanglelabels", {"x": 1})),
        "annotation 1",
        "a result of type 'rectanglelabels', for which there is no kind of answer",
    ),
    (
        "label-studio",
        task(GRADED, ("free", "textarea", {"text": ["hm"]})),
        "annotation 1",
        "a text called 'free': call it correction, critique, demonstration or note",
    ),
    (
        "label-studio",
        task(LIST, ("rank", "ranker", {"ranker": {"good": ["llm_1"], "bad": ["llm_2"]}})),
        "annotation 1",
        "buckets good, bad are categories, not ranks: call them tier-1, tier-2, ...",
    ),
    (
        "label-studio",
        task(LIST, ("rank", "ranker", {"ranker": {"rank": ["llm_1", "llm_9"]}})),
        "annotation 1",
        "no answer 'llm_9' among llm_0, llm_1, llm_2",
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
        {"data": {**PAIR, "assent": {"order": [0, 0]}}},
        "",
        "'order' is [0, 0], which does not name each of 2 answers once",
    ),
    (
        "argilla",
        record(TWO, preference=["response_3"]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "no answer 'response_3' among response_1, response_2",
    ),
    (
        "argilla",
        record(ONE, sentiment=["glad"]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "a text called 'sentiment': call it correction, critique, demonstration or note",
    ),
    (
        "argilla",
        record(ONE, quote=[[{"label": "quote", "start": 0, "end": 99}]]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "'quote' marks 0 to 99 of an answer of 9 letters",
    ),
    (
        "argilla",
        record(ONE, topics=[["a", "b"]]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "no answer 'a' among response",
    ),
    (
        "argilla",
        record(ONE, rating=[None]),
        "responses of 06f7d4c0-e048-43d2-ab3f-06f147616ac6",
        "null for 'rating', for which there is no kind of answer",
    ),
    ("argilla", {**record(ONE), "responses": []}, "", ""),
    ("argilla", {**record(ONE), "responses": {"rating": 5}}, "", "'rating' in 'responses' is no list of objects"),
    ("argilla", {**record(ONE), "metadata": {"assent": "{"}}, "", "'assent' in 'metadata' is broken JSON"),
]


@pytest.mark.parametrize(("format", "row", "part", "reason"), BROKEN)
def test_a_broken_part_is_named_and_the_rest_is_read(
    format: str, row: Any, part: str, reason: str, tmp_path: Path
) -> None:
    good = {"label-studio": task(PAIR, LEFT, id=1), "argilla": record(TWO, preference=["response_1"])}[format]
    other = {"label-studio": task(PAIR, LEFT, id=2), "argilla": {**good, "id": "2"}}[format]
    reading = read(saved(tmp_path, "file.json", json.dumps([good, row, other])))
    assert refused(reading) == ([(", ".join(filter(None, ("file.json:row 2", part))), reason)] if reason else [])
    assert (reading.format, len(reading.feedback), reading.rows, reading.used) == (format, 2, 3, 2 + (not reason))


def test_one_broken_annotation_leaves_those_of_the_others(tmp_path: Path) -> None:
    row = task(PAIR, LEFT)
    row["annotations"] += [task(PAIR)["annotations"][0], {**row["annotations"][0], "completed_by": 8}]
    reading = read(saved(tmp_path, "x.json", json.dumps([row])))
    assert [event.annotator for event in reading.feedback] == ["label-studio:83:7", "label-studio:83:8"]
    assert refused(reading) == [("x.json:row 1, annotation 2", "no answer")]
    assert str(reading) == "1 of 1 rows read as label-studio; 1 rejected: no answer"


def test_drafts_of_argilla_are_named(tmp_path: Path) -> None:
    reading = read(
        saved(tmp_path, "x.json", json.dumps([flattened(record(TWO, preference=["response_1", "response_2"]))]))
    )
    assert len(reading.feedback) == 1
    assert refused(reading)[0][1] == "its status is 'draft', not submitted"


HEADER = "prompt,a,b,preference\n"
ROWS: list[tuple[str, str]] = [
    ("Hi?,Yes,No\n", "3 cells under 4 columns"),
    ("Hi?,Yes,No,a,more\n", "5 cells under 4 columns"),
    ("Hi?,Yes,No,c\n", "no answer 'c' among a, b"),
    ("Hi?,Yes,No,\n", "no answer"),
    ("Hi?,Yes,Yes,a\n", "identical replies"),
    ("Hi?,Yes,,a\n", "a comparison about 1 answers"),
    ('Hi?,"Yes" and,No,a\n', "broken quotation: ',' expected after '\"'"),
    ('"Hi?,Yes,No,a\n', "a quotation mark that is never closed"),
]


@pytest.mark.parametrize(("row", "reason"), ROWS)
def test_a_broken_row_of_a_table_is_named_by_its_line(row: str, reason: str, tmp_path: Path) -> None:
    good = '"Which of\nthese?",Yes,No,a\n'
    whole = (HEADER + good + "\n" + row + good.replace('"Which of\nthese?"', "Which?")).encode(errors="surrogateescape")
    reading = read(saved(tmp_path, "x.csv", whole))
    assert refused(reading) == [("x.csv:5", reason)]
    assert [prompt.text for prompt in reading.prompts] == ["Which of\nthese?", "Which?"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_marks_between_cells_and_at_the_ends_make_no_difference(
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
    reading = read(path)
    assert [prompt.text for prompt in reading.prompts] == ["Sky, or sea?", "Grass?"]
    assert [item.text for item in reading.responses] == ['Blå; "ja"', "Green\nor\tnot"]
    assert (reading.rejected, reading.rows) == ((), 2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "x.csv is empty"),
        (b"prompt,a,b\n", "x.csv is empty"),
        (b"prompt,a,b\nx\n", "x.csv holds no row under its header; first x.csv:2: 1 cells under 3 columns"),
        (b"question,a\nx,y\n", "no format has rows of question, a; known: alpaca, csv, label-studio, "),
        (b"prompt,A,a\nx,y,z\n", "x.csv:1: the header names 'a' twice: leave one out"),
        ("prompt,a\nx,y\n".encode("utf-16"), "x.csv is UTF-16: save it as UTF-8"),
        (b'"prompt,a\nx,y\n', "x.csv:1: no header: a quotation mark that is never closed"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_error_in_one_line(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssentError) as error:
        read(saved(tmp_path, "x.csv", content))
    assert told in str(error.value) and "\n" not in str(error.value)


WORDS = (
    *("data", "annotations", "result", "type", "value", "selected", "ranker", "rating", "choices", "text", "labels"),
    *("from_name", "completed_by", "created_at", "lead_time", "assent", "order", "cut", "kind", "shown", "prompt"),
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
    st.sampled_from(
        ["label-studio", "argilla", "lmarena", "openai-preference", "prompt-responses", "sharegpt", "alpaca"]
    ),
)
def test_no_row_whatever_crashes_a_reader(row: dict[str, Any], format: str) -> None:
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
            FORMATS[format].unread,
            FORMATS[format].fits,
            lambda each: list(FORMATS[format].decode(each, "x")),
        ):
            with suppress(AssentError):
                look_at(json.loads(json.dumps(changed)))


@given(st.text(st.sampled_from("ab,;\t\"\n\r =@'é"), max_size=60))
def test_no_table_whatever_crashes_the_reader(content: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            reading = read(saved(Path(folder), "x.csv", HEADER + content))
        except AssentError:
            return
        assert reading.used + len(reading.rejected) == reading.rows


# Formulas in spreadsheets


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "'=1", "''-x"])
def test_a_cell_that_begins_like_a_formula_gets_one_apostrophe_and_loses_it_again(cell: str, tmp_path: Path) -> None:
    told = compared()
    event = replace(told.answers[0], comment=cell)
    write([told._replace(answers=(event,))], tmp_path / "x.csv", "csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["note"] == f"'{cell}"
    assert read(tmp_path / "x.csv").feedback[0].comment == cell


@given(st.lists(SPOKEN, min_size=1, max_size=4))
def test_no_cell_of_a_table_begins_like_a_formula(notes: list[str]) -> None:
    told = compared()
    answers = tuple(replace(told.answers[0], comment=note, id=str(place)) for place, note in enumerate(notes))
    with tempfile.TemporaryDirectory() as folder:
        write([told._replace(answers=answers)], Path(folder) / "x.csv", "csv")
        with (Path(folder) / "x.csv").open(newline="", encoding="utf-8") as file:
            assert not [cell for row in csv.reader(file) for cell in row if cell[:1] in tuple("=+-@\t\r\n\0")]
        assert [event.comment for event in read(Path(folder) / "x.csv").feedback] == notes


def test_an_apostrophe_that_hides_no_formula_stays(tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,demonstration\nHi?,'tis\nHi?,'=1\n")
    assert said(read(path)) == [Demonstration("'tis"), Demonstration("=1")]


# Files that are larger than memory


def many(format: str, count: int) -> Iterator[str]:
    """A file of so many rows of forty kilobytes, in pieces."""
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
                query = Task("demonstration", prompt.id, ())
                event = Feedback(query.id, "ann", Demonstration(long), WHEN[1])
                for thing in (event, query, prompt):  # the wrong way round
                    (row,) = FORMATS["events"].encode(thing)
                    yield json.dumps(row) + "\n"


@pytest.mark.parametrize("format", ["label-studio", "argilla", "csv", "preference", "events"])
def test_a_large_file_is_read_and_written_without_being_held(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assent.formats.files.exchange.CHUNK", 10)
    path = tmp_path / f"large.{ENDS.get(format, 'jsonl')}"
    with path.open("w") as file:
        file.writelines(many(format, 600))
    with fresh() as store:
        tracemalloc.start()
        try:
            source = look(path)
            count = sum(put(reading, store).feedback for reading in stream(source, chunk=10))
            if format in NEW:
                assert write(store, tmp_path / "out", format).rows == 600
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (source.format, count) == (format, 600)
    assert path.stat().st_size > 12e6 and peak < 10e6, f"{peak / 1e6:.1f} MB"


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_is_parsed_the_same_in_pieces_of_any_size(found: list[Any], piece: int, indent: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("assent.formats.files.rows.PIECE", piece)
        path = saved(Path(folder), "x.json", json.dumps(found, indent=indent))
        elements = [line.piece for line in rows(path, "x.json", "array")]
        assert json.dumps(elements) == json.dumps(found)


@pytest.mark.parametrize(
    "spoiled", ["[1, 2", "[1 2]", "[1,]", "[,1]", "[1]]", "[1] x", '[{"a": 1}, {"a": ]', "[01]", '["a]']
)
def test_what_only_looks_like_an_array_is_read_as_lines(spoiled: str, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "Hi?"})
    reading = read(saved(tmp_path, "x.jsonl", f"{spoiled}\n{good}\n"))
    assert [(where, reason.split(":")[0].split(" but")[0]) for where, reason in refused(reading)] in (
        [("x.jsonl:1", "broken JSON")],
        [("x.jsonl:1", "not a JSON object")],
    )
    assert len(reading.prompts) == 1


def test_what_comes_through_a_pipe_is_read_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    whole = json.dumps([task(PAIR, LEFT, id=name) for name in (1, 2, 3)])
    writer = threading.Thread(target=pipe.write_text, args=(whole,))
    writer.start()
    assert len(read(pipe).feedback) == 3
    writer.join()


def test_events_in_any_order_tell_the_same(tmp_path: Path) -> None:
    with fresh(compared(), ranked((0,), (1, 2))) as store:
        write(store, tmp_path / "events.jsonl", "events")
    turned = reversed((tmp_path / "events.jsonl").read_text().splitlines(keepends=True))
    one, other = read(tmp_path / "events.jsonl"), read(saved(tmp_path, "turned.jsonl", "".join(turned)))
    assert (set(one.feedback), set(one.responses)) == (set(other.feedback), set(other.responses))
    assert other.rejected == ()


def test_flags_go_through_events_and_answers_without_any_look_as_they_did(tmp_path: Path) -> None:
    told = compared()
    flagged = replace(told.answers[0], flags=("harm",), id="flagged")
    with fresh(told._replace(answers=(*told.answers, flagged))) as store:
        write(store, tmp_path / "events.jsonl", "events")
        kept = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        assert [row.get("flags") for row in kept if row["record"] == "feedback"] == [None, ["harm"]]
        assert set(read(tmp_path / "events.jsonl").feedback) == set(store.feedback())


# Commands


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a comparison, a ranking, a rating, and a question that waits for its answer."""
    folder = tmp_path / "run"
    rated = compared()
    query = Task("rating", rated.prompt.id, (rated.items[0].id,))
    waiting = Task("comparison", rated.prompt.id, tuple(reversed(rated.query.items)), "evaluate")
    lines(tmp_path / "first.jsonl", {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"})
    assert main(["import", str(tmp_path / "first.jsonl"), "--run", str(folder)]) == 0
    with Store.open(folder / "feedback.db") as store:
        for each in (rated, ranked((0, 1), (2,))):
            store.add_prompts([each.prompt])
            store.add_responses(each.items)
            store.add_tasks([each.query])
            store.add_feedback(each.answers)
        store.add_tasks([query, waiting])
        store.add_feedback([Feedback(query.id, "ann", Rating((("overall", 5.5),)), WHEN[1])])
    return folder


@pytest.mark.parametrize(("format", "rows"), [("label-studio", 3), ("argilla", 3), ("csv", 4)])
def test_a_run_goes_out_and_comes_into_another(format: str, rows: int, run: Path, tmp_path: Path) -> None:
    path = tmp_path / f"out.{ENDS[format]}"
    out = here("export", path, "--run", run, "--format", format)
    assert out.status == 0
    assert f"{path}: {rows} rows written as {format}, of 4 questions with 4 answers in {run}\n" in out.out
    assert ("1 left out" in out.out) == (format != "csv")  # half a star
    back = here("import", path, "--run", tmp_path / "other")
    assert back.status == 0
    assert f"{rows} of {rows} rows read as {format} (detected)\n  2 comparisons, 1 rankings" in back.out
    again = here("import", path, "--run", run)
    assert "nothing was new" in again.out


def test_questions_of_another_purpose_and_side_are_asked_for_by_name(run: Path, tmp_path: Path) -> None:
    said = here("export", tmp_path / "x.json", "--run", run, "--format", "label-studio", "--purpose", "evaluate")
    assert "1 rows written as label-studio, of 1 questions with 0 answers" in said.out
    back = here("import", tmp_path / "x.json", "--run", tmp_path / "other")
    assert "questions without an answer about 1 prompts" in back.out
    counts = []
    for side in ("train", "held-out"):
        said = here("export", tmp_path / f"{side}.json", "--run", run, "--format", "argilla", "--split", side)
        counts.append(len(read(tmp_path / f"{side}.json").feedback) if said.status == 0 else 0)
        assert said.status == 0 or f"holds no questions for purpose 'train' on the {side} side" in said.err
    assert sum(counts) == 3  # all but the half star


def test_an_export_of_nothing_leaves_the_old_file_alone(run: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "mine\n")
    said = here("export", path, "--run", run, "--format", "csv", "--purpose", "gold", "--overwrite")
    assert (said.status, path.read_text()) == (2, "mine\n")
    assert "holds no questions for purpose 'gold' to export" in said.err


def test_status_2_is_for_files_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    broken, good = task(PAIR), task(PAIR, LEFT)
    for tasks, status in (([broken, good], 0), ([{"data": {}}], 2)):
        path = saved(tmp_path, "x.json", json.dumps(tasks))
        said = here("import", path, "--run", tmp_path / "run")
        assert said.status == status
    assert "no row of " in said.err and "can be used as label-studio: mend it, or name another --format" in said.err
    kept = [json.loads(line) for line in (tmp_path / "run/rejected-x.jsonl").read_text().splitlines()]
    assert [row["where"] for row in kept] == ["x.json:row 1, annotation 1", "x.json:row 1"]
    assert json.loads(kept[0]["row"]) == broken


@pytest.mark.parametrize(("typed", "meant"), [("label_studio", "label-studio"), ("argila", "argilla"), ("cvs", "csv")])
def test_a_mistyped_format_is_answered_with_the_nearest(typed: str, meant: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "x.csv", "prompt,demonstration\nHi?,Ho.\n")
    said = here("import", path, "--run", tmp_path / "run", "--format", typed)
    assert (said.status, said.err) == (2, f"assent: no format '{typed}'; did you mean '{meant}'?\n")


# The folder


@pytest.mark.conformance
@pytest.mark.parametrize("name", names("formats"))
def test_every_file_of_the_folder_is_a_format_of_its_name(name: str) -> None:
    found = resolve("formats", name)
    assert found.__dataclass_params__.frozen and (found.holds or "encode" not in vars(found))
    assert found.__doc__ and not found.__doc__.startswith(f"{found.__name__}(")
    assert FORMATS[name.replace("_", "-")] == found()
