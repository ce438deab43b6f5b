"""The web application: the routes of this package, and errors as HTTP responses."""

import logging
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from assent.errors import AssentError
from assent.labelling.assignments import NotAssigned
from assent.labelling.users import AccessDenied
from assent.store.errors import Busy, DiskFull, Unusable
from assent.store.errors import Conflict as StoreConflict
from assent.web import account, chat, clips, judgements, labelling, manage, pages, progress, review
from assent.web.security import SecurityMiddleware, SignInRequired
from assent.web.workspace import UnknownRun, Workspace

STATIC = Path(__file__).parent / "static"
STATUS: tuple[tuple[type[AssentError], int, str], ...] = (
    (AccessDenied, 403, ""),
    (NotAssigned, 404, ""),
    (UnknownRun, 404, ""),
    (StoreConflict, 409, ""),
    (Busy, 503, "the database is busy: try again"),
    (
        DiskFull,
        507,
        "the server disk is full; free some space and send again (acknowledged judgements are safe)",
    ),
    (Unusable, 500, "the server cannot use its database; see the server log"),
)
"""The HTTP status of each of our errors; any other AssentError is 422. A text here replaces an error that names files
of the server."""
MAX_DETAIL_CHARS = 600
"""Characters of an error text in a response."""


def make_app(workspace: Workspace) -> FastAPI:
    """Return the application that serves a workspace."""
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": Error} for status in (401, 403, 404, 409, 422, 429, 507)
    }
    app = FastAPI(title="assent", summary="Human feedback", docs_url=None, redoc_url=None, responses=errors)
    app.router.redirect_slashes = False  # these redirects name the host, and so would leave `root_path`
    if workspace.root_path:
        app.servers = [{"url": workspace.root_path}]
    app.state.workspace = workspace
    app.state.limits = pages.Limits()
    app.add_middleware(SecurityMiddleware)
    app.mount("/static", Files(directory=STATIC), name="static")
    app.include_router(labelling.router)
    for module in (chat, clips, progress, judgements, review, manage, account):
        app.include_router(module.router)
    app.include_router(pages.router)
    app.add_exception_handler(AssentError, _handle_assent_error)
    app.add_exception_handler(SignInRequired, _redirect_to_sign_in)
    app.add_exception_handler(StarletteHTTPException, _handle_http_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    return app


class Conflict(BaseModel):
    """A judgement was refused because an earlier one exists that it does not supersede."""

    message: str
    existing_id: str
    """The id of the current judgement."""


class Error(BaseModel):
    """An error, in one line."""

    detail: str | Conflict


class Files(StaticFiles):
    """The scripts and styles of the pages; a browser revalidates them each time."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _wants_page(request: Request) -> bool:
    return "/api/" not in request.url.path and "text/html" in request.headers.get("accept", "")


def _respond(request: Request, status: int, detail: Any, headers: Any = None) -> Response:
    if _wants_page(request):
        message = detail if isinstance(detail, str) else detail.get("message", "")
        values = {"status": status, "message": message, "retry_path": request.url.path if status == 429 else ""}
        return HTMLResponse(pages.render(request, "error.html.jinja", values), status, headers)
    return JSONResponse({"detail": detail}, status, headers)


async def _handle_assent_error(request: Request, error: Exception) -> Response:
    status, replacement = next(
        ((status, text) for error_class, status, text in STATUS if isinstance(error, error_class)), (422, "")
    )
    if replacement:
        logging.getLogger("assent.web").error("%s %s: %s", request.method, request.url.path, error)
        return _respond(request, status, replacement)
    # The error may quote text that is long, or that cannot be encoded.
    message = str(error)[:MAX_DETAIL_CHARS].encode("utf-8", "backslashreplace").decode()
    return _respond(request, status, message)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _respond(request, error.status_code, error.detail, error.headers)


async def _handle_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return _respond(request, 422, f"{field}: {first['msg']}")


async def _redirect_to_sign_in(request: Request, error: Exception) -> Response:
    return RedirectResponse(f"/login?next={request.url.path}", 303)
