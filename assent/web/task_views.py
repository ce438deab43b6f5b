"""Tasks and judgements as the labeller's page shows them: ids of the page, names of models redacted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from assent.config import field_docs
from assent.feedback import to_values
from assent.labelling.assignments import Assignment
from assent.labelling.users import User
from assent.records import Feedback, Message, Prompt, Response, show_item, show_message
from assent.registry import name_of, resolve
from assent.segments import ENVIRONMENT, is_behaviour
from assent.web.schemas import FormField, ItemView, MessageView, MyJudgement, TaskView
from assent.web.text import Redactor, instruction_of, render_completion, render_item, render_turn, show_invisible
from assent.web.workspace import Project

DECIDED = "decided"
"""The flag of a judgement by which a reviewer has settled a disagreement."""
FILE_ONLY_FIELDS = ("weight", "margin", "certainty", "extra")
"""Fields that only imported files may set, never a labeller."""
QUOTED_FIELDS = {"correction": "text", "critique": "quote"}
"""For each kind whose judgement repeats text of the item: the field that does."""


def view_tasks(project: Project, user: User, assignments: Sequence[Assignment]) -> list[TaskView]:
    """Return tasks as this labeller sees them, each with its items in the order of its assignment."""
    if not assignments:
        return []
    tasks = [assignment.task for assignment in assignments]
    prompts = {prompt.id: prompt for prompt in project.store.prompts(ids=[task.prompt for task in tasks])}
    item_ids = [item for task in tasks for item in task.items]
    responses = {response.id: response for response in project.store.responses(ids=item_ids)}
    axes = list(project.settings["axes"]) if any(task.kind == "rating" for task in tasks) else []
    names = project.redacted_names
    views = {
        assignment.task.id: _view_task(assignment, prompts[assignment.task.prompt], responses, axes, names)
        for assignment in assignments
    }
    for task_id, remark in project.queue.assignments.review_remarks(user.id, views).items():
        *_, last = project.store.feedback(user.id, task_id)
        (previous,) = view_own_judgements(project, user, [last])
        views[task_id] = views[task_id].model_copy(update={"previous": previous, "remark": remark})
    return list(views.values())


def _view_task(
    assignment: Assignment, prompt: Prompt, responses: Mapping[str, Response], axes: list[str], names: tuple[str, ...]
) -> TaskView:
    kind = assignment.task.kind
    return TaskView(
        task=assignment.alias,
        kind=kind,
        instruction=instruction_of(assignment.task, prompt),
        prompt=[_view_message(message, names) for message in prompt.messages if message.role != ENVIRONMENT],
        items=[_view_item(responses[item], prompt, names) for item in assignment.display_order],
        axes=axes if kind == "rating" else [],
        form=form_fields(kind),
        is_clips=is_behaviour(prompt),
    )


def _view_item(response: Response, prompt: Prompt, names: tuple[str, ...]) -> ItemView:
    if is_behaviour(prompt):
        return ItemView(id=response.id, html=render_item(response, prompt), text="")
    text = _redactor("", response, names).text
    raw = _redactor("correction", response, names).text if response.extra else None
    return ItemView(id=response.id, html=render_completion(text, prompt), text=text, raw=raw)


def _view_message(message: Message, names: tuple[str, ...]) -> MessageView:
    """Return a message of the prompt. Only a model's own turns are redacted: a user's question must stay as it is."""
    text = show_message(message).text
    shown_text = Redactor(text, names).text if message.role == "assistant" else show_invisible(text)
    return MessageView(
        role=message.role, html=render_turn(Message(message.role, shown_text)), text=shown_text
    )  # fmt: skip


def view_own_judgements(project: Project, user: User, events: Iterable[Feedback]) -> list[MyJudgement]:
    """Return judgements as their author's page knows them."""
    events = list(events)
    page_ids = project.queue.assignments.aliases(user.id, [event.task for event in events])
    quoting = [event.task for event in events if name_of(event.judgement) in QUOTED_FIELDS]
    item_ids = {task.id: task.items[0] for task in project.store.tasks(ids=quoting)}
    responses = {response.id: response for response in project.store.responses(ids=item_ids.values())}
    names = project.redacted_names

    def redacted(event: Feedback) -> dict[str, Any]:
        kind = name_of(event.judgement)
        values = {name: value for name, value in to_values(event.judgement).items() if name not in FILE_ONLY_FIELDS}
        if kind not in QUOTED_FIELDS:
            return values
        redactor = _redactor(kind, responses[item_ids[event.task]], names)
        return {**values, QUOTED_FIELDS[kind]: redactor.redact(values[QUOTED_FIELDS[kind]])}

    return [
        MyJudgement(
            id=event.id, task=page_ids.get(event.task, ""), kind=name_of(event.judgement), judgement=redacted(event),
            display_order=list(event.display_order), comment=event.comment, created_at=event.created_at,
            flags=[flag for flag in event.flags if flag != DECIDED],
        )
        for event in events
    ]  # fmt: skip


def restore_names(project: Project, assignment: Assignment, judgement: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a judgement with the model names that were redacted on the page."""
    field = QUOTED_FIELDS.get(assignment.task.kind, "")
    response = next(iter(project.store.responses(ids=assignment.task.items)), None) if field else None
    if response is None or not isinstance(judgement.get(field), str):
        return judgement
    redactor = _redactor(assignment.task.kind, response, project.redacted_names)
    return {**judgement, field: redactor.restore(judgement[field])}


def _redactor(kind: str, response: Response, names: tuple[str, ...]) -> Redactor:
    """Return the redactor of what a kind quotes: a correction the completion, a critique the reasoning too."""
    whole = show_item(response).text
    return Redactor(response.text if kind == "correction" else whole, names, whole)


def form_fields(kind: str) -> list[FormField]:
    """Return the fields of a kind of feedback, so that a page can ask for them without knowing the kind."""
    kind_class = resolve("feedback", kind)
    hints, docs = get_type_hints(kind_class), field_docs(kind_class)
    return [
        FormField(
            name=field.name,
            type=_input_type(hints[field.name]),
            choices=[str(choice) for choice in get_args(hints[field.name])] if _is_choice(hints[field.name]) else [],
            required=field.default is MISSING,
            help=docs.get(field.name, ""),
        )
        for field in fields(kind_class)
        if field.name not in FILE_ONLY_FIELDS
    ]


def _is_choice(hint: Any) -> bool:
    return get_origin(hint) is Literal


def _input_type(hint: Any) -> Literal["text", "number", "flag", "choice"]:
    if _is_choice(hint):
        return "choice"
    if hint is bool:
        return "flag"
    return "number" if hint in (int, float) else "text"
