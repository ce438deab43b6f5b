"""Pages for signing in and joining, the list of runs, the labelling page, and what all pages share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.user_names import normalise_name
from assent.labelling.users import AccessDenied, User
from assent.web.security import (
    COOKIE,
    CurrentProject,
    RateLimit,
    RequireRole,
    SignInRequired,
    client_address,
    current_user,
    public_url,
    session_cookie,
    workspace_of,
)
from assent.web.text import render as markdown

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
LinkTarget = TypeVar("LinkTarget")
TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Limits:
    """Rate limits on failures (signing in, joining) and on requests (judgements, chat)."""

    sign_in: RateLimit = field(default_factory=lambda: RateLimit(10, 60))
    """Attempts for one name from one address."""
    sign_in_address: RateLimit = field(default_factory=lambda: RateLimit(60, 60))
    sign_in_name: RateLimit = field(default_factory=lambda: RateLimit(100, 3600))
    """Attempts for one name from all addresses together."""
    judgements: RateLimit = field(default_factory=lambda: RateLimit(300, 60))
    chat: RateLimit = field(default_factory=lambda: RateLimit(20, 60))
    join: RateLimit = field(default_factory=lambda: RateLimit(20, 60))


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def render(request: Request, template: str, values: dict[str, Any]) -> str:
    """Render a template with the values that every page needs."""
    user = current_user(request)
    shared = {"user": user, "run": None, "page": "", "base": workspace_of(request).root_path}
    text: str = _environment().get_template(template).render(**{**shared, **values})
    return text


def render_page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a response with a rendered template."""
    return HTMLResponse(render(request, template, values), status)


def require(right: str) -> Any:
    """Return a dependency of a page on a right; without a session it redirects to the sign-in page."""
    return Depends(RequireRole(right, is_page=True))


@router.get("/")
def home(request: Request) -> Response:
    """List the runs, or redirect a labeller to the only one."""
    user = current_user(request)
    if user is None:
        raise SignInRequired
    workspace = workspace_of(request)
    can_look = user.can("look")  # progress would show which items are gold
    runs = [(name, workspace.project(name).queue.progress() if can_look else None) for name in workspace.runs()]
    if len(runs) == 1 and user.role == "labeller":
        return RedirectResponse(f"/r/{runs[0][0]}/label", 303)
    return render_page(request, "home.html.jinja", runs=runs)


@router.get("/login")
def login_page(request: Request, next: str = "/") -> Response:
    """Show the sign-in form."""
    return render_page(request, "login.html.jinja", next=_local_path(next), message="", name="")


@router.post("/login")
def login(
    request: Request,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Sign in."""
    client = client_address(request)
    limits = request.app.state.limits
    keys = (
        (limits.sign_in, f"{client} {normalise_name(name)}"),
        (limits.sign_in_address, client),
        (limits.sign_in_name, normalise_name(name)),
    )
    for limit, key in keys:
        limit.demand(key)
    accounts = workspace_of(request).accounts
    try:
        user = accounts.sign_in(name, password)
    except AssentError as error:
        return render_page(request, "login.html.jinja", 403, next=_local_path(next), message=str(error), name=name)
    for limit, key in keys:
        limit.forgive(key)
    return set_session(request, RedirectResponse(_local_path(next), 303), user)


@router.post("/logout")
def logout(request: Request) -> Response:
    """End the session, and release the user's assignments to others."""
    workspace, user = workspace_of(request), current_user(request)
    workspace.accounts.credentials.revoke(session_cookie(request))
    if user is not None:
        for name in workspace.runs():
            workspace.project(name).queue.assignments.release(user.id)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE)
    return response


@router.get("/join/{secret}")
def join_page(request: Request, secret: str) -> Response:
    """Show the form behind an invite link or a set-up link."""
    role = read_link(request, secret, workspace_of(request).accounts.invited_role)
    return render_page(request, "join.html.jinja", secret=secret, role=role, message="", name="")


@router.post("/join/{secret}")
def join(
    request: Request,
    secret: str,
    name: Annotated[str, Form(max_length=200)],
    password: Annotated[str, Form(max_length=1000)],
) -> Response:
    """Make an account and sign in."""
    accounts = workspace_of(request).accounts
    role = read_link(request, secret, accounts.invited_role)
    try:
        user = accounts.join(secret, name, password, is_screened=False)
    except AssentError as error:
        return render_page(request, "join.html.jinja", 422, secret=secret, role=role, message=str(error), name=name)
    runs = workspace_of(request).runs()
    first_page = f"/r/{runs[0]}/guidelines" if user.role == "labeller" and len(runs) == 1 else "/"
    return set_session(request, RedirectResponse(first_page, 303), user)


@router.get("/api/me", response_class=JSONResponse)
def me(user: Annotated[User, Depends(RequireRole("label"))]) -> dict[str, str]:
    """Return the user of this session."""
    return {"id": user.id, "name": user.name, "role": user.role}


@router.get("/r/{run}/label")
def label(request: Request, project: CurrentProject, user: Annotated[User, require("label")]) -> Response:
    """Show the labelling page, which a script fills."""
    settings = project.settings
    return render_page(
        request, "label.html.jinja", run=project.name, page="label", flags=settings["flags"],
        guidelines=markdown(str(settings["guidelines"])),
    )  # fmt: skip


@router.get("/r/{run}/guidelines")
def guidelines(request: Request, project: CurrentProject, user: Annotated[User, require("label")]) -> Response:
    """Show the guidelines for labellers."""
    text = markdown(str(project.settings["guidelines"]))
    return render_page(request, "guidelines.html.jinja", run=project.name, page="guidelines", guidelines=text)


def read_link(request: Request, secret: str, read: Callable[[str], LinkTarget]) -> LinkTarget:
    """Return what `read` makes of a link's secret; only invalid links count towards the rate limit."""
    limit, client = request.app.state.limits.join, client_address(request)
    limit.check(client)
    try:
        return read(secret)
    except AccessDenied:
        limit.demand(client)
        raise


def _local_path(path: str) -> str:
    """Return a path if it is on this server, else the root: never another host."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def set_session(request: Request, response: Response, user: User) -> Response:
    """Add the cookie of a new session to a response."""
    secret = workspace_of(request).accounts.credentials.open_session(user)
    secure = public_url(request).startswith("https:")
    response.set_cookie(COOKIE, secret, max_age=30 * 86400, httponly=True, samesite="lax", secure=secure)
    return response
