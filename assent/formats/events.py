"""Our own events: a store, whole; the only format that loses nothing."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, cast, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import body, parse
from assent.formats import Format, Row, demand_whole, get, number, text, tools
from assent.records import Feedback, Message, Prompt, Purpose, Response, Task
from assent.registry import name_of

LATER = ("flags", "tools", "extra", "token_ids", "tokenizer")
"""Fields that were added later: left out where they are empty, so that a record looks as it did before."""
Event = Prompt | Response | Task | Feedback


@dataclass(frozen=True)
class Events(Format):
    """Four kinds of record, each under the id that its content has."""

    holds: ClassVar[tuple[type, ...]] = (Prompt, Response, Task, Feedback)
    whole: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset(
        (
            "record",
            "id",
            "kind",
            *(each.name for record in (Prompt, Response, Task, Feedback) for each in fields(record)),
        )
    )

    def fits(self, row: Row) -> int:
        return 9 * ("record" in row)

    def turn(self, row: Row) -> int:
        kinds = list(RECORDS)
        return kinds.index(row["record"]) if row.get("record") in kinds else len(kinds)

    def decode(self, row: Row, source: str) -> Iterable[Event]:
        kind = str(row.get("record"))
        if kind not in RECORDS:
            raise AssentError(f"no record '{kind}'{did_you_mean(kind, RECORDS)}")
        event = RECORDS[kind](row)
        if event.id != text(row, "id"):
            raise AssentError(f"its content has id {event.id}, not {row['id']}: it was changed by hand")
        return (event,)

    def encode(self, thing: Event) -> Iterable[Row]:
        values = asdict(thing)
        if isinstance(thing, Feedback):
            values |= {"kind": name_of(thing.judgement), "answer": body(thing.judgement)}
        if isinstance(thing, Prompt):
            values["messages"] = [message.to_dict() for message in thing.messages]
        for name in LATER:
            if not values.get(name, True):
                del values[name]
        return ({"record": type(thing).__name__.lower(), "id": thing.id, **values},)


def _prompt(row: Row) -> Prompt:
    turns = get(row, "messages")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise AssentError("'messages' holds no messages")
    demand_whole(turns, "messages")
    for turn in turns:
        text(turn, "role"), text(turn, "content")
    return Prompt(tuple(map(Message.from_dict, turns)), text(row, "mode"), text(row, "source"), tools(row))


def _response(row: Row) -> Response:
    finished = get(row, "finished")
    if not isinstance(finished, bool):
        raise AssentError(f"'finished' is {finished!r}, not true or false")
    extra, drawn = row.get("extra", {}), row.get("token_ids", [])
    if not isinstance(extra, dict):
        raise AssentError(f"'extra' is {type(extra).__name__}, not an object")
    if not isinstance(drawn, list) or not all(type(each) is int and each >= 0 for each in drawn):
        raise AssentError("'token_ids' is no list of whole numbers from 0")
    demand_whole(extra, "extra")
    told = text(row, "prompt"), text(row, "text"), text(row, "policy"), finished, text(row, "sampling")
    return Response(*told, extra, tuple(drawn), text(row, "tokenizer") if "tokenizer" in row else "")


def _query(row: Row) -> Task:
    purpose = text(row, "purpose")
    if purpose not in get_args(Purpose):
        raise AssentError(f"no purpose '{purpose}'{did_you_mean(purpose, get_args(Purpose))}")
    told = text(row, "kind"), text(row, "prompt"), _names(row, "items")
    return Task(*told, cast(Purpose, purpose), text(row, "instruction"))


def _feedback(row: Row) -> Feedback:
    demand_whole(get(row, "answer"), "answer")
    answer, seconds = parse(text(row, "kind"), row["answer"]), number(row, "seconds", 0.0)
    who, at, shown = text(row, "annotator"), text(row, "at"), _names(row, "shown")
    told = text(row, "note"), text(row, "supersedes"), text(row, "id")
    flags = _names(row, "flags") if "flags" in row else ()
    return Feedback(text(row, "query"), who, answer, at, seconds, shown, *told, flags)


def _names(row: Row, key: str) -> tuple[str, ...]:
    names = get(row, key)
    if not isinstance(names, list):
        raise AssentError(f"'{key}' is {type(names).__name__}, not a list of ids")
    return tuple(text({key: name}, key) for name in names)


RECORDS: dict[str, Callable[[Row], Event]] = {
    "prompt": _prompt,
    "response": _response,
    "query": _query,
    "feedback": _feedback,
}
"""In the order in which one refers to another."""
