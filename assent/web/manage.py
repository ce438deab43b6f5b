"""What those who run a project do: let people in, set guidelines, keep the gold bank, decide where people differ."""

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from assent.errors import AssentError
from assent.feedback import body
from assent.functional.near_identical import near_identical
from assent.labelling.accounts import RIGHTS, Person
from assent.labelling.judgements import arrived_after
from assent.labelling.queue import Ask, change_setting, history
from assent.records import Task as Question
from assent.web.answers import as_json
from assent.web.labelling import Here, Id
from assent.web.pages import need, page
from assent.web.progress import measured
from assent.web.security import Needs, office_of, public_url
from assent.web.workspace import Project

router = APIRouter(tags=["manage"])
Managing = Annotated[Person, need("manage")]
Manager = Annotated[Person, Depends(Needs("manage"))]
Reviewer = Annotated[Person, Depends(Needs("review"))]
Short = Annotated[str, Form(max_length=500)]
Serial = Annotated[int, Field(ge=0, le=2**63 - 1)]
Long = Annotated[str, Form(max_length=200_000)]


@router.get("/r/{run}/admin", response_class=HTMLResponse, include_in_schema=False)
def admin(request: Request, here: Here, person: Managing) -> HTMLResponse:
    """People, links, settings and the gold bank."""
    return _admin(request, here)


def _admin(request: Request, here: Project, **told: Any) -> HTMLResponse:
    people, keys = list(office_of(request).people.all()), office_of(request).people.credentials()
    view = measured(here)
    known = {one.annotator: one for one in view.annotators}
    gold = [(query, body(answer), use) for query, answer, use in here.desk.gold()]
    names = {one.id: one.name for one in people}
    guidelines = [(at, names.get(by, by), text) for at, by, text in history(here.store, "guidelines")]
    acts = [_act(act, names) for act in list(office_of(request).people.acts())[:30]]
    values = {"links": [], "token": "", "reset": None, **told}
    return page(
        request, "admin.html.jinja", run=here.name, page="admin", people=people, known=known,
        counting=view.counted < view.newest, roles=list(RIGHTS),
        settings=here.settings, guidelines=guidelines, gold=gold, acts=acts, names=names, skips=here.desk.skips_of(),
        links_out=[key for key in keys if key.kind != "token"], tokens=[key for key in keys if key.kind == "token"],
        **values,
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


@router.post("/r/{run}/reset", response_class=HTMLResponse, include_in_schema=False)
def reset(request: Request, here: Here, person: Managing, id: Short) -> HTMLResponse:
    """A link with which somebody who has forgotten their password chooses a new one; shown once."""
    people = office_of(request).people
    target = people.get(id)
    if target.role == "owner" and person.role != "owner":
        raise HTTPException(403, "only an owner lets an owner choose a new password")
    link = f"{public_url(request)}/reset/{people.invite_reset(person.id, id)}"
    return _admin(request, here, reset=(target.name, link))


@router.post("/r/{run}/withdraw", include_in_schema=False)
def withdraw(
    request: Request, here: Here, person: Managing, key: Annotated[list[Serial] | None, Form()] = None
) -> Response:
    """Take links or tokens back."""
    office_of(request).people.withdraw(person, key or [])
    return RedirectResponse(f"/r/{here.name}/admin", 303)


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
    here: Here, person: Managing, guidelines: Long = "", flags: Short = "", axes: Short = "", names: Long = "",
    completion: Annotated[int, Form(ge=0, le=10**6)] = 0,
) -> Response:  # fmt: skip
    """Guidelines, flags, axes, covered names; what they were stays on record."""
    new: dict[str, Any] = {
        "guidelines": guidelines.replace("\r\n", "\n"),
        "flags": [word.strip() for word in flags.split(",") if word.strip()],
        "axes": [word.strip() for word in axes.split(",") if word.strip()] or ["quality"],
        "names": [word.strip() for word in names.replace("\n", ",").split(",") if word.strip()],
        "completion": completion,
    }
    old = here.settings
    for name, value in new.items():
        if value != old.get(name):
            change_setting(here.store, name, value, person.id, now())
    return RedirectResponse(f"/r/{here.name}/admin", 303)


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
        takes = resolve("feedback", query.kind).num_items
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
    try:
        page = arrived_after(here.store, after, count)
    except AssentError as error:
        raise HTTPException(404, str(error)) from None
    return StreamingResponse(map(as_json, page), media_type="application/x-ndjson")


@router.post("/api/invites")
def post_invites(request: Request, person: Manager, invited: Invited) -> list[dict[str, str]]:
    """Links that each let one person in, in the order of their external ids."""
    keys = office_of(request).people.invite(person, invited.role, invited.externals, invited.note)
    base = public_url(request)
    return [{"external": who, "link": f"{base}/join/{key}"} for who, key in zip(invited.externals, keys, strict=True)]


def _act(act: Any, names: Mapping[str, str]) -> tuple[str, str, str, str]:
    """When, who, what and about whom or what, for people to read."""
    facts = {key: value for key, value in json.loads(act.about).items() if value not in ("", None)}
    about = [f"{key}: {names.get(str(value), value)}" for key, value in facts.items()]
    return act.at, names.get(act.by, act.by), act.what, ", ".join(about)


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return "'" + text if text[:1] in tuple("=+-@\t\r＝＋－＠") else text


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
