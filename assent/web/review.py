"""Where people differ: their answers side by side, to decide, and to make gold items of."""

from itertools import islice
from typing import Annotated, Literal

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.feedback import body, parse
from assent.labelling.judgements import opinions
from assent.labelling.queue import agrees
from assent.records import Feedback
from assent.records import Task as Question
from assent.registry import names, resolve
from assent.web.answers import Reviewing, differ, in_words, names_of
from assent.web.labelling import DECIDED, Here
from assent.web.manage import Long, Short, now
from assent.web.pages import page
from assent.web.text import readable, render_answer, render_turn

router = APIRouter(tags=["review"])
SHOWN = 20
"""Queries on one page."""
SKIPPED = 200
"""Skipped queries that are listed."""


@router.get("/r/{run}/review", response_class=HTMLResponse, include_in_schema=False)
def review(
    request: Request, here: Here, person: Reviewing, after: Annotated[int, Query(ge=0, le=10**9)] = 0
) -> HTMLResponse:
    """Queries about which people differ, the newest first; `after` so many of them."""
    disputed = (events for events in opinions(here.store, DECIDED) if differ(events))
    rows = list(islice(disputed, after, after + SHOWN + 1))
    queries = {query.id: query for query in here.store.tasks(ids=[events[0].task for events in rows])}
    prompts = {prompt.id: prompt for prompt in here.store.prompts(ids=[query.prompt for query in queries.values()])}
    items = {item for query in queries.values() for item in query.items}
    texts = {
        response.id: render_answer(readable(response.text, response.extra), prompts[response.prompt])
        for response in here.store.responses(ids=items)
    }
    cards = [
        (
            query,
            render_turn(prompts[query.prompt].messages[-1]),
            [(event, in_words(query, event)) for event in events],
            _others(query, events),
        )
        for events in rows[:SHOWN]
        for query in (queries[events[0].task],)
    ]
    return page(
        request, "review.html.jinja", run=here.name, page="review", rows=cards, texts=texts, after=after, step=SHOWN,
        more=len(rows) > SHOWN, names=names_of(request, person), marked=_marked(),
    )  # fmt: skip


def _marked() -> list[str]:
    """Kinds of which an answer can be right: gold items are made of them."""
    return [kind for kind in names("feedback") if hasattr(resolve("feedback", kind), "agrees")]


def _others(query: Question, events: list[Feedback]) -> list[tuple[str, str]]:
    """(value, words) of verdicts on a comparison that nobody gave."""
    if query.kind != "comparison":
        return []
    answers = [body(event.judgement) for event in events]
    given = {answer.get("preferred") or answer.get("verdict") for answer in answers}
    verdicts = [(item, f"answer {number}") for number, item in enumerate(query.items, 1)]
    verdicts += [("tie", "tie"), ("both bad", "both bad")]
    return [(value, words) for value, words in verdicts if value not in given]


@router.get("/r/{run}/skipped", response_class=HTMLResponse, include_in_schema=False)
def skipped(request: Request, here: Here, person: Reviewing) -> HTMLResponse:
    """Queries that people skipped and that still want answers, the most skipped first."""
    rows = here.desk.skips()[:SKIPPED]
    queries = {query.id: query for query in here.store.tasks(ids=[row.query for row in rows])}
    prompts = {prompt.id: prompt for prompt in here.store.prompts(ids=[query.prompt for query in queries.values()])}
    cards = [(row, queries[row.query], prompts[queries[row.query].prompt].text) for row in rows]
    return page(request, "skipped.html.jinja", run=here.name, page="review", rows=cards)


@router.post("/r/{run}/ask-again", include_in_schema=False)
def ask_again(here: Here, person: Reviewing, query: Short) -> Response:
    """Offer a query once more to those who skipped it."""
    here.desk.ask_again(query)
    return RedirectResponse(f"/r/{here.name}/skipped", 303)


@router.post("/r/{run}/decide", include_in_schema=False)
def decide(
    here: Here, person: Reviewing, query: Short, right: Short, explanation: Long = "",
    use: Annotated[Literal["", "hidden", "practice", "test"], Form()] = "",
) -> Response:  # fmt: skip
    """Say what is right, as an answer of one's own, and make a gold item of it if `use` says so.

    `right` is the id of the answer that is right, or that of an item, or `tie`, or `both bad`.
    """
    asked = next(iter(here.store.tasks(ids=[query])), None)
    if asked is None:
        raise HTTPException(404, f"no query {query}")
    chosen = next(iter(here.store.feedback(ids=[right])), None)
    if chosen is not None and chosen.task == query:
        answer = chosen.judgement
    elif asked.kind == "comparison":
        answer = parse("comparison", {"verdict": right} if right in ("tie", "both bad") else {"preferred": right})
    else:
        raise HTTPException(422, f"no answer {right} to query {query}")
    if use:
        agrees(answer, answer)  # refuses what cannot be marked, before anything is stored
    mine = [event.id for event in here.store.feedback(person.id, query)]
    here.desk.answer(
        Feedback(
            query, person.id, answer, now(), display_order=here.desk.lend(person.id, asked).shown, comment=explanation,
            supersedes=mine[-1] if mine else "", flags=(DECIDED,),
        )
    )  # fmt: skip
    if use:
        gold = Question(asked.kind, asked.prompt, asked.items, "gold", asked.instruction)
        here.desk.add_gold(gold, answer, use, explanation)
    return RedirectResponse(f"/r/{here.name}/review", 303)
