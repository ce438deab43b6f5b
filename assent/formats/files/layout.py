"""The layout of a task in other labelling tools: a prompt and responses under names of all kinds, in one order."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple, get_args

from assent.errors import AssentError, did_you_mean
from assent.formats import Row, TaskWithJudgements
from assent.formats.files.fields import (
    chat_prompt,
    read_messages,
    read_text,
    require_reply_text,
    text_prompt,
    visible_lines,
)
from assent.records import Completion, Feedback, Prompt, Purpose, Response, Task
from assent.registry import resolve

PROMPT_FIELDS = ("prompt", "question", "instruction", "query", "input", "document", "chat", "conversation")
"""Fields that hold the prompt; the first one present does."""
RESPONSE_FIELDS = ("response", "answer", "completion", "output", "generation", "reply", "summary", "text", "")
"""Fields that hold a response, alone or numbered: `response`, `answer1`, `reply-2`, `text_a`, `b`."""
OLD_VERSION = "exported by version 0.1: export it again with this version"
"""Why a row of a file of that version is refused: today's names would miss its annotator, time and order."""
NUMBERED_FIELD = re.compile(r"(?P<stem>.*?)[-_ ]?(?P<number>\d+)|(?:(?P<before>.*)[-_ ])?(?P<letter>[a-z]|left|right)")


@dataclass(frozen=True)
class TaskLayout:
    """A task as its annotator saw it."""

    prompt: Prompt
    items: tuple[Response, ...] = ()
    """In the order of the file."""
    item_names: tuple[str, ...] = ()
    """The names of the items in the file."""
    task_order: tuple[int, ...] | None = None
    """The order of the items in the task. None: sorted by id, for the file's order may reveal the better one."""
    display_order: tuple[int, ...] = ()
    """The order of the items on the screen; empty: unknown."""
    purpose: Purpose = "train"
    instruction: str = ""

    def to_task(self, kind: str) -> Task:
        """Return the task of this layout."""
        ids = [item.id for item in self.items]
        if len(set(ids)) < len(ids):
            raise AssentError("identical replies")
        items = sorted(ids) if self.task_order is None else [ids[index] for index in self.task_order]
        return Task(kind, self.prompt.id, tuple(items), self.purpose, self.instruction)

    def to_open_task(self, kind: str) -> TaskWithJudgements:
        """Return the task without feedback."""
        if len(self.items) not in resolve("feedback", kind).num_items:
            raise AssentError(f"a {kind} of {len(self.items)} responses")
        return TaskWithJudgements(self.prompt, self.items, self.to_task(kind))

    def index_of(self, name: str) -> int:
        """Return the index of the item with this name, or with this number or letter at the end of its name."""
        if name in self.item_names:
            return self.item_names.index(name)
        wanted = _normalise_name(name)
        indices = [index for index, item in enumerate(self.item_names) if wanted and _is_called(item, wanted)]
        if len(indices) != 1:
            raise AssentError(f"no response '{name}' among {', '.join(self.item_names) or 'none'}")
        return indices[0]


def _is_called(item_name: str, wanted: str) -> bool:
    if _normalise_name(item_name) == wanted:
        return True
    match = NUMBERED_FIELD.fullmatch(item_name.lower())
    return match is not None and wanted in (match["number"], match["letter"])


def _normalise_name(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


# From a file


class Reply(NamedTuple):
    """A reply in a file, and who wrote it."""

    completion: Completion
    policy: str
    sampling: str = ""


def lay_out(
    prompt: Prompt, replies: Mapping[str, Reply], instruction: str = "", purpose: Purpose = "train"
) -> TaskLayout:
    """Return the layout of replies by their names in the file, whose order on the screen is not known."""
    items: list[Response] = []
    for name, reply in replies.items():
        if not reply.completion.extra:
            require_reply_text(reply.completion.text, name)
        items.append(Response.of(prompt.id, reply.completion, reply.policy, reply.sampling))
    return TaskLayout(prompt, tuple(items), tuple(replies), purpose=purpose, instruction=instruction)


def rank_replies(ranked: Iterable[tuple[float, Reply]]) -> tuple[dict[str, Reply], tuple[tuple[int, ...], ...]]:
    """Return replies by name and their tiers, the lowest rank first; equal replies count once, with the lowest."""
    distinct: dict[tuple[str, ...], tuple[float, Reply]] = {}
    for rank, reply in sorted(ranked, key=lambda entry: entry[0]):
        distinct.setdefault(visible_lines(reply.completion.text), (rank, reply))
    ranks = [rank for rank, _ in distinct.values()]
    replies = {f"reply {number}": reply for number, (_, reply) in enumerate(distinct.values(), 1)}
    return replies, tuple(tuple(i for i, r in enumerate(ranks) if r == rank) for rank in dict.fromkeys(ranks))


def parse_task(fields: Row, extra: Row, source: str, completions: Mapping[str, Completion] | None = None) -> TaskLayout:
    """Return the layout that named fields describe.

    Args:
        extra: the output of `extras`; empty in files of other tools.
        completions: names and contents of the items, where the fields hold them as a list.
    """
    if "shown" in extra:
        raise AssentError(OLD_VERSION)
    key = next((name for name in PROMPT_FIELDS if fields.get(name)), "prompt")
    prompt = replace(_parse_prompt(fields, key, extra), source=source)
    if completions is None:
        texts = response_fields({name: value for name, value in fields.items() if name != key})
        completions = {name: Completion(text) for name, text in texts.items()}
    items = _parse_items(prompt, completions, read_indices(extra, "truncated", len(completions)), f"imported:{source}")
    is_displayed = extra.get("is_display_order", len(items) > 1)
    purpose = extra.get("purpose", "train")
    if purpose not in get_args(Purpose):
        raise AssentError(f"no purpose '{purpose}'{did_you_mean(str(purpose), get_args(Purpose))}")
    task_order = read_indices(extra, "task_order", len(items)) if "task_order" in extra else None
    if task_order is not None and sorted(task_order) != list(range(len(items))):
        raise AssentError(f"'task_order' is {list(task_order)}, which does not name each of {len(items)} items once")
    return TaskLayout(
        prompt,
        items,
        tuple(completions),
        task_order,
        tuple(range(len(items))) if is_displayed else (),
        purpose,
        read_text(extra, "instruction") if "instruction" in extra else "",
    )


def _parse_prompt(fields: Row, key: str, extra: Row) -> Prompt:
    if fields.get("messages"):
        return chat_prompt(extra, read_messages(fields, "messages"))
    if isinstance(fields.get(key), list):
        return chat_prompt(extra, read_messages(fields, key))
    if key in fields:
        return text_prompt(extra, read_text(fields, key))
    raise AssentError(f"no prompt among {', '.join(fields) or 'no fields'}: name one of them 'prompt'")


def _parse_items(
    prompt: Prompt, completions: Mapping[str, Completion], truncated: tuple[int, ...], policy: str
) -> tuple[Response, ...]:
    items: list[Response] = []
    for index, (name, completion) in enumerate(completions.items()):
        text = completion.text if completion.extra else require_reply_text(completion.text, name)
        items.append(Response(prompt.id, text, policy, index not in truncated, extra=completion.extra))
    return tuple(items)


def unused_fields(fields: Row, completions: Mapping[str, Completion] | None = None) -> Row:
    """Return the fields that `parse_task` does not read."""
    key = next((name for name in PROMPT_FIELDS if fields.get(name)), "prompt")
    others = {name: value for name, value in fields.items() if name not in ("messages", key)}
    try:
        used = response_fields(others) if completions is None else {}
    except AssentError:
        return {}  # the row is skipped
    return {name: value for name, value in others.items() if name not in used}


def default_kind(layout: TaskLayout) -> str:
    """Return the kind of a task by its number of items, where the file names none."""
    return ("demonstration", "rating", "comparison", "ranking")[min(len(layout.items), 3)]


def read_indices(row: Row, key: str, count: int) -> tuple[int, ...]:
    """Return a list of indices of items."""
    indices = row.get(key, [])
    if not isinstance(indices, list) or not all(type(index) is int and 0 <= index < count for index in indices):
        raise AssentError(f"'{key}' is {indices!r}, not indices of {count} items")
    return tuple(indices)


def response_fields(fields: Row, only_known: bool = False) -> dict[str, str]:
    """Return the fields that hold responses: a numbered set of them, or one with a known name.

    Args:
        only_known: a numbered set needs a known name too.
    """
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    sets: dict[str, dict[str, str]] = {}
    for name in texts:
        if match := NUMBERED_FIELD.fullmatch(name.lower()):
            stem = match["stem"] or match["before"] or ""
            sets.setdefault(stem, {})[match["number"] or match["letter"]] = name
    complete = {stem: names for stem, names in sets.items() if _is_complete(list(names))}
    stems = [stem for stem in RESPONSE_FIELDS if stem in complete] or ([] if only_known else list(complete))
    if len(stems) > 1 and stems[0] not in RESPONSE_FIELDS:
        names = ", ".join(chain.from_iterable(complete[stem].values() for stem in stems))
        raise AssentError(f"the responses could be any of {names}")
    if stems:
        by_number = complete[stems[0]]
        return {by_number[number]: texts[by_number[number]] for number in sorted(by_number, key=_number_key)}
    return next(({name: texts[name]} for name in RESPONSE_FIELDS if name in texts), {})


def _number_key(number: str) -> tuple[int, str]:
    return len(number), number


def _is_complete(numbers: list[str]) -> bool:
    """Return whether these are 1 .. n, 0 .. n, a .. z or left and right, two or more."""
    ordered = sorted(numbers, key=_number_key)
    sequences: list[list[str]] = [["left", "right"]]
    sequences += [[str(index + first) for index in range(len(ordered))] for first in (0, 1)]
    sequences += [[chr(ord("a") + index) for index in range(min(len(ordered), 26))]]
    return len(ordered) > 1 and ordered in sequences


# To a file


def prompt_fields(layout: TaskLayout) -> dict[str, Any]:
    """Return the prompt as text to show, and as messages if it is a conversation."""
    prompt = layout.prompt
    if prompt.is_plain:
        return {"prompt": prompt.text}
    is_single = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    transcript = "\n\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
    messages = [message.to_dict() for message in prompt.messages]
    return {"prompt": prompt.text if is_single else transcript, "messages": messages}


def extras(layout: TaskLayout, kind: str) -> dict[str, Any]:
    """Return what other tools do not read but pass on; `parse_task` reads it.

    It is visible to labellers, so the prompt's meta is not in it.
    """
    extra: dict[str, Any] = {"kind": kind, "is_display_order": bool(layout.display_order)}
    if len(layout.items) > 1 and layout.task_order is not None:
        extra["task_order"] = list(layout.task_order)
    if truncated := [index for index, item in enumerate(layout.items) if not item.finished]:
        extra["truncated"] = truncated
    if layout.prompt.tools:
        extra["tools"] = list(layout.prompt.tools)
    if layout.prompt.category:
        extra["category"] = layout.prompt.category
    if layout.instruction:
        extra["instruction"] = layout.instruction
    if layout.purpose != "train":
        extra["purpose"] = layout.purpose
    return extra


def split_by_order(record: TaskWithJudgements, names: Iterable[str]) -> Iterator[tuple[TaskLayout, list[Feedback]]]:
    """Yield a layout for each display order of a task, with the feedback of the annotators who saw that order."""
    items = {item.id: item for item in record.items}
    events_by_order: dict[tuple[str, ...], list[Feedback]] = {}
    for event in record.feedback:
        events_by_order.setdefault(event.display_order, []).append(event)
    for display_order, events in events_by_order.items() or [((), [])]:
        ids = list(display_order or record.task.items)
        if sorted(ids) != sorted(record.task.items):
            raise AssentError("the display order names other items than the task")
        layout = TaskLayout(
            record.prompt,
            tuple(items[item] for item in ids),
            tuple(name for name, _ in zip(names, ids, strict=False)),
            tuple(ids.index(item) for item in record.task.items),
            tuple(range(len(ids))) if display_order else (),
            record.task.purpose,
            record.task.instruction,
        )
        yield layout, events
