"""What the label page asks of the server: the next items, and to keep an answer."""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from assent.errors import AssentError
from assent.feedback import asks, body, parse
from assent.functional.sequential import SequentialTest
from assent.labelling.accounts import Person
from assent.labelling.queue import Answered, Lent
from assent.records import Feedback, Message, Prompt, Response
from assent.records import Task as Ask
from assent.registry import name_of, resolve
from assent.web.security import PAUSED, Needs, SignIn, asking, office_of
from assent.web.text import Cover, readable, render_answer, render_turn, show_invisible
from assent.web.workspace import Project

router = APIRouter(prefix="/r/{run}/api", tags=["label"])
Id = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[\w:.\-]+$")]
Labeller = Annotated[Person, Depends(Needs("label"))]
MOST = 10
"""Items that one request may take."""
MOST_OUT = 20
"""Items that one person may have at once."""
LONGEST = 200_000
"""Characters of an answer as JSON."""
DECIDED = "decided"
"""The flag of an answer by which somebody who reviews has settled what others differ about."""


class Turn(BaseModel):
    """A message of a conversation."""

    role: str
    html: str
    text: str
    """As it was written."""


class Shown(BaseModel):
    """An item on the page; who made it is not said."""

    id: str
    html: str
    text: str
    """As it was written, with its thoughts and calls."""
    raw: str | None = None
    """What may be mended: the answer alone, if `text` holds thoughts or calls besides."""


class Entry(BaseModel):
    """A field of the form for a kind of feedback that has no control of its own."""

    name: str
    type: Literal["text", "number", "flag", "choice"]
    choices: list[str] = []
    required: bool
    help: str


class Item(BaseModel):
    """A query as a labeller sees it."""

    query: str
    kind: str
    instruction: str
    prompt: list[Turn]
    items: list[Shown]
    axes: list[str]
    form: list[Entry]
    before: "Mine | None" = None
    """What this person said, if a reviewer sent it back."""
    remark: str = ""
    """What the reviewer said."""


class Next(BaseModel):
    """What to answer next."""

    items: list[Item]
    screening: bool
    """Whether these are practice or test items."""
    quick: bool = False
    """Whether one key may submit: for those who are right on nine gold items of ten."""
    others: bool = False
    """Whether other people are at what is left, if there is nothing."""
    code: str = ""
    """For the platform that somebody came from, when they have done what was asked."""


def _demand_short(answer: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(answer)) > LONGEST:
        raise ValueError(f"an answer has at most {LONGEST} characters")
    return answer


class Given(BaseModel):
    """An answer; `id` is made by the page at the first touch, and the same post again changes nothing."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    query: Id
    answer: Annotated[dict[str, Any], AfterValidator(_demand_short)]
    shown: list[Id] = Field(max_length=100)
    seconds: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)
    note: str = Field(default="", max_length=10_000)
    flags: list[Annotated[str, StringConstraints(min_length=1, max_length=40)]] = Field(default=[], max_length=20)
    supersedes: Id | Literal[""] = ""


class Kept(BaseModel):
    """What is stored."""

    id: str
    query: str
    at: str
    right: bool | None = None
    """On practice items only."""
    explanation: str = ""


class Mine(BaseModel):
    """One of one's own answers."""

    id: str
    query: str
    kind: str
    answer: dict[str, Any]
    shown: list[str]
    note: str
    flags: list[str]
    at: str


class Held(BaseModel):
    """Queries that are on the page."""

    queries: list[Id] = Field(max_length=100)


def project_of(request: Request, run: str) -> Project:
    """The run that the address names; strangers are not told which there are."""
    if asking(request) is None:
        if "/api/" in request.url.path or request.method != "GET":
            raise HTTPException(401, "sign in first")
        raise SignIn
    return office_of(request).project(run)


Here = Annotated[Project, Depends(project_of)]


@router.get("/next")
def take_next(here: Here, person: Labeller, count: Annotated[int, Query(ge=1, le=MOST)] = 3, hold: str = "") -> Next:
    """Lend this person the next items; `hold` names those that are on the page already, with commas."""
    _demand_active(person)
    screened = person.state != "new" or not here.desk.screens()
    held = here.desk.named(person.id, [name for name in hold.split(",") if name])
    lent = here.desk.take(person.id, count, held, screened, MOST_OUT)
    done = (
        person.external
        and person.state == "active"
        and 0 < int(here.settings["completion"]) <= here.desk.said(person.id)
    )
    return Next(
        items=items(here, person, lent),
        screening=not screened,
        quick=_is_sure(here.desk.gold_answers(person.id)),
        others=not lent and not held and here.desk.others_hold(person.id),
        code=here.completion_code(person.id) if done else "",
    )


def _demand_active(person: Person) -> None:
    if person.state == "paused":
        raise HTTPException(403, PAUSED)


def _is_sure(gold: list[bool]) -> bool:
    return len(gold) >= 10 and sum(gold) >= 0.9 * len(gold)


@router.get("/item/{query}")
def again(here: Here, person: Labeller, query: Id) -> Item:
    """An item as it stood on this person's page, to change what was said of it."""
    return items(here, person, [_lent(here, person, query)])[0]


NEVER = HTTPException(404, "this was never on your page, or the server has gone back to an older copy")


def _lent(here: Project, person: Person, name: str) -> Lent:
    """A query by what this person's page calls it."""
    lent = here.desk.lent(person.id, name)
    if lent is None:
        raise NEVER
    return lent


@router.post("/feedback")
def give(request: Request, here: Here, person: Labeller, given: Given) -> Kept:
    """Keep an answer: 200 means that it outlives a crash."""
    request.app.state.limits.answers.demand(person.id)
    lent = here.desk.lent(person.id, given.query) or here.desk.lent_before(person.id, given.query)
    if lent is None:
        raise NEVER
    for name in HIDDEN:
        if name in given.answer:
            raise HTTPException(422, f"'{name}' is not for people to say")
    if DECIDED in given.flags and not person.may("review"):
        raise HTTPException(422, f"'{DECIDED}' is for those who review")
    _demand_axes(here, lent, given.answer)
    event = Feedback(
        task=lent.query.id,
        annotator=person.id,
        judgement=parse(lent.query.kind, _uncovered(here, lent, given.answer)),
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        duration=given.seconds,
        display_order=tuple(given.shown),
        comment=given.note,
        supersedes=given.supersedes,
        id=given.id,
        flags=tuple(given.flags),
    )
    try:
        kept = here.desk.answer(event)
    except Answered as error:
        raise HTTPException(409, {"message": str(error), "before": error.before}) from None
    except AssentError as error:
        error.args = (str(error).replace(event.task, given.query),)  # its id is not for labellers
        raise
    judged = (
        here.desk.judge(kept) if kept == event or person.state == "new" else None
    )  # a repeated post takes no longer
    if judged and judged.use == "hidden" and person.role == "labeller":
        _watch(request, here, person)
    judged = judged if person.state == "new" else None
    if person.state == "new" and not here.desk.screens():  # whoever works already is not tested later
        office_of(request).people.change("server", person.id, "no test before the work", state="active")
        judged = None
    told = Kept(id=kept.id, query=given.query, at=kept.created_at)
    if judged and judged.use == "practice":
        told = told.model_copy(update={"right": judged.right, "explanation": judged.explanation})
    if judged:
        _screen(request, here, person)
    return told


def _demand_axes(here: Project, lent: Lent, answer: dict[str, Any]) -> None:
    """Refuse a rating on axes that nobody asked about."""
    axes = answer.get("axes")
    if lent.query.kind != "rating" or not isinstance(axes, list):
        return
    asked = list(here.settings["axes"])
    for axis in axes:
        if not (isinstance(axis, list) and axis and axis[0] in asked):
            raise HTTPException(422, f"the axes are {', '.join(asked)}: reload the page")


def _watch(request: Request, here: Project, person: Person) -> None:
    """Pause somebody whose answers to hidden gold items cannot be those of a good annotator; nothing is deleted."""
    people = office_of(request).people
    standing = SequentialTest()(here.desk.gold_answers(person.id, people.let_in(person.id)))
    if standing.state == "failed":
        why = f"{standing.right} of {standing.asked} gold items right"
        people.change("gold", person.id, why, state="paused")


def _screen(request: Request, here: Project, person: Person) -> None:
    """Let somebody in who has passed the test; who has not is paused, and may be let in by hand."""
    outcome = here.desk.screening(person.id)
    if outcome.state != "going on":
        state = "active" if outcome.state == "passed" else "paused"
        why = f"{outcome.right} of {outcome.tested} test items right"
        office_of(request).people.change("screening", person.id, why, state=state)


QUOTING = {"correction": "text", "critique": "quote"}
"""The field of a kind of answer that repeats words of the item."""


def _uncovered(here: Project, lent: Lent, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer with the names of models that were covered on the page."""
    name = QUOTING.get(lent.query.kind, "")
    item = next(iter(here.store.responses(ids=lent.query.items)), None) if name else None
    if item is None or not isinstance(answer.get(name), str):
        return answer
    return {**answer, name: _cover(lent.query.kind, item, here.names).off(answer[name])}


def _cover(kind: str, response: Response, names: tuple[str, ...]) -> Cover:
    """Of what a kind of answer repeats words of: a correction mends the text, a critique may quote thoughts too."""
    whole = readable(response.text, response.extra)
    return Cover(response.text if kind == "correction" else whole, names, whole)


class Better(BaseModel):
    """An item of a query that somebody wants to mend."""

    query: Id
    item: Id


@router.post("/correct")
def correct(here: Here, person: Labeller, better: Better) -> Item:
    """Ask this person, and nobody else, to correct an item that is on their page."""
    _demand_active(person)
    lent = _lent(here, person, better.query)
    if better.item not in lent.shown:
        raise HTTPException(404, "this is not on your page")
    asked = Ask("correction", lent.query.prompt, (better.item,), lent.query.purpose, asks("correction"))
    return items(here, person, [here.desk.lend(person.id, asked)])[0]


@router.post("/heartbeat", status_code=204)
def beat(here: Here, person: Labeller, held: Held) -> None:
    """Say that these items are still being looked at."""
    here.desk.renew(person.id, here.desk.named(person.id, held.queries))


@router.post("/skip", status_code=204)
def skip(request: Request, here: Here, person: Labeller, held: Held) -> None:
    """Leave items to others."""
    for query in here.desk.named(person.id, held.queries):
        here.desk.skip(person.id, query)
    if person.state == "new" and here.desk.screens():
        _screen(request, here, person)


@router.post("/unskip", status_code=204)
def unskip(here: Here, person: Labeller, held: Held) -> None:
    """Have items back that this person skipped."""
    for query in here.desk.named(person.id, held.queries):
        here.desk.unskip(person.id, query)


@router.get("/mine")
def mine(here: Here, person: Labeller, count: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Mine]:
    """One's own last answers, the newest first: for comparing notes after a time offline, and for undoing."""
    return _own_answers(here, person, here.desk.last(person.id, count))


def _own_answers(here: Project, person: Person, said: list[Feedback]) -> list[Mine]:
    """Answers as their author's page knows them."""
    names = here.desk.names(person.id, [event.task for event in said])
    quoting = [event.task for event in said if name_of(event.judgement) in QUOTING]
    items = {query.id: query.items[0] for query in here.store.tasks(ids=quoting)}
    responses = {response.id: response for response in here.store.responses(ids=items.values())}
    covered_names = here.names

    def covered(event: Feedback) -> dict[str, Any]:
        answer = {name: value for name, value in body(event.judgement).items() if name not in HIDDEN}
        kind = name_of(event.judgement)
        if kind not in QUOTING:
            return answer
        cover = _cover(kind, responses[items[event.task]], covered_names)
        return {**answer, QUOTING[kind]: cover.over(answer[QUOTING[kind]])}

    return [
        Mine(
            id=event.id, query=names.get(event.task, ""), kind=name_of(event.judgement), answer=covered(event),
            shown=list(event.display_order), note=event.comment, at=event.created_at,
            flags=[flag for flag in event.flags if flag != DECIDED],
        )
        for event in said
    ]  # fmt: skip


def items(here: Project, person: Person, lent: list[Lent]) -> list[Item]:
    """Queries as this labeller sees them, each in its own order."""
    if not lent:
        return []
    prompts = {prompt.id: prompt for prompt in here.store.prompts(ids=[each.query.prompt for each in lent])}
    shown = [item for each in lent for item in each.query.items]
    responses = {response.id: response for response in here.store.responses(ids=shown)}
    axes = list(here.settings["axes"]) if any(each.query.kind == "rating" for each in lent) else []
    names = here.names
    pages = {each.query.id: _item(each, prompts[each.query.prompt], responses, axes, names) for each in lent}
    for query, remark in here.desk.sent_back(person.id, pages).items():
        *_, last = here.store.feedback(person.id, query)
        (before,) = _own_answers(here, person, [last])
        pages[query] = pages[query].model_copy(update={"before": before, "remark": remark})
    return list(pages.values())


def _item(
    lent: Lent, prompt: Prompt, responses: Mapping[str, Response], axes: list[str], names: tuple[str, ...]
) -> Item:
    kind = lent.query.kind
    return Item(
        query=lent.name,
        kind=kind,
        instruction=lent.query.instruction or asks(kind),
        prompt=[_turn(message, names) for message in prompt.messages],
        items=[_shown(responses[item], prompt, names) for item in lent.shown],
        axes=axes if kind == "rating" else [],
        form=form(kind),
    )


def _shown(response: Response, prompt: Prompt, names: tuple[str, ...]) -> Shown:
    text = _cover("", response, names).text
    raw = _cover("correction", response, names).text if response.extra else None
    return Shown(id=response.id, html=render_answer(text, prompt), text=text, raw=raw)


def _turn(message: Message, names: tuple[str, ...]) -> Turn:
    """A message of the prompt: what a model said before may tell who it is, what people ask may not be changed."""
    ours = message.role == "assistant"
    written = readable(message.content, message.extra)
    text = Cover(written, names).text if ours else show_invisible(written)
    return Turn(role=message.role, html=render_turn(Message(message.role, text)), text=text)


HIDDEN = ("weight", "margin", "certainty", "extra")
"""Fields that are for files, not for people."""


def form(kind: str) -> list[Entry]:
    """The fields of a kind of feedback, so that a page can ask for them without knowing the kind."""
    from assent.config import documented

    made = resolve("feedback", kind)
    hints, words = get_type_hints(made), documented(made)
    return [
        Entry(
            name=field.name,
            type=_type(hints[field.name]),
            choices=[str(choice) for choice in get_args(hints[field.name])] if _is_choice(hints[field.name]) else [],
            required=type(field.default).__name__ == "_MISSING_TYPE",
            help=words.get(field.name, ""),
        )
        for field in fields(made)
        if field.name not in HIDDEN
    ]


def _is_choice(hint: Any) -> bool:
    return get_origin(hint) is Literal


def _type(hint: Any) -> Literal["text", "number", "flag", "choice"]:
    if _is_choice(hint):
        return "choice"
    return "flag" if hint is bool else "number" if hint in (int, float) else "text"
