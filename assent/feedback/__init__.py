"""Kinds of judgement, one file each: judgements name items by id, never by their place on the screen."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from assent.errors import AssentError, did_you_mean
from assent.records import Judgement, Task
from assent.registry import name_of, resolve

MAX_DEPTH = 20
"""Lists within lists in a judgement from outside."""
MAX_NUMBER = 1e30
"""Larger numbers may overflow float32."""


@runtime_checkable
class WrittenJudgement(Protocol):
    """A judgement that holds a text: a correction, a critique or a demonstration."""

    text: str


@runtime_checkable
class ComparableJudgement(Protocol):
    """A judgement that another of its kind may agree with: a comparison, a ranking, a rating or an approval."""

    def agrees(self, judgement: Any) -> bool:
        """Return whether another judgement of the same items counts as the same."""
        ...


def to_values(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON-able values; `parse` turns them back."""
    values = cast(dict[str, Any], _thaw(asdict(cast(Any, judgement))))
    if not values.get("extra", True):
        del values["extra"]  # a judgement without any looks as it did before the field existed
    return values


def parse(kind: str, values: Mapping[str, Any]) -> Judgement:
    """Build a judgement from JSON values that are not trusted.

    Raises:
        AssentError: an unknown kind or field, a missing field, or a value that the kind refuses.
    """
    shape = _shape(kind)
    if not isinstance(values, Mapping):
        raise AssentError(f"a {kind} is an object with {', '.join(shape.fields)}, not {type(values).__name__}")
    for name in values:
        if name not in shape.fields:
            raise AssentError(f"a {kind} has no '{name}'{did_you_mean(name, shape.fields)}")
    for name in shape.required:
        if name not in values:
            raise AssentError(f"a {kind} needs '{name}'")
    return cast(Judgement, shape.type(**{name: _freeze(value) for name, value in values.items()}))


def check(judgement: Judgement, task: Task) -> Judgement:
    """Return a judgement if its task asked for such a one.

    Raises:
        AssentError: another kind, a wrong number of items in the task, or an item that the task did not show.
    """
    kind = name_of(judgement)
    if kind != task.kind:
        raise AssentError(f"task {task.id} asks for a {task.kind}, not for a {kind}")
    if len(task.items) not in judgement.num_items or len(set(task.items)) < len(task.items):
        raise AssentError(f"task {task.id} shows {len(task.items)} items, which no {kind} can judge")
    for item in judgement.items:
        if item not in task.items:
            raise AssentError(f"task {task.id} did not show item '{item}'")
    return judgement


def describe(judgement: Judgement, task: Task) -> str:
    """Return a judgement in words; responses are named by their position in the task."""
    values = to_values(judgement)
    labels = {item: f"response {number}" for number, item in enumerate(task.items, 1)}
    if values.get("preferred"):
        return f"{labels[values['preferred']]}, strength {values['strength']}"
    if "tiers" in values:
        return " > ".join(" = ".join(labels[item] for item in tier) for tier in values["tiers"])
    if "axes" in values:
        return ", ".join(f"{axis} {value:g}" for axis, value in values["axes"])
    if "approved" in values:
        return "approved" if values["approved"] else "disapproved"
    return str(values.get("verdict") or values.get("text") or values)


def default_question(kind: str) -> str:
    """Return the question of a kind's tasks that carry no instruction of their own."""
    return cast(Judgement, resolve("feedback", kind)).question


def require_number(name: str, value: object, low: float = 0.0, high: float = MAX_NUMBER) -> None:
    """Check a field of a judgement.

    Raises:
        AssentError: it is not a finite number from `low` to `high`.
    """
    if type(value) not in (int, float) or not low <= cast(float, value) <= high:
        if high < MAX_NUMBER:
            limits = f" from {low:g} to {high:g}"
        else:
            limits = f" of at least {low:g}" if low > -MAX_NUMBER else ""
        raise AssentError(f"'{name}' is a number{limits}, not {str(value)[:40]}")


class _Shape(NamedTuple):
    type: Any
    fields: tuple[str, ...]
    required: tuple[str, ...]


@cache
def _shape(kind: str) -> _Shape:
    judgement_type = resolve("feedback", kind)
    all_fields = fields(judgement_type)
    required = tuple(field.name for field in all_fields if field.default is MISSING)
    return _Shape(judgement_type, tuple(field.name for field in all_fields), required)


def _freeze(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise AssentError(f"a judgement is at most {MAX_DEPTH} lists deep")
    if isinstance(value, list | tuple):
        return tuple(_freeze(part, depth + 1) for part in value)
    if isinstance(value, Mapping):
        return tuple((key, _freeze(part, depth + 1)) for key, part in value.items())
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_thaw(part) for part in value]
    return {key: _thaw(part) for key, part in value.items()} if isinstance(value, dict) else value
