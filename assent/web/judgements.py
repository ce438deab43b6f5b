"""Pages that list, show, send back and export judgements."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.errors import AssentError
from assent.feedback import ComparableJudgement, WrittenJudgement, to_values
from assent.feedback.critique import Critique
from assent.formats import TaskWithJudgements
from assent.formats.files.exporting import write_file
from assent.labelling.judgements import (
    JudgementFilter,
    State,
    assignment_state,
    count_judgements,
    list_annotators,
    list_judgements,
    superseding_ids,
)
from assent.labelling.users import User
from assent.records import Feedback, Judgement, Prompt, Task
from assent.registry import name_of, names
from assent.web.pages import render_page, require
from assent.web.security import CurrentProject, RequireRole, workspace_of
from assent.web.text import instruction_of, noun_of, render_item, render_turns, summary_of, text_of
from assent.web.workspace import Project

router = APIRouter(tags=["judgements"])
Reviewer = Annotated[User, require("review")]
PAGE_SIZE = 50
"""Judgements on one page."""
MAX_EXPORTED = 1_000_000
"""Judgements in one export, at most."""
MAX_SUMMARY_CHARS = 160
"""Characters of a judgement in the list."""


def judgement_filter(
    annotator: str = "", kind: str = "", flag: str = "", text: Annotated[str, Query(max_length=200)] = "",
    state: State = "current",
) -> JudgementFilter:  # fmt: skip
    """Return the filter that the query string of a page asks for."""
    return JudgementFilter(annotator, kind, flag, text.replace("\0", "").strip(), state)


FilterQuery = Annotated[JudgementFilter, Depends(judgement_filter)]


class ListedJudgement(NamedTuple):
    """A row of the list of judgements."""

    seq: int
    event: Feedback
    kind: str
    prompt: str
    summary: str


class JudgedTasks(NamedTuple):
    """The tasks of some judgements, with their prompts, by id."""

    tasks: dict[str, Task]
    prompts: dict[str, Prompt]

    @property
    def items(self) -> set[str]:
        return {item for task in self.tasks.values() for item in task.items}

    def prompt_of(self, task: str) -> Prompt:
        return self.prompts[self.tasks[task].prompt]


def read_tasks(project: Project, task_ids: Iterable[str]) -> JudgedTasks:
    """Read tasks and their prompts by the ids of the tasks."""
    tasks = {task.id: task for task in project.store.tasks(ids=task_ids)}
    prompt_ids = [task.prompt for task in tasks.values()]
    return JudgedTasks(tasks, {prompt.id: prompt for prompt in project.store.prompts(ids=prompt_ids)})


@router.get("/r/{run}/judgements", response_class=HTMLResponse, include_in_schema=False)
def judgements_page(
    request: Request,
    project: CurrentProject,
    user: Reviewer,
    filter: FilterQuery,
    before: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
) -> HTMLResponse:
    """List judgements by annotator, kind, flag and text, the newest first."""
    found_rows = list_judgements(project.store, filter, PAGE_SIZE + 1, before)
    events = [row.feedback for row in found_rows[:PAGE_SIZE]]
    judged = read_tasks(project, [event.task for event in events])
    rows = []
    for row in found_rows[:PAGE_SIZE]:
        task = judged.tasks[row.feedback.task]
        prompt = judged.prompt_of(task.id)
        summary = summary_of(row.feedback.judgement, task, prompt)
        rows.append(ListedJudgement(row.seq, row.feedback, task.kind, prompt.text, summary))
    return render_page(
        request, "judgements.html.jinja", run=project.name, page="judgements", rows=rows,
        has_more=len(found_rows) > PAGE_SIZE, total=count_judgements(project.store, filter), filter=filter,
        annotators=list_annotators(project.store), kinds=names("feedback"),
        flags=[flag.lower() for flag in project.settings["flags"]], names=names_by_id(request, user),
        max_chars=MAX_SUMMARY_CHARS,
        next_page=urlencode({**_query_values(filter), "before": rows[-1].seq}) if rows else "",
        export=urlencode(_query_values(filter)),
        replaced=superseding_ids(project.store, [event.id for event in events]),
    )  # fmt: skip


def _query_values(filter: JudgementFilter) -> dict[str, str]:
    return {
        "annotator": filter.annotator, "kind": filter.kind, "flag": filter.flag, "text": filter.text,
        "state": filter.state,
    }  # fmt: skip


@router.get("/r/{run}/judgements/{judgement:path}", response_class=HTMLResponse, include_in_schema=False)
def judgement_page(request: Request, project: CurrentProject, user: Reviewer, judgement: str) -> HTMLResponse:
    """Show one judgement with its task, items, annotator, time and duration."""
    event = _read_event(project, judgement)
    task = next(iter(project.store.tasks(ids=[event.task])))
    prompt = next(iter(project.store.prompts(ids=[task.prompt])))
    responses = {response.id: response for response in project.store.responses(ids=task.items)}
    item_order = [item for item in event.display_order if item in responses] or task.items
    other_events = [other for other in project.store.feedback(task=task.id) if other.id != event.id]
    return render_page(
        request, "judgement.html.jinja", run=project.name, page="judgements", event=event, task=task,
        text=text_of(event.judgement), quote=quote_of(event.judgement),
        turns=render_turns(prompt), noun=noun_of(prompt), instruction=instruction_of(task, prompt),
        responses=[(responses[item], render_item(responses[item], prompt)) for item in item_order],
        summary=summary_of(event.judgement, task, prompt),
        other_judgements=[(other, summary_of(other.judgement, task, prompt)) for other in other_events],
        replaced=superseding_ids(project.store, [event.id, *(other.id for other in other_events)]),
        assignment=assignment_state(project.store, event), names=names_by_id(request, user),
    )  # fmt: skip


def _read_event(project: Project, judgement_id: str) -> Feedback:
    event = next(iter(project.store.feedback(ids=[judgement_id])), None)
    if event is None:
        raise HTTPException(404, f"no judgement {judgement_id} in this run")
    return event


@router.post("/r/{run}/judgements/{judgement:path}/send-back", include_in_schema=False)
def send_back(
    request: Request,
    project: CurrentProject,
    user: Reviewer,
    judgement: str,
    remark: Annotated[str, Form(max_length=2000)] = "",
) -> Response:
    """Ask the author of a judgement to judge the task again."""
    event = _read_event(project, judgement)
    if superseding_ids(project.store, [event.id]):
        raise AssentError("this judgement was replaced by a later one; send the later one back")
    accounts = workspace_of(request).accounts
    author = next((account for account in accounts.all() if account.id == event.annotator), None)
    if author and author.state not in ("new", "active"):
        raise AssentError(f"the author's account is {author.state}; only new and active accounts can judge again")
    project.queue.assignments.send_back(event.annotator, event.task, remark.strip())
    details = {"person": event.annotator, "answer": event.id, "remark": remark.strip()}
    accounts.audit_log.record(user.id, "send back", details)
    return RedirectResponse(f"/r/{project.name}/judgements/{quote(event.id)}", 303)


@router.get("/r/{run}/judgements.{format}", include_in_schema=False)
def export_judgements(
    project: CurrentProject,
    user: Annotated[User, Depends(RequireRole("review"))],
    filter: FilterQuery,
    format: Literal["csv", "jsonl"],
) -> Response:
    """Export filtered judgements as a table, or as JSON lines with every field. Annotators are pseudonyms."""
    events = [row.feedback for row in reversed(list_judgements(project.store, filter, MAX_EXPORTED))]
    headers = {"content-disposition": f'attachment; filename="judgements.{format}"'}
    if format == "jsonl":
        content = "".join(as_json(event) for event in events).encode()
        return Response(content, media_type="application/x-ndjson", headers=headers)
    return Response(_as_csv(project, events), media_type="text/csv; charset=utf-8", headers=headers)


def as_json(event: Feedback) -> str:
    """Return a judgement as a line of JSON."""
    values = {**vars(event), "judgement": to_values(event.judgement), "kind": name_of(event.judgement)}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _as_csv(project: Project, events: list[Feedback]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judgements.csv"
        result = write_file(list(_tasks_with_judgements(project, events)), path, "csv")
        if result.skipped:
            raise AssentError(
                f"{len(result.skipped)} judgements do not fit into a table, the first because of "
                f"{result.skipped[0].reason}; export JSON lines"
            )
        return path.read_bytes()


def _tasks_with_judgements(project: Project, events: list[Feedback]) -> Iterator[TaskWithJudgements]:
    """Yield each judgement with its task, prompt and responses."""
    judged = read_tasks(project, [event.task for event in events])
    responses = {response.id: response for response in project.store.responses(ids=judged.items)}
    for event in events:
        task = judged.tasks[event.task]
        items = tuple(responses[item] for item in task.items)
        yield TaskWithJudgements(judged.prompt_of(task.id), items, task, (replace(event, supersedes=""),))


def names_by_id(request: Request, user: User) -> dict[str, str]:
    """Return the users' names by pseudonym if this user may know them, else an empty dict."""
    if not user.can("manage"):
        return {}
    return {account.id: account.name for account in workspace_of(request).accounts.all()}


def quote_of(judgement: Judgement) -> str:
    """Return the passage that a critique quotes; empty for other kinds."""
    return judgement.quote if isinstance(judgement, Critique) else ""


def disagree(events: Iterable[Feedback]) -> bool:
    """Return whether any two judgements of one task differ."""
    judgements = [event.judgement for event in events]
    if isinstance(judgements[0], ComparableJudgement):
        comparable = [judgement for judgement in judgements if isinstance(judgement, ComparableJudgement)]
        return not all(first.agrees(second) for first in comparable for second in comparable)
    texts = {judgement.text if isinstance(judgement, WrittenJudgement) else judgement for judgement in judgements}
    return len(texts) > 1
