"""The account page: change the password, revoke tokens; and the page behind a reset link."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.labelling.users import User
from assent.web.pages import read_link, render_page, set_session
from assent.web.security import SignInRequired, current_user, workspace_of

router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)
Password = Annotated[str, Form(max_length=1000)]


def any_user(request: Request) -> User:
    """Return the current user of any role; without a session redirect to the sign-in page."""
    user = current_user(request)
    if user is None:
        raise SignInRequired
    return user


AnyUser = Annotated[User, Depends(any_user)]


@router.get("/account")
def account(request: Request, user: AnyUser, changed: str | None = None) -> Response:
    """Show the account page."""
    return _account(request, user, notice="" if changed is None else "Your password is changed.")


def _account(request: Request, user: User, status: int = 200, error: str = "", notice: str = "") -> Response:
    tokens = [key for key in workspace_of(request).accounts.credentials.active(user.id) if key.kind == "token"]
    return render_page(request, "account.html.jinja", status, error=error, notice=notice, tokens=tokens)


@router.post("/account/password")
def change_password(request: Request, user: AnyUser, old: Password, new: Password) -> Response:
    """Change the password; other sessions end, this one continues."""
    limit = request.app.state.limits.sign_in
    key = f"password {user.id}"
    limit.demand(key)
    try:
        workspace_of(request).accounts.change_password(user, old, new)
    except AssentError as error:
        message = "this is not your password" if "no account" in str(error) else str(error)
        return _account(request, user, 422, message)
    limit.forgive(key)
    return set_session(request, RedirectResponse("/account?changed", 303), user)


@router.post("/account/withdraw")
def withdraw(request: Request, user: AnyUser, key: Annotated[int, Form(ge=0, le=2**63 - 1)]) -> Response:
    """Revoke one of the user's own tokens."""
    workspace_of(request).accounts.credentials.withdraw(user, [key])
    return RedirectResponse("/account", 303)


@router.get("/reset/{secret}")
def reset_page(request: Request, secret: str) -> Response:
    """Show the form for a new password."""
    return render_page(
        request, "reset.html.jinja", secret=secret, name=_user_of_reset(request, secret).name, message=""
    )


@router.post("/reset/{secret}")
def reset(request: Request, secret: str, password: Password) -> Response:
    """Set the new password and sign in."""
    name = _user_of_reset(request, secret).name
    try:
        user = workspace_of(request).accounts.reset_password(secret, password)
    except AssentError as error:
        return render_page(request, "reset.html.jinja", 422, secret=secret, name=name, message=str(error))
    return set_session(request, RedirectResponse("/", 303), user)


def _user_of_reset(request: Request, secret: str) -> User:
    """Return the user of a reset link."""
    return read_link(request, secret, workspace_of(request).accounts.user_of_reset)
