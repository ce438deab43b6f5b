"""What those who run a project do: let people in, set guidelines, keep the gold bank, decide where people differ."""

import csv
import io
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from assent.errors import AssentError
from assent.feedback import body, parse
from assent.functional.near_identical import near_identical
from assent.records import Feedback
from assent.records import Query as Question
from assent.store.desk import Ask, change_setting, history
from assent.store.people import RIGHTS, Person
from assent.web.guard import Needs, office_of, public_url
from assent.web.labelling import DECIDED, Here, Id
from assent.web.office import Project
from assent.web.pages import need, page
from assent.web.progress import measured
from assent.web.text import render

router = APIRouter(tags=["manage"])
Managing = Annotated[Person, need("manage")]
Reviewing = Annotated[Person, need("review")]
Manager = Annotated[Person, Depends(Needs("manage"))]
Reviewer = Annotated[Person, Depends(Needs("review"))]
Short = Annotated[str, Form(max_length=500)]
Long = Annotated[str, Form(max_length=200_000)]


@router.get("/r/{run}/admin", response_class=HTMLResponse, include_in_schema=False)
def admin(request: Request, here: Here, person: Managing) -> HTMLResponse:
    """People, links, settings and the gold bank."""
    return _admin(request, here)


def _admin(request: Request, here: Project, **told: Any) -> HTMLResponse:
    people = list(office_of(request).people.all())
    known = {one.annotator: one for one in measured(here).annotators}
    gold = [(query, body(answer), use) for query, answer, use in here.desk.gold()]
    names = {one.id: one.name for one in people}
    guidelines = [(at, names.get(by, by), text) for at, by, text in history(here.store, "guidelines")]
    acts = list(office_of(request).people.acts())[:30]
    values = {"links": [], "token": "", **told}
    return page(
        request, "admin.html.jinja", run=here.name, page="admin", people=people, known=known, roles=list(RIGHTS),
        settings=here.settings, guidelines=guidelines, gold=gold, nan=math.isnan, acts=acts, **values,
    )  # fmt: skip


@router.post("/r/{run}/invite", response_class=HTMLResponse, include_in_schema=False)
def invite(
    request: Request, here: Here, person: Managing, role: Short, externals: Long = "", note: Short = "",
    count: Annotated[int, Form(ge=1, le=1000)] = 1,
) -> HTMLResponse:  # fmt: skip
    """Links that each let one person in; one for each external id, if some are given."""
    who = [line.strip() for line in externals.splitlines() if line.strip()] or [""] * count
    made = office_of(request).people.invite(person, role, who, note)
    base = public_url(request)
    return _admin(request, here, links=[(name, f"{base}/join/{key}") for name, key in zip(who, made, strict=True)])


@router.post("/r/{run}/token", response_class=HTMLResponse, include_in_schema=False)
def token(request: Request, here: Here, person: Managing, note: Short = "") -> HTMLResponse:
    """A token for programs that act as this person; shown once."""
    return _admin(request, here, token=office_of(request).people.issue_token(person, note))


@router.post("/r/{run}/people", include_in_schema=False)
def change_person(
    request: Request, here: Here, person: Managing, id: Short, role: Short = "", state: Short = "", why: Short = ""
) -> Response:
    """Another role or state for somebody."""
    people = office_of(request).people
    target = people.get(id)
    if "owner" in (role, target.role) and person.role != "owner":
        raise HTTPException(403, "only an owner makes an owner, or changes one")
    if target.id == person.id:
        raise HTTPException(403, "somebody else has to change your own role and state")
    people.change(person.id, id, why, role=role, state=state)
    return RedirectResponse(f"/r/{here.name}/admin", 303)


@router.post("/r/{run}/settings", include_in_schema=False)
def set_settings(
    here: Here, person: Managing, guidelines: Long = "", flags: Short = "", axes: Short = "",
    completion: Annotated[int, Form(ge=0, le=10**6)] = 0,
) -> Response:  # fmt: skip
    """Guidelines, flags, axes; what they were stays on record."""
    new: dict[str, Any] = {
        "guidelines": guidelines.replace("\r\n", "\n"),
        "flags": [word.strip() for word in flags.split(",") if word.strip()],
        "axes": [word.strip() for word in axes.split(",") if word.strip()] or ["quality"],
        "completion": completion,
    }
    old = here.settings
    for name, value in new.items():
        if value != old.get(name):
            change_setting(here.store, name, value, person.id, _now())
    return RedirectResponse(f"/r/{here.name}/admin", 303)


@router.get("/r/{run}/review", response_class=HTMLResponse, include_in_schema=False)
def review(request: Request, here: Here, person: Reviewing) -> HTMLResponse:
    """Queries about which people differ, to decide, and to make gold of."""
    queries = {query.id: query for query in here.store.queries() if query.purpose != "gold"}
    events = [event for event in here.store.feedback() if event.query in queries]
    superseded = {event.supersedes for event in events}
    said: dict[str, list[Feedback]] = {}
    for event in events:
        if event.id not in superseded and not event.annotator.startswith(("judge:", "simulated:")):
            said.setdefault(event.query, []).append(event)
    open_ = (some for some in said.values() if not any(DECIDED in event.flags for event in some))
    differ = [(queries[some[0].query], some) for some in open_ if len({_gist(event) for event in some}) > 1]
    differ = differ[-50:]
    about = {prompt.id: prompt for prompt in here.store.prompts(ids=[query.prompt for query, _ in differ])}
    items = {item for query, _ in differ for item in query.items}
    texts = {response.id: render(response.text) for response in here.store.responses(ids=items)}
    names = {one.id: one.name for one in office_of(request).people.all()} if person.may("manage") else {}
    rows = [
        (
            query,
            render(about[query.prompt].text),
            [(event, _words(query, event)) for event in some],
            _others(query, some),
        )
        for query, some in differ
    ]
    return page(request, "review.html.jinja", run=here.name, page="progress", rows=rows, texts=texts, names=names)


def _others(query: Question, said: list[Feedback]) -> list[tuple[str, str]]:
    """(value, words) of verdicts on a comparison that nobody gave."""
    if query.kind != "comparison":
        return []
    given = {told.get("preferred") or told.get("verdict") for told in (body(event.answer) for event in said)}
    every = [(item, f"answer {n}") for n, item in enumerate(query.items, 1)] + [
        ("tie", "tie"),
        ("both bad", "both bad"),
    ]
    return [(value, words) for value, words in every if value not in given]


@router.post("/r/{run}/decide", include_in_schema=False)
def decide(
    here: Here, person: Reviewing, query: Short, right: Short, explanation: Long = "",
    use: Annotated[Literal["", "hidden", "practice", "test"], Form()] = "",
) -> Response:  # fmt: skip
    """Say what is right, as an answer of one's own, and make a gold item of it if `use` says so.

    `right` is the id of the answer that is right, or that of an item, or `tie`, or `both bad`.
    """
    asked = next(iter(here.store.queries(ids=[query])), None)
    if asked is None:
        raise HTTPException(404, f"no query {query}")
    told = next(iter(here.store.feedback(ids=[right])), None)
    if told is not None and told.query == query:
        answer = told.answer
    elif asked.kind == "comparison":
        answer = parse("comparison", {"verdict": right} if right in ("tie", "both bad") else {"preferred": right})
    else:
        raise HTTPException(422, f"no answer {right} to query {query}")
    mine = [event.id for event in here.store.feedback(person.id, query)]
    here.desk.answer(
        Feedback(
            query, person.id, answer, _now(), shown=here.desk.lend(person.id, asked).shown, note=explanation,
            supersedes=mine[-1] if mine else "", flags=(DECIDED,),
        )
    )  # fmt: skip
    if use:
        gold = Question(asked.kind, asked.prompt, asked.items, "gold", asked.instruction)
        here.desk.add_gold(gold, answer, use, explanation)
    return RedirectResponse(f"/r/{here.name}/review", 303)


@router.get("/r/{run}/completions.csv", include_in_schema=False)
def completions(request: Request, here: Here, person: Managing) -> Response:
    """Who from a crowd platform answered how much, and the code that they were given for it."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["external", "person", "answers", "complete", "code"])
    wanted = int(here.settings.get("completion", 0))
    for one in office_of(request).people.all():
        if one.external:
            said = here.desk.said(one.id)
            rows.writerow(
                [_cell(one.external), one.id, said, bool(wanted and said >= wanted), here.completion_code(one.id)]
            )
    return Response(out.getvalue(), media_type="text/csv")


# For programs


class Posted(BaseModel):
    """Queries to lay before people."""

    model_config = ConfigDict(extra="forbid")

    queries: list["PostedQuery"] = Field(max_length=1000)
    batch: str = Field(default="api", max_length=80)


class PostedQuery(BaseModel):
    """A question about responses that the store holds."""

    model_config = ConfigDict(extra="forbid")

    kind: Id
    prompt: Id
    items: list[Id] = Field(max_length=100)
    instruction: str = Field(default="", max_length=2000)
    wanted: int = Field(default=1, ge=1, le=100)


class Done(BaseModel):
    """How many were new."""

    new: int


class Invited(BaseModel):
    """Who is to be let in."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["admin", "reviewer", "labeller", "viewer"] = "labeller"
    externals: list[str] = Field(default=[""], max_length=10_000)
    note: str = Field(default="", max_length=500)


@router.post("/r/{run}/api/ask")
def post_queries(here: Here, person: Reviewer, posted: Posted) -> Done:
    """Lay queries before people; each once, however often it is posted."""
    from assent.registry import resolve

    asks = []
    known = {prompt.id for prompt in here.store.prompts(ids=[query.prompt for query in posted.queries])}
    items = {item for query in posted.queries for item in query.items}
    of = {response.id: response for response in here.store.responses(ids=items)}
    for query in posted.queries:
        takes = resolve("feedback", query.kind).takes
        if query.prompt not in known:
            raise AssentError(f"no prompt {query.prompt} in this run")
        for item in query.items:
            if item not in of or of[item].prompt != query.prompt:
                raise AssentError(f"no answer {item} to prompt {query.prompt} in this run")
        if query.kind == "comparison" and len(query.items) == 2 and near_identical(*(of[i].text for i in query.items)):
            raise AssentError("two answers of almost the same words: nobody could tell which is the better")
        if len(query.items) not in takes or len(set(query.items)) < len(query.items):
            raise AssentError(f"a {query.kind} is not about {len(query.items)} items")
        made = Question(query.kind, query.prompt, tuple(query.items), "train", query.instruction)
        asks.append(Ask(made, query.wanted, "api"))
    return Done(new=here.desk.post(asks, posted.batch))


@router.get("/r/{run}/api/events")
def events(
    here: Here, person: Reviewer, after: str = "", count: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> StreamingResponse:
    """What was said, in the order of arrival, as JSON lines, by pseudonyms; `after` is the id of an event."""

    def lines() -> Iterator[str]:
        going, sent = not after, 0
        for event in here.store.feedback():
            if going and sent < count:
                told = {**vars(event), "answer": body(event.answer), "kind": type(event.answer).__name__.lower()}
                yield json.dumps(told, ensure_ascii=False) + "\n"
                sent += 1
            going = going or event.id == after

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.post("/api/invites")
def post_invites(request: Request, person: Manager, invited: Invited) -> list[dict[str, str]]:
    """Links that each let one person in, in the order of their external ids."""
    keys = office_of(request).people.invite(person, invited.role, invited.externals, invited.note)
    base = public_url(request)
    return [{"external": who, "link": f"{base}/join/{key}"} for who, key in zip(invited.externals, keys, strict=True)]


def _gist(event: Feedback) -> str:
    told = body(event.answer)
    return json.dumps({name: told[name] for name in ("verdict", "preferred", "tiers", "approved") if name in told})


def _words(query: Question, event: Feedback) -> str:
    """An answer in words: which item, by its place in the query."""
    told = body(event.answer)
    place = {item: f"answer {i + 1}" for i, item in enumerate(query.items)}
    if told.get("preferred"):
        return f"{place[told['preferred']]}, strength {told['strength']}"
    if "tiers" in told:
        return " > ".join(" = ".join(place[item] for item in tier) for tier in told["tiers"])
    if "approved" in told:
        return "approved" if told["approved"] else "disapproved"
    return str(told.get("verdict") or told.get("text") or told)


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in tuple("=+-@\t\r") else text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
