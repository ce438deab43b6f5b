"""What a person can say, one file a kind: answers name items by id, never by the side of the screen."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from typing import Any, cast

from assent.errors import AssentError, did_you_mean
from assent.records import Judgement, Task
from assent.registry import name_of, resolve

DEEP = 20
LARGE = 1e30
"""Beyond it float32 may end."""


def body(answer: Judgement) -> dict[str, Any]:
    """An answer as JSON-able values; `parse` turns them back."""
    values = cast(dict[str, Any], _thaw(asdict(cast(Any, answer))))
    if not values.get("extra", True):
        del values["extra"]  # an answer without any is written as before there were such
    return values


def parse(kind: str, values: Mapping[str, Any]) -> Judgement:
    """Make an answer of JSON values from a stranger.

    Raises:
        AssentError: an unknown kind or field, a missing field, or a value that the kind refuses.
    """
    made, known, needed = _shape(kind)
    if not isinstance(values, Mapping):
        raise AssentError(f"a {kind} is an object with {', '.join(known)}, not {type(values).__name__}")
    for name in values:
        if name not in known:
            raise AssentError(f"a {kind} has no '{name}'{did_you_mean(name, known)}")
    for name in needed:
        if name not in values:
            raise AssentError(f"a {kind} needs '{name}'")
    return cast(Judgement, made(**{name: _freeze(value) for name, value in values.items()}))


def check(answer: Judgement, query: Task) -> Judgement:
    """Return the answer if the query asked for such a one.

    Raises:
        AssentError: another kind, a wrong number of items in the query, or an item that the query did not show.
    """
    kind = name_of(answer)
    if kind != query.kind:
        raise AssentError(f"query {query.id} asks for a {query.kind}, not for a {kind}")
    if len(query.items) not in answer.num_items or len(set(query.items)) < len(query.items):
        raise AssentError(f"query {query.id} shows {len(query.items)} items, which no {kind} can answer")
    for item in answer.items:
        if item not in query.items:
            raise AssentError(f"query {query.id} did not show item '{item}'")
    return answer


def asks(kind: str) -> str:
    """What people are asked if nobody says it otherwise: the kind's own `asks`; empty if it has none."""
    return str(getattr(resolve("feedback", kind), "asks", ""))


def demand_number(name: str, value: object, low: float = 0.0, high: float = LARGE) -> None:
    """Refuse a field of an answer that is no finite number from `low` to `high`."""
    if type(value) not in (int, float) or not low <= cast(float, value) <= high:
        limits = f" from {low:g} to {high:g}" if high < LARGE else f" of at least {low:g}" if low > -LARGE else ""
        raise AssentError(f"'{name}' is a number{limits}, not {str(value)[:40]}")


@cache
def _shape(kind: str) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    made = resolve("feedback", kind)
    given = fields(made)
    return made, tuple(field.name for field in given), tuple(field.name for field in given if field.default is MISSING)


def _freeze(value: Any, depth: int = 0) -> Any:
    if depth > DEEP:
        raise AssentError(f"an answer is at most {DEEP} lists deep")
    if isinstance(value, list | tuple):
        return tuple(_freeze(part, depth + 1) for part in value)
    if isinstance(value, Mapping):
        return tuple((key, _freeze(part, depth + 1)) for key, part in value.items())
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_thaw(part) for part in value]
    return {key: _thaw(part) for key, part in value.items()} if isinstance(value, dict) else value
