"""Every answer that was given, to look for, read, send back and export."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.feedback import body
from assent.formats import TaskWithJudgements
from assent.formats.files.exchange import write
from assent.labelling.accounts import Person
from assent.labelling.judgements import Filter, State, annotators, answers, lease_of, number, superseding
from assent.records import Feedback
from assent.records import Task as Question
from assent.registry import name_of, names
from assent.web.labelling import Here
from assent.web.pages import need, page
from assent.web.security import Needs, office_of
from assent.web.text import readable, render_answer, render_turn
from assent.web.workspace import Project

router = APIRouter(tags=["answers"])
Reviewing = Annotated[Person, need("review")]
PAGE = 50
"""Answers on one page."""
EXPORTED = 1_000_000
"""Answers of one export, at most."""
LETTERS = 160
"""Letters of an answer in the list."""


def wanted(
    who: str = "", kind: str = "", flag: str = "", words: Annotated[str, Query(max_length=200)] = "",
    state: State = "standing",
) -> Filter:  # fmt: skip
    """The filter of an address."""
    return Filter(who, kind, flag, words.replace("\0", "").strip(), state)


Wanted = Annotated[Filter, Depends(wanted)]


class Line(NamedTuple):
    """An answer in the list."""

    seq: int
    event: Feedback
    kind: str
    prompt: str
    words: str


@router.get("/r/{run}/answers", response_class=HTMLResponse, include_in_schema=False)
def answers_page(
    request: Request,
    here: Here,
    person: Reviewing,
    wanted: Wanted,
    before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> HTMLResponse:
    """Answers by person, kind, flag and text, the newest first."""
    rows = answers(here.store, wanted, PAGE + 1, before)
    events = [row.feedback for row in rows[:PAGE]]
    queries = {query.id: query for query in here.store.tasks(ids=[event.task for event in events])}
    prompts = {prompt.id: prompt for prompt in here.store.prompts(ids=[query.prompt for query in queries.values()])}
    lines = [
        Line(row.seq, row.feedback, query.kind, prompts[query.prompt].text, in_words(query, row.feedback))
        for row in rows[:PAGE]
        for query in (queries[row.feedback.task],)
    ]
    return page(
        request, "answers.html.jinja", run=here.name, page="answers", lines=lines, more=len(rows) > PAGE,
        total=number(here.store, wanted), filter=wanted, people=annotators(here.store), kinds=names("feedback"),
        flags=[flag.lower() for flag in here.settings["flags"]], names=names_of(request, person), letters=LETTERS,
        address=urlencode({**_address(wanted), "before": lines[-1].seq}) if lines else "",
        export=urlencode(_address(wanted)), replaced=superseding(here.store, [event.id for event in events]),
    )  # fmt: skip


def _address(wanted: Filter) -> dict[str, str]:
    return {
        "who": wanted.person, "kind": wanted.kind, "flag": wanted.flag, "words": wanted.words, "state": wanted.state,
    }  # fmt: skip


@router.get("/r/{run}/answers/{answer}", response_class=HTMLResponse, include_in_schema=False)
def answer_page(request: Request, here: Here, person: Reviewing, answer: str) -> HTMLResponse:
    """One answer: what was asked and shown, what was said, by whom, when, and how long it took."""
    event = _event(here, answer)
    query = next(iter(here.store.tasks(ids=[event.task])))
    prompt = next(iter(here.store.prompts(ids=[query.prompt])))
    responses = {response.id: response for response in here.store.responses(ids=query.items)}
    shown = [responses[item] for item in event.display_order if item in responses] or [
        responses[item] for item in query.items
    ]
    others = [other for other in here.store.feedback(query=query.id) if other.id != event.id]
    text = getattr(event.judgement, "text", "")
    return page(
        request, "answer.html.jinja", run=here.name, page="answers", event=event, query=query, text=text,
        turns=[(turn.role, render_turn(turn)) for turn in prompt.messages],
        shown=[(response, render_answer(readable(response.text, response.extra), prompt)) for response in shown],
        words=in_words(query, event), others=[(other, in_words(query, other)) for other in others],
        replaced=superseding(here.store, [event.id, *(other.id for other in others)]),
        lease=lease_of(here.store, event), names=names_of(request, person),
    )  # fmt: skip


def _event(here: Project, answer: str) -> Feedback:
    event = next(iter(here.store.feedback(ids=[answer])), None)
    if event is None:
        raise HTTPException(404, f"no answer {answer} in this run")
    return event


@router.post("/r/{run}/answers/{answer}/back", include_in_schema=False)
def send_back(
    request: Request, here: Here, person: Reviewing, answer: str, remark: Annotated[str, Form(max_length=2000)] = ""
) -> Response:
    """Ask the person who gave this answer to give it anew."""
    event = _event(here, answer)
    if superseding(here.store, [event.id]):
        raise AssentError("this answer was replaced by a later one: send that one back")
    author = next((each for each in office_of(request).people.all() if each.id == event.annotator), None)
    if author and author.state not in ("new", "active"):
        raise AssentError(f"their account is {author.state}: nobody would answer again")
    here.desk.send_back(event.annotator, event.task, remark.strip())
    about = {"person": event.annotator, "answer": event.id, "remark": remark.strip()}
    office_of(request).people.record(person.id, "send back", about)
    return RedirectResponse(f"/r/{here.name}/answers/{event.id}", 303)


@router.get("/r/{run}/answers.{form}", include_in_schema=False)
def export_answers(
    here: Here, person: Annotated[Person, Depends(Needs("review"))], wanted: Wanted, form: Literal["csv", "jsonl"]
) -> Response:
    """The answers of a filter as a table, or as JSON lines that lose nothing of them; by pseudonyms."""
    events = [row.feedback for row in reversed(answers(here.store, wanted, EXPORTED))]
    if form == "jsonl":
        content, kind = "".join(as_json(event) for event in events).encode(), "application/x-ndjson"
    else:
        content, kind = _table(here, events), "text/csv; charset=utf-8"
    name = f'attachment; filename="answers.{form}"'
    return Response(content, media_type=kind, headers={"content-disposition": name})


def as_json(event: Feedback) -> str:
    """An answer as a line of JSON."""
    values = {**vars(event), "answer": body(event.judgement), "kind": name_of(event.judgement)}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _table(here: Project, events: list[Feedback]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.csv"
        written = write(list(_inquiries(here, events)), path, "csv")
        if written.left_out:
            first = written.left_out[0]
            raise AssentError(
                f"{len(written.left_out)} answers do not fit into a table, the first because of {first.reason}: "
                "take JSON lines"
            )
        return path.read_bytes()


def _inquiries(here: Project, events: list[Feedback]) -> Iterator[TaskWithJudgements]:
    """Each answer with its question."""
    queries = {query.id: query for query in here.store.tasks(ids=[event.task for event in events])}
    prompts = {prompt.id: prompt for prompt in here.store.prompts(ids=[query.prompt for query in queries.values()])}
    items = {item for query in queries.values() for item in query.items}
    responses = {response.id: response for response in here.store.responses(ids=items)}
    for event in events:
        query = queries[event.task]
        shown = tuple(responses[item] for item in query.items)
        yield TaskWithJudgements(prompts[query.prompt], shown, query, (replace(event, supersedes=""),))


def names_of(request: Request, person: Person) -> dict[str, str]:
    """Names by pseudonym, for those who may know them."""
    return {account.id: account.name for account in office_of(request).people.all()} if person.may("manage") else {}


def in_words(query: Question, event: Feedback) -> str:
    """An answer in words; items go by their place in the query."""
    answer: dict[str, Any] = body(event.judgement)
    place = {item: f"answer {number}" for number, item in enumerate(query.items, 1)}
    if answer.get("preferred"):
        return f"{place[answer['preferred']]}, strength {answer['strength']}"
    if "tiers" in answer:
        return " > ".join(" = ".join(place[item] for item in tier) for tier in answer["tiers"])
    if "axes" in answer:
        return ", ".join(f"{axis} {value:g}" for axis, value in answer["axes"])
    if "approved" in answer:
        return "approved" if answer["approved"] else "disapproved"
    return str(answer.get("verdict") or answer.get("text") or answer)


def differ(events: Iterable[Feedback]) -> bool:
    """Whether two of these answers to one query say something else."""
    given = [event.judgement for event in events]
    first = given[0]
    if hasattr(first, "agrees"):
        return not all(answer.agrees(other) for answer in given for other in given)  # type: ignore[attr-defined]
    return len({getattr(answer, "text", answer) for answer in given}) > 1
