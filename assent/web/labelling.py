"""The labelling API: next tasks, judgements, corrections, heartbeats and skips of one labeller."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from assent.errors import AssentError
from assent.feedback import default_question, parse
from assent.functional.sequential import SequentialTest
from assent.labelling.assignments import Assignment
from assent.labelling.gold import GoldResult
from assent.labelling.queue import AlreadyJudged
from assent.labelling.users import User
from assent.records import Feedback, Task, utc_now
from assent.segments import is_behaviour
from assent.web.schemas import (
    CorrectionRequest,
    HeldTasks,
    Id,
    JudgementIn,
    JudgementOut,
    MyJudgement,
    NextTasks,
    TaskView,
)
from assent.web.security import PAUSED, CurrentProject, RequireRole, workspace_of
from assent.web.task_views import DECIDED, FILE_ONLY_FIELDS, restore_names, view_own_judgements, view_tasks
from assent.web.workspace import Project

router = APIRouter(prefix="/r/{run}/api", tags=["label"])
Labeller = Annotated[User, Depends(RequireRole("label"))]
MAX_TASKS = 10
"""Tasks of one request."""
MAX_ASSIGNED = 20
"""Tasks that one labeller holds at once."""


@router.get("/tasks/next")
def next_tasks(
    project: CurrentProject, user: Labeller, count: Annotated[int, Query(ge=1, le=MAX_TASKS)] = 3, hold: str = ""
) -> NextTasks:
    """Assign the next tasks to this labeller. `hold` lists the tasks already on the page, separated by commas."""
    _require_active(user)
    queue = project.queue
    screened = user.state != "new" or not queue.screening.is_configured()
    held = queue.assignments.task_ids(user.id, [name for name in hold.split(",") if name])
    assignments = queue.next_tasks(user.id, count, held, screened, MAX_ASSIGNED)
    is_complete = (
        user.external_id
        and user.state == "active"
        and 0 < int(project.settings["completion"]) <= queue.count_judgements(user.id)
    )
    return NextTasks(
        tasks=view_tasks(project, user, assignments),
        screening=not screened,
        quick_submit=_allows_quick_submit(queue.gold.results(user.id)),
        others_working=not assignments and not held and queue.is_waiting_for_others(user.id),
        completion_code=project.completion_code(user.id) if is_complete else "",
    )


def _require_active(user: User) -> None:
    if user.state == "paused":
        raise HTTPException(403, PAUSED)


def _allows_quick_submit(gold_results: list[bool]) -> bool:
    return len(gold_results) >= 10 and sum(gold_results) >= 0.9 * len(gold_results)


@router.get("/tasks/{task}")
def get_task(project: CurrentProject, user: Labeller, task: Id) -> TaskView:
    """Return a task as it stood on this labeller's page, so that its judgement can be changed."""
    return view_tasks(project, user, [_assignment(project, user, task)])[0]


NOT_ASSIGNED = HTTPException(404, "this task was never assigned to you, or the server has restored an older backup")


def _assignment(project: Project, user: User, page_id: str) -> Assignment:
    """Return an assignment by its id on this labeller's page; raise 404 if there is none."""
    assignment = project.queue.assignments.find(user.id, page_id)
    if assignment is None:
        raise NOT_ASSIGNED
    return assignment


@router.post("/judgements")
def add_judgement(request: Request, project: CurrentProject, user: Labeller, posted: JudgementIn) -> JudgementOut:
    """Store a judgement. Status 200 means that it is on disk."""
    request.app.state.limits.judgements.demand(user.id)
    queue = project.queue
    assignment = queue.assignments.find(user.id, posted.task) or queue.assignments.restore(user.id, posted.task)
    if assignment is None:
        raise NOT_ASSIGNED
    _check_judgement(project, user, assignment, posted)
    event = _as_feedback(project, user, assignment, posted)
    try:
        stored = queue.submit(event)
    except AlreadyJudged as error:
        raise HTTPException(409, {"message": str(error), "existing_id": error.current_id}) from None
    except AssentError as error:
        error.args = (str(error).replace(event.task, posted.task),)  # labellers must not see the stored task's id
        raise
    # A repeated post must not take longer, so its gold item is not checked again.
    gold = queue.gold.check(stored) if stored == event or user.state == "new" else None
    if gold and gold.use == "hidden" and user.role == "labeller":
        _check_gold_accuracy(request, project, user)
    result = JudgementOut(id=stored.id, task=posted.task, created_at=stored.created_at)
    return result if user.state != "new" else _after_screening_item(request, project, user, gold, result)


def _check_judgement(project: Project, user: User, assignment: Assignment, posted: JudgementIn) -> None:
    """Raise 422 for fields and flags that this user may not set, and for unknown rating axes."""
    for name in FILE_ONLY_FIELDS:
        if name in posted.judgement:
            raise HTTPException(422, f"'{name}' cannot be set by a labeller: leave it out")
    if DECIDED in posted.flags and not user.can("review"):
        raise HTTPException(422, f"the flag '{DECIDED}' is for reviewers: leave it out")
    axes = posted.judgement.get("axes")
    if assignment.task.kind != "rating" or not isinstance(axes, list):
        return
    known = list(project.settings["axes"])
    for axis in axes:
        if not (isinstance(axis, list) and axis and axis[0] in known):
            raise HTTPException(422, f"the axes are {', '.join(known)}: reload the page")


def _as_feedback(project: Project, user: User, assignment: Assignment, posted: JudgementIn) -> Feedback:
    return Feedback(
        task=assignment.task.id,
        annotator=user.id,
        judgement=parse(assignment.task.kind, restore_names(project, assignment, posted.judgement)),
        created_at=utc_now(),
        duration=posted.duration,
        display_order=tuple(posted.display_order),
        comment=posted.comment,
        supersedes=posted.supersedes,
        id=posted.id,
        flags=tuple(posted.flags),
    )


def _after_screening_item(
    request: Request, project: Project, user: User, gold: GoldResult | None, result: JudgementOut
) -> JudgementOut:
    """Update the state of a new labeller, and add the result of a practice item."""
    if not project.queue.screening.is_configured():  # an active labeller is not tested later
        workspace_of(request).accounts.change("server", user.id, "no screening in this project", state="active")
        return result
    if gold is None:
        return result
    if gold.use == "practice":
        result = result.model_copy(update={"correct": gold.is_correct, "explanation": gold.explanation})
    _update_screening(request, project, user)
    return result


def _check_gold_accuracy(request: Request, project: Project, user: User) -> None:
    """Pause a labeller whose hidden gold items are too often wrong for a good annotator; delete nothing."""
    accounts = workspace_of(request).accounts
    standing = SequentialTest()(project.queue.gold.results(user.id, accounts.audit_log.activated_at(user.id)))
    if standing.status == "failed":
        reason = f"{standing.correct} of {standing.total} gold items right"
        accounts.change("gold", user.id, reason, state="paused")


def _update_screening(request: Request, project: Project, user: User) -> None:
    """Activate a labeller who has passed screening; pause one who has failed, whom a manager may activate."""
    outcome = project.queue.screening.result(user.id)
    if outcome.state != "in progress":
        state = "active" if outcome.state == "passed" else "paused"
        reason = f"{outcome.num_correct} of {outcome.num_tested} test items right"
        workspace_of(request).accounts.change("screening", user.id, reason, state=state)


@router.post("/corrections")
def add_correction(project: CurrentProject, user: Labeller, posted: CorrectionRequest) -> TaskView:
    """Assign this labeller, and nobody else, a task to correct an item on their page."""
    _require_active(user)
    assignment = _assignment(project, user, posted.task)
    if posted.item not in assignment.display_order:
        raise HTTPException(404, f"no item {posted.item} in this task")
    (prompt,) = project.store.prompts(ids=[assignment.task.prompt])
    if is_behaviour(prompt):
        raise HTTPException(422, "a clip cannot be corrected: say in a comment what is wrong")
    task = Task(
        "correction", assignment.task.prompt, (posted.item,), assignment.task.purpose, default_question("correction")
    )  # fmt: skip
    return view_tasks(project, user, [project.queue.assignments.assign(user.id, task)])[0]


@router.post("/heartbeat", status_code=204)
def heartbeat(project: CurrentProject, user: Labeller, held: HeldTasks) -> None:
    """Renew the assignments that are still on the page."""
    project.queue.assignments.renew(user.id, project.queue.assignments.task_ids(user.id, held.tasks))


@router.post("/skip", status_code=204)
def skip(request: Request, project: CurrentProject, user: Labeller, held: HeldTasks) -> None:
    """Skip tasks, so that other labellers get them."""
    for task_id in project.queue.assignments.task_ids(user.id, held.tasks):
        project.queue.assignments.skip(user.id, task_id)
    if user.state == "new" and project.queue.screening.is_configured():
        _update_screening(request, project, user)


@router.post("/unskip", status_code=204)
def unskip(project: CurrentProject, user: Labeller, held: HeldTasks) -> None:
    """Take back tasks that this labeller skipped."""
    for task_id in project.queue.assignments.task_ids(user.id, held.tasks):
        project.queue.assignments.unskip(user.id, task_id)


@router.get("/judgements/mine")
def my_judgements(
    project: CurrentProject, user: Labeller, count: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[MyJudgement]:
    """Return this user's last judgements, the newest first. The page uses it to undo, and to reconcile its outbox."""
    return view_own_judgements(project, user, project.queue.latest_feedback(user.id, count))
