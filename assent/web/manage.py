"""Pages and API for managers: invites, users, settings, tokens, tasks and the stream of judgements."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from assent.errors import AssentError
from assent.feedback import to_values
from assent.formats.files.tables import escape_formula
from assent.functional.near_identical import is_near_identical
from assent.labelling.judgements import judgements_after
from assent.labelling.queue import TaskRequest
from assent.labelling.settings import change_setting, setting_history
from assent.labelling.users import PERMISSIONS, User
from assent.records import Prompt, Task, utc_now
from assent.records import Response as PolicyResponse
from assent.registry import resolve
from assent.segments import is_behaviour
from assent.web.judgements import as_json
from assent.web.pages import render_page, require
from assent.web.progress import measure_annotators
from assent.web.schemas import Id
from assent.web.security import CurrentProject, RequireRole, public_url, workspace_of
from assent.web.workspace import Project

router = APIRouter(tags=["manage"])
PageManager = Annotated[User, require("manage")]
Manager = Annotated[User, Depends(RequireRole("manage"))]
Reviewer = Annotated[User, Depends(RequireRole("review"))]
ShortText = Annotated[str, Form(max_length=500)]
Serial = Annotated[int, Field(ge=0, le=2**63 - 1)]
LongText = Annotated[str, Form(max_length=200_000)]


@router.get("/r/{run}/admin", response_class=HTMLResponse, include_in_schema=False)
def admin(request: Request, project: CurrentProject, user: PageManager) -> HTMLResponse:
    """Show users, links, settings and the gold items."""
    return _admin_page(request, project)


def _admin_page(request: Request, project: Project, **shown_once: Any) -> HTMLResponse:
    """Render the page for managers; `shown_once` holds new links or a new token."""
    accounts = workspace_of(request).accounts
    users, credentials = list(accounts.all()), accounts.credentials.active()
    statistics = measure_annotators(project)
    names = {user.id: user.name for user in users}
    history = setting_history(project.store, "guidelines")
    values = {"links": [], "token": "", "reset": None, **shown_once}
    return render_page(
        request, "admin.html.jinja", run=project.name, page="admin", users=users,
        quality={annotator.annotator: annotator for annotator in statistics.annotators},
        is_counting=statistics.counted < statistics.newest, roles=list(PERMISSIONS), settings=project.settings,
        guidelines=[(created_at, names.get(author, author), text) for created_at, author, text in history],
        gold=[(task, to_values(judgement), use) for task, judgement, use in project.queue.gold.items()],
        log=[_log_entry(row, names) for row in list(accounts.audit_log.entries())[:30]], names=names,
        skips=project.queue.assignments.skip_counts(),
        open_links=[credential for credential in credentials if credential.kind != "token"],
        tokens=[credential for credential in credentials if credential.kind == "token"], **values,
    )  # fmt: skip


@router.post("/r/{run}/invite", response_class=HTMLResponse, include_in_schema=False)
def invite(
    request: Request, project: CurrentProject, user: PageManager, role: ShortText, external_ids: LongText = "",
    note: ShortText = "", count: Annotated[int, Form(ge=1, le=1000)] = 1,
) -> HTMLResponse:  # fmt: skip
    """Make invite links for one account each: one per external id, or `count` if no ids are given."""
    ids = [line.strip() for line in external_ids.splitlines() if line.strip()] or [""] * count
    secrets = workspace_of(request).accounts.invite(user, role, ids, note)
    base = public_url(request)
    links = [(external_id, f"{base}/join/{secret}") for external_id, secret in zip(ids, secrets, strict=True)]
    return _admin_page(request, project, links=links)


@router.post("/r/{run}/token", response_class=HTMLResponse, include_in_schema=False)
def token(request: Request, project: CurrentProject, user: PageManager, note: ShortText = "") -> HTMLResponse:
    """Make an API token that acts as this user, and show it once."""
    return _admin_page(request, project, token=workspace_of(request).accounts.credentials.issue_token(user, note))


@router.post("/r/{run}/reset", response_class=HTMLResponse, include_in_schema=False)
def reset(request: Request, project: CurrentProject, user: PageManager, id: ShortText) -> HTMLResponse:
    """Make a link with which a user sets a new password, and show it once."""
    accounts = workspace_of(request).accounts
    target = accounts.get(id)
    if target.role == "owner" and user.role != "owner":
        raise HTTPException(403, "only an owner may reset the password of an owner")
    link = f"{public_url(request)}/reset/{accounts.issue_reset(user.id, id)}"
    return _admin_page(request, project, reset=(target.name, link))


@router.post("/r/{run}/withdraw", include_in_schema=False)
def withdraw(
    request: Request, project: CurrentProject, user: PageManager, key: Annotated[list[Serial] | None, Form()] = None
) -> Response:
    """Withdraw links or tokens."""
    workspace_of(request).accounts.credentials.withdraw(user, key or [])
    return RedirectResponse(f"/r/{project.name}/admin", 303)


@router.post("/r/{run}/users", include_in_schema=False)
def change_user(
    request: Request, project: CurrentProject, user: PageManager, id: ShortText, role: ShortText = "",
    state: ShortText = "", reason: ShortText = "",
) -> Response:  # fmt: skip
    """Change the role or the state of a user."""
    accounts = workspace_of(request).accounts
    target = accounts.get(id)
    if "owner" in (role, target.role) and user.role != "owner":
        raise HTTPException(403, "only an owner may make or change an owner")
    if target.id == user.id:
        raise HTTPException(403, "you cannot change your own role or state: ask another manager")
    accounts.change(user.id, id, reason, role=role, state=state)
    return RedirectResponse(f"/r/{project.name}/admin", 303)


@router.post("/r/{run}/settings", include_in_schema=False)
def change_settings(
    project: CurrentProject, user: PageManager, guidelines: LongText = "", flags: ShortText = "",
    axes: ShortText = "", names: LongText = "", completion: Annotated[int, Form(ge=0, le=10**6)] = 0,
) -> Response:  # fmt: skip
    """Set guidelines, flags, axes and redacted names; earlier values stay on record."""
    new_values: dict[str, Any] = {
        "guidelines": guidelines.replace("\r\n", "\n"),
        "flags": _split(flags),
        "axes": _split(axes) or ["quality"],
        "names": _split(names.replace("\n", ",")),
        "completion": completion,
    }
    old_values = project.settings
    for name, value in new_values.items():
        if value != old_values.get(name):
            change_setting(project.store, name, value, user.id, utc_now())
    return RedirectResponse(f"/r/{project.name}/admin", 303)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


@router.get("/r/{run}/completion-codes.csv", include_in_schema=False)
def completion_codes(request: Request, project: CurrentProject, user: PageManager) -> Response:
    """Return a table of crowd workers: how many judgements they made, and their completion codes."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["external_id", "user", "judgements", "is_complete", "code"])
    required = int(project.settings.get("completion", 0))
    for worker in workspace_of(request).accounts.all():
        if worker.external_id:
            count = project.queue.count_judgements(worker.id)
            is_complete = bool(required and count >= required)
            code = project.completion_code(worker.id)
            writer.writerow([escape_formula(worker.external_id), worker.id, count, is_complete, code])
    return Response(table.getvalue(), media_type="text/csv")


# The API for programs


class TaskIn(BaseModel):
    """A task about responses that are in the store."""

    model_config = ConfigDict(extra="forbid")

    kind: Id
    prompt: Id
    items: list[Id] = Field(max_length=100)
    """Ids of responses to the prompt."""
    instruction: str = Field(default="", max_length=2000)
    num_judgements: int = Field(default=1, ge=1, le=100)
    """Judgements wanted, from as many annotators."""


class TasksIn(BaseModel):
    """Tasks for annotators."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[TaskIn] = Field(max_length=1000)
    batch: str = Field(default="api", max_length=80)


class Created(BaseModel):
    """The number of new tasks."""

    created: int


class InvitesIn(BaseModel):
    """Invites for new users."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["admin", "reviewer", "labeller", "viewer"] = "labeller"
    external_ids: list[str] = Field(default=[""], max_length=10_000)
    note: str = Field(default="", max_length=500)


class InviteLink(BaseModel):
    """A link with which one user makes an account."""

    external_id: str
    link: str


@router.post("/r/{run}/api/tasks")
def add_tasks(project: CurrentProject, user: Reviewer, posted: TasksIn) -> Created:
    """Add tasks for annotators. A task that is posted again is added once."""
    prompts = {prompt.id: prompt for prompt in project.store.prompts(ids=[task.prompt for task in posted.tasks])}
    item_ids = {item for task in posted.tasks for item in task.items}
    responses = {response.id: response for response in project.store.responses(ids=item_ids)}
    requests = []
    for task_in in posted.tasks:
        _check_task(task_in, prompts, responses)
        task = Task(task_in.kind, task_in.prompt, tuple(task_in.items), "train", task_in.instruction)
        requests.append(TaskRequest(task, task_in.num_judgements, "api"))
    return Created(created=project.queue.enqueue(requests, posted.batch))


def _check_task(task: TaskIn, prompts: Mapping[str, Prompt], responses: Mapping[str, PolicyResponse]) -> None:
    """Raise an AssentError for a task about unknown records, or one that nobody could judge."""
    allowed = resolve("feedback", task.kind).num_items
    if task.prompt not in prompts:
        raise AssentError(f"no prompt {task.prompt} in this run")
    for item in task.items:
        if item not in responses or responses[item].prompt != task.prompt:
            raise AssentError(f"no response {item} to prompt {task.prompt} in this run")
    is_clips = is_behaviour(prompts[task.prompt])
    if is_clips and task.kind in ("correction", "demonstration"):
        raise AssentError(f"nobody can write a clip: a {task.kind} is for texts; post a comparison or a rating")
    if task.kind == "comparison" and len(task.items) == 2 and not is_clips:
        first, second = (responses[item].text for item in task.items)
        if is_near_identical(first, second):
            raise AssentError("two responses with almost the same words cannot be compared; post another pair")
    if len(task.items) not in allowed or len(set(task.items)) < len(task.items):
        raise AssentError(f"a {task.kind} cannot have {len(task.items)} items, or the same item twice")


@router.get("/r/{run}/api/events")
def events(
    project: CurrentProject, user: Reviewer, after: str = "", count: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> StreamingResponse:
    """Return judgements in the order of arrival, as JSON lines with pseudonyms, after the one with the id `after`."""
    try:
        page = judgements_after(project.store, after, count)
    except AssentError as error:
        raise HTTPException(404, str(error)) from None
    return StreamingResponse(map(as_json, page), media_type="application/x-ndjson")


@router.post("/api/invites")
def add_invites(request: Request, user: Manager, posted: InvitesIn) -> list[InviteLink]:
    """Make invite links for one account each, in the order of their external ids."""
    secrets = workspace_of(request).accounts.invite(user, posted.role, posted.external_ids, posted.note)
    base = public_url(request)
    return [
        InviteLink(external_id=external_id, link=f"{base}/join/{secret}")
        for external_id, secret in zip(posted.external_ids, secrets, strict=True)
    ]


class LogEntry(NamedTuple):
    """An entry of the audit log, in words."""

    created_at: str
    author: str
    action: str
    details: str


def _log_entry(row: Any, names: Mapping[str, str]) -> LogEntry:
    values = {key: value for key, value in json.loads(row.details).items() if value not in ("", None)}
    details = ", ".join(f"{key}: {names.get(str(value), value)}" for key, value in values.items())
    return LogEntry(row.created_at, names.get(row.author, row.author), row.action, details)
