"""The application: routes from the other files here, and one way to tell what went wrong."""

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
from assent.labelling.accounts import Denied
from assent.labelling.queue import NotShown
from assent.store.database import Busy, Conflict, DiskFull, Unusable
from assent.web import account, answers, chat, labelling, manage, pages, progress, review
from assent.web.security import Guard, SignIn
from assent.web.workspace import Office

STATIC = Path(__file__).parent / "static"
STATUS: tuple[tuple[type[AssentError], int, str], ...] = (
    (Denied, 403, ""),
    (NotShown, 404, ""),
    (Conflict, 409, ""),
    (Busy, 503, "the database is busy: try again"),
    (DiskFull, 507, "the server's disk is full: free some space and send again; what was acknowledged is safe"),
    (Unusable, 500, "the server's database cannot be used: its log tells why"),
)
"""What each of our errors is in HTTP; any other is a request that will not do, 422. Where the words say where the
server keeps its files, others are told."""
TOLD = 600
"""Characters of what an error says."""


def make_app(office: Office) -> FastAPI:
    """The server of an office."""
    told: dict[int | str, dict[str, Any]] = {status: {"model": Told} for status in (401, 403, 404, 409, 422, 429, 507)}
    app = FastAPI(title="assent", summary="Feedback of people", docs_url=None, redoc_url=None, responses=told)
    app.router.redirect_slashes = False  # its redirects name the host, and so would lead away from `root_path`
    if office.root_path:
        app.servers = [{"url": office.root_path}]
    app.state.office = office
    app.state.limits = pages.Limits()
    app.add_middleware(Guard)
    app.mount("/static", Files(directory=STATIC), name="static")
    app.include_router(labelling.router)
    for room in (chat, progress, answers, review, manage, account):
        app.include_router(room.router)
    app.include_router(pages.router)
    app.add_exception_handler(AssentError, _told)
    app.add_exception_handler(SignIn, _sign_in)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


class Before(BaseModel):
    """Why an answer was not taken: there is one already, which it does not supersede."""

    message: str
    before: str
    """The id of the answer that stands."""


class Told(BaseModel):
    """What went wrong, in one line."""

    detail: str | Before


class Files(StaticFiles):
    """Our own scripts and styles; a browser asks each time whether they are new."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _wants_page(request: Request) -> bool:
    return "/api/" not in request.url.path and "text/html" in request.headers.get("accept", "")


def _answer(request: Request, status: int, detail: Any, headers: Any = None) -> Response:
    if _wants_page(request):
        words = detail if isinstance(detail, str) else detail.get("message", "")
        again = request.url.path if status == 429 else ""
        page = pages.render(request, "error.html.jinja", {"status": status, "words": words, "again": again})
        return HTMLResponse(page, status, headers)
    return JSONResponse({"detail": detail}, status, headers)


async def _told(request: Request, error: Exception) -> Response:
    status, instead = next(((status, words) for kind, status, words in STATUS if isinstance(error, kind)), (422, ""))
    if instead:
        logging.getLogger("assent.web").error("%s %s: %s", request.method, request.url.path, error)
        return _answer(request, status, instead)
    if status == 422 and str(error).startswith("no run "):
        status = 404
    # It may quote what is long, or cannot be encoded.
    said = str(error)[:TOLD].encode("utf-8", "backslashreplace").decode()
    return _answer(request, status, said)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _answer(request, error.status_code, error.detail, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return _answer(request, 422, f"{where}: {first['msg']}")


async def _sign_in(request: Request, error: Exception) -> Response:
    return RedirectResponse(f"/login?next={request.url.path}", 303)
