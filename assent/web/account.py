"""One's own account: a new password, and the tokens that act in one's name; and the page behind a reset link."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.accounts import Person
from assent.web.pages import of_link, page, with_cookie
from assent.web.security import SignIn, asking, office_of

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
Password = Annotated[str, Form(max_length=1000)]


def somebody(request: Request) -> Person:
    """Who asks, whatever their role; others are sent to sign in."""
    person = asking(request)
    if person is None:
        raise SignIn
    return person


Somebody = Annotated[Person, Depends(somebody)]


@router.get("/account")
def account(request: Request, person: Somebody, changed: str | None = None) -> Response:
    """Change one's password, and take tokens back."""
    return _account(request, person, done="" if changed is None else "Your password is changed.")


def _account(request: Request, person: Person, status: int = 200, words: str = "", done: str = "") -> Response:
    tokens = [key for key in office_of(request).people.credentials(person.id) if key.kind == "token"]
    return page(request, "account.html.jinja", status, words=words, done=done, tokens=tokens)


@router.post("/account/password")
def change_password(request: Request, person: Somebody, old: Password, new: Password) -> Response:
    """A new password; other sessions end, this one goes on."""
    people, limit, key = office_of(request).people, request.app.state.limits.sign_in, f"password {person.id}"
    limit.demand(key)
    try:
        people.change_password(person, old, new)
    except AssentError as error:
        words = "this is not your password" if "no account" in str(error) else str(error)
        return _account(request, person, 422, words)
    limit.forgive(key)
    return with_cookie(request, RedirectResponse("/account?changed", 303), person)


@router.post("/account/withdraw")
def withdraw(request: Request, person: Somebody, key: Annotated[int, Form(ge=0, le=2**63 - 1)]) -> Response:
    """Take back one of one's own tokens."""
    office_of(request).people.withdraw(person, [key])
    return RedirectResponse("/account", 303)


@router.get("/reset/{secret}")
def reset_page(request: Request, secret: str) -> Response:
    """Choose a new password by a link."""
    return page(request, "reset.html.jinja", secret=secret, name=_resetting(request, secret).name, words="")


@router.post("/reset/{secret}")
def reset(request: Request, secret: str, password: Password) -> Response:
    """The new password."""
    name = _resetting(request, secret).name
    try:
        person = office_of(request).people.reset_password(secret, password)
    except AssentError as error:
        return page(request, "reset.html.jinja", 422, secret=secret, name=name, words=str(error))
    return with_cookie(request, RedirectResponse("/", 303), person)


def _resetting(request: Request, secret: str) -> Person:
    """Whose link it is."""
    return of_link(request, secret, office_of(request).people.resetting)
