"""Records as rows of the tables, and back."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from assent.feedback import parse, to_values
from assent.records import Feedback, Message, Prompt, Response, Task, implied_source
from assent.registry import name_of

Row = dict[str, Any]

IN_DIGEST = (
    "id",
    "task",
    "annotator",
    "kind",
    "judgement",
    "created_at",
    "duration",
    "display_order",
    "comment",
    "supersedes",
)
"""Columns of `feedback` in the order in which every digest holds them."""


def prompt_to_row(prompt: Prompt) -> Row:
    """Return a row of `prompts`."""
    return {
        "id": prompt.id,
        "messages": [message.to_dict() for message in prompt.messages],
        "category": prompt.category,
        "source": prompt.source,
        "tools": list(prompt.tools) or None,
        "meta": dict(prompt.meta) or None,
    }


def row_to_prompt(row: sa.Row[Any]) -> Prompt:
    """Return the prompt of a row."""
    messages = tuple(map(Message.from_dict, row.messages))
    return Prompt(messages, row.category, row.source, tuple(row.tools or ()), row.meta or {})


def response_to_row(response: Response) -> Row:
    """Return a row of `responses`."""
    optional = {"extra": dict(response.extra) or None, "token_ids": list(response.token_ids) or None}
    return {"id": response.id, **asdict(response), **optional}


def row_to_response(row: sa.Row[Any]) -> Response:
    """Return the response of a row."""
    return Response(
        row.prompt,
        row.text,
        row.policy,
        row.finished,
        row.sampling,
        row.extra or {},
        tuple(row.token_ids or ()),
        row.tokenizer,
    )


def task_to_row(task: Task) -> Row:
    """Return a row of `tasks`."""
    return {"id": task.id, **asdict(task), "items": list(task.items)}


def row_to_task(row: Any) -> Task:
    """Return the task of a row, or of a row's values."""
    values = row if isinstance(row, dict) else row._asdict()
    items = tuple(values["items"])
    return Task(values["kind"], values["prompt"], items, values["purpose"], values["instruction"])


def feedback_to_row(feedback: Feedback) -> Row:
    """Return a row of `feedback`, without its digest."""
    return {
        "id": feedback.id,
        "task": feedback.task,
        "annotator": feedback.annotator,
        "kind": name_of(feedback.judgement),
        "judgement": to_values(feedback.judgement),
        "created_at": feedback.created_at,
        "duration": float(feedback.duration),
        "display_order": list(feedback.display_order),
        "comment": feedback.comment,
        "supersedes": feedback.supersedes,
        "flags": list(feedback.flags) or None,
        "source": feedback.source,
    }


def row_to_feedback(row: sa.Row[Any]) -> Feedback:
    """Return the event of a row."""
    return Feedback(
        row.task,
        row.annotator,
        parse(row.kind, row.judgement),
        row.created_at,
        row.duration,
        tuple(row.display_order),
        row.comment,
        row.supersedes,
        row.id,
        tuple(row.flags or ()),
        row.source,
    )


def chain_digest(before: str, row: Row) -> str:
    """Return the SHA-256 of the digest before a row of `feedback` and of the row."""
    values = [before, *(row[name] for name in IN_DIGEST)]
    # Flags came with version 0003 and the source with 0007. A row without flags, and with the source that its
    # annotator's prefix implies, keeps the digest of older versions; any other source enters, so an edit is detected.
    if row["flags"]:
        values.append(row["flags"])
    if row["source"] != implied_source(row["annotator"]):
        values.append({"source": row["source"]})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
