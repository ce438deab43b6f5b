"""Pages for reviewers: disputed tasks, to decide and to make gold items of, and skipped tasks."""

from itertools import islice
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from assent.feedback import ComparableJudgement, parse
from assent.feedback.comparison import Comparison
from assent.labelling.gold import matches_gold
from assent.labelling.judgements import disputed_judgements
from assent.records import Feedback, Judgement, Task, utc_now
from assent.registry import names, resolve
from assent.web.judgements import Reviewer, disagree, names_by_id, read_tasks
from assent.web.manage import LongText, ShortText
from assent.web.pages import render_page
from assent.web.security import CurrentProject
from assent.web.task_views import DECIDED
from assent.web.text import noun_of, render_item, render_turn, summary_of
from assent.web.workspace import Project

router = APIRouter(tags=["review"])
PAGE_SIZE = 20
"""Tasks on one page."""
MAX_SKIPPED = 200
"""Skipped tasks that are listed."""


class DisputedTask(NamedTuple):
    """A task about which annotators disagree, as the page shows it."""

    task: Task
    noun: str
    prompt: str
    """The last turn of the prompt as HTML."""
    judgements: list[tuple[Feedback, str]]
    """Each judgement with its summary."""
    unused_verdicts: list[tuple[str, str]]
    """(value, label) of verdicts that no annotator gave."""


@router.get("/r/{run}/review", response_class=HTMLResponse, include_in_schema=False)
def review(
    request: Request, project: CurrentProject, user: Reviewer, after: Annotated[int, Query(ge=0, le=10**9)] = 0
) -> HTMLResponse:
    """List tasks about which annotators disagree, the newest first, from number `after` on."""
    disputed = (events for events in disputed_judgements(project.store, DECIDED) if disagree(events))
    groups = list(islice(disputed, after, after + PAGE_SIZE + 1))
    judged = read_tasks(project, [events[0].task for events in groups])
    texts = {
        response.id: render_item(response, judged.prompts[response.prompt])
        for response in project.store.responses(ids=judged.items)
    }
    rows = []
    for events in groups[:PAGE_SIZE]:
        task = judged.tasks[events[0].task]
        prompt = judged.prompt_of(task.id)
        noun, last_turn = noun_of(prompt), render_turn(prompt.messages[-1])
        summaries = [(event, summary_of(event.judgement, task, prompt)) for event in events]
        rows.append(DisputedTask(task, noun, last_turn, summaries, _unused_verdicts(task, noun, events)))
    return render_page(
        request, "review.html.jinja", run=project.name, page="review", rows=rows, texts=texts, after=after,
        page_size=PAGE_SIZE, has_more=len(groups) > PAGE_SIZE, names=names_by_id(request, user),
        gold_kinds=_gold_kinds(),
    )  # fmt: skip


def _gold_kinds() -> list[str]:
    """Return the kinds of feedback of which gold items can be made: those whose judgements can be compared."""
    return [kind for kind in names("feedback") if issubclass(resolve("feedback", kind), ComparableJudgement)]


def _unused_verdicts(task: Task, noun: str, events: list[Feedback]) -> list[tuple[str, str]]:
    """Return (value, label) of the verdicts on a comparison that no annotator gave."""
    if task.kind != "comparison":
        return []
    used = {
        event.judgement.preferred or event.judgement.verdict
        for event in events
        if isinstance(event.judgement, Comparison)
    }
    verdicts = [(item, f"{noun} {number}") for number, item in enumerate(task.items, 1)]
    verdicts += [("tie", "tie")] if noun == "clip" else [("tie", "tie"), ("both bad", "both bad")]
    return [(value, label) for value, label in verdicts if value not in used]


@router.get("/r/{run}/skipped", response_class=HTMLResponse, include_in_schema=False)
def skipped(request: Request, project: CurrentProject, user: Reviewer) -> HTMLResponse:
    """List tasks that labellers skipped and that still need judgements, the most skipped first."""
    skipped_tasks = project.queue.assignments.skipped_tasks()[:MAX_SKIPPED]
    judged = read_tasks(project, [skipped.task_id for skipped in skipped_tasks])
    rows = [
        (skipped, judged.tasks[skipped.task_id], judged.prompt_of(skipped.task_id).text) for skipped in skipped_tasks
    ]
    return render_page(request, "skipped.html.jinja", run=project.name, page="review", rows=rows)


@router.post("/r/{run}/ask-again", include_in_schema=False)
def ask_again(project: CurrentProject, user: Reviewer, task: ShortText) -> Response:
    """Offer a task again to the labellers who skipped it."""
    project.queue.assignments.offer_again(task)
    return RedirectResponse(f"/r/{project.name}/skipped", 303)


@router.post("/r/{run}/decide", include_in_schema=False)
def decide(
    project: CurrentProject, user: Reviewer, task: ShortText, decision: ShortText, explanation: LongText = "",
    use: Annotated[Literal["", "hidden", "practice", "test"], Form()] = "",
) -> Response:  # fmt: skip
    """Decide a disputed task: store a judgement of the reviewer, and make a gold item of it if `use` says so.

    `decision` is the id of the correct judgement, or that of the better item, or `tie`, or `both bad`.
    """
    disputed = next(iter(project.store.tasks(ids=[task])), None)
    if disputed is None:
        raise HTTPException(404, f"no task {task} in this run")
    judgement = _decided_judgement(project, disputed, decision)
    if use:
        matches_gold(judgement, judgement)  # refuse kinds that cannot be gold before anything is stored
    own_ids = [event.id for event in project.store.feedback(user.id, task)]
    assignment = project.queue.assignments.assign(user.id, disputed)
    event = Feedback(
        task, user.id, judgement, utc_now(), display_order=assignment.display_order, comment=explanation,
        supersedes=own_ids[-1] if own_ids else "", flags=(DECIDED,),
    )  # fmt: skip
    project.queue.submit(event)
    if use:
        gold = Task(disputed.kind, disputed.prompt, disputed.items, "gold", disputed.instruction)
        project.queue.gold.add(gold, judgement, use, explanation)
    return RedirectResponse(f"/r/{project.name}/review", 303)


def _decided_judgement(project: Project, task: Task, decision: str) -> Judgement:
    chosen = next(iter(project.store.feedback(ids=[decision])), None)
    if chosen is not None and chosen.task == task.id:
        return chosen.judgement
    if task.kind == "comparison":
        is_verdict = decision in ("tie", "both bad")
        return parse("comparison", {"verdict": decision} if is_verdict else {"preferred": decision})
    raise HTTPException(422, f"no judgement {decision} of task {task.id}")
