"""The pages: signing in, joining, the list of runs, and the frames that the scripts fill."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.accounts import Denied, Person, folded
from assent.web.labelling import Here
from assent.web.security import COOKIE, Needs, Rate, SignIn, address, asking, office_of, public_url, session_of
from assent.web.text import render as markdown

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
Opened = TypeVar("Opened")
TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Limits:
    """How often somebody may fail (signing in, joining), or send something (answers, chat)."""

    sign_in: Rate = field(default_factory=lambda: Rate(10, 60))
    sign_ins: Rate = field(default_factory=lambda: Rate(60, 60))
    name: Rate = field(default_factory=lambda: Rate(100, 3600))
    """From all addresses together."""
    answers: Rate = field(default_factory=lambda: Rate(300, 60))
    chat: Rate = field(default_factory=lambda: Rate(20, 60))
    join: Rate = field(default_factory=lambda: Rate(20, 60))


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def render(request: Request, template: str, values: dict[str, Any]) -> str:
    """A template with what every page shows."""
    person = asking(request)
    shared = {"person": person, "run": None, "page": "", "base": office_of(request).root_path}
    text: str = _environment().get_template(template).render(**{**shared, **values})
    return text


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A response with a template."""
    return HTMLResponse(render(request, template, values), status)


def need(right: str) -> Any:
    """A dependency of a page: who is not signed in is sent there."""
    return Depends(Needs(right, page=True))


@router.get("/")
def home(request: Request) -> Response:
    """Where everybody starts: their runs."""
    person = asking(request)
    if person is None:
        raise SignIn
    office = office_of(request)
    look = person.may("look")  # else it would tell which items count, and which are gold
    runs = [(name, office.project(name).desk.progress() if look else None) for name in office.runs()]
    if len(runs) == 1 and person.role == "labeller":
        return RedirectResponse(f"/r/{runs[0][0]}/label", 303)
    return page(request, "home.html.jinja", runs=runs)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:
    """The sign-in form."""
    return page(request, "login.html.jinja", next=_own(next), words="", name="")


@router.post("/login")
def login(
    request: Request,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Sign in."""
    client, limits = address(request), request.app.state.limits
    keys = (limits.sign_in, f"{client} {folded(name)}"), (limits.sign_ins, client), (limits.name, folded(name))
    for limit, key in keys:
        limit.demand(key)
    people = office_of(request).people
    try:
        person = people.sign_in(name, password)
    except AssentError as error:
        return page(request, "login.html.jinja", 403, next=_own(next), words=str(error), name=name)
    for limit, key in keys:
        limit.forgive(key)
    return with_cookie(request, RedirectResponse(_own(next), 303), person)


@router.post("/logout")
def logout(request: Request) -> Response:
    """End this session; what lies with this person goes to others."""
    office, person = office_of(request), asking(request)
    office.people.revoke(session_of(request))
    if person is not None:
        for name in office.runs():
            office.project(name).desk.give_back(person.id)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/join/{secret}")
def join_page(request: Request, secret: str) -> Response:
    """The form behind an invite link, or behind the link of the first start."""
    role = of_link(request, secret, office_of(request).people.invited)
    return page(request, "join.html.jinja", secret=secret, role=role, words="", name="")


@router.post("/join/{secret}")
def join(
    request: Request,
    secret: str,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
) -> Response:
    """Make an account, and sign in."""
    people = office_of(request).people
    role = of_link(request, secret, people.invited)
    try:
        person = people.join(secret, name, password, screened=False)
    except AssentError as error:
        return page(request, "join.html.jinja", 422, secret=secret, role=role, words=str(error), name=name)
    runs = office_of(request).runs()
    begin = f"/r/{runs[0]}/guidelines" if person.role == "labeller" and len(runs) == 1 else "/"
    return with_cookie(request, RedirectResponse(begin, 303), person)


@router.get("/api/me", response_class=JSONResponse)
def me(person: Annotated[Person, Depends(Needs("label"))]) -> dict[str, str]:
    """Whose session this is."""
    return {"id": person.id, "name": person.name, "role": person.role}


@router.get("/r/{run}/label")
def label(request: Request, here: Here, person: Annotated[Person, need("label")]) -> Response:
    """The label page; a script fills it."""
    settings = here.settings
    return page(
        request, "label.html.jinja", run=here.name, page="label", flags=settings["flags"],
        guidelines=markdown(str(settings["guidelines"])),
    )  # fmt: skip


@router.get("/r/{run}/guidelines")
def guidelines(request: Request, here: Here, person: Annotated[Person, need("label")]) -> Response:
    """What labellers are asked to hold to."""
    text = markdown(str(here.settings["guidelines"]))
    return page(request, "guidelines.html.jinja", run=here.name, page="guidelines", guidelines=text)


def of_link(request: Request, secret: str, read: Callable[[str], Opened]) -> Opened:
    """What `read` makes of a link's secret; only links that do not hold count as tries."""
    limit, client = request.app.state.limits.join, address(request)
    limit.check(client)
    try:
        return read(secret)
    except Denied:
        limit.demand(client)
        raise


def _own(path: str) -> str:
    """A path of this server; never another host."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def with_cookie(request: Request, response: Response, person: Person) -> Response:
    """A response that opens a session of this person in the browser."""
    secret = office_of(request).people.open_session(person)
    secure = public_url(request).startswith("https:")
    response.set_cookie(COOKIE, secret, max_age=30 * 86400, httponly=True, samesite="lax", secure=secure)
    return response
