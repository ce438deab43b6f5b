"""The events of a store: the only format that copies it with all ids."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, cast, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import parse, to_values
from assent.formats import Format, Row
from assent.formats.files.fields import read_number, read_text, read_tools, require, require_no_surrogates
from assent.records import Feedback, Message, Prompt, Purpose, Response, Source, Task, implied_source
from assent.registry import name_of

OPTIONAL = ("flags", "tools", "meta", "extra", "token_ids", "tokenizer")
"""Fields that are left out where they are empty."""
Event = Prompt | Response | Task | Feedback
EVENTS = (Prompt, Response, Task, Feedback)
"""In the order in which one refers to another."""


@dataclass(frozen=True)
class Events(Format):
    """Four kinds of record, each under the id of its content."""

    record_types: ClassVar[tuple[type, ...]] = EVENTS
    lossless: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = frozenset(
        ("record", "id", "kind", *(field.name for event in EVENTS for field in fields(event)))
    )

    def match_score(self, row: Row) -> int:
        return 9 * ("record" in row)

    def pass_number(self, row: Row) -> int:
        kinds = list(READERS)
        return kinds.index(row["record"]) if row.get("record") in kinds else len(kinds)

    def decode(self, row: Row, source: str) -> Iterable[Event]:
        kind = str(row.get("record"))
        if kind not in READERS:
            raise AssentError(f"no record '{kind}'{did_you_mean(kind, READERS)}")
        event = READERS[kind](row)
        if event.id != read_text(row, "id"):
            raise AssentError(f"its content has id {event.id}, not {row['id']}: it was edited by hand")
        return (event,)

    def encode(self, record: Event) -> Iterable[Row]:
        values = asdict(record)
        if isinstance(record, Feedback):
            values |= {"kind": name_of(record.judgement), "judgement": to_values(record.judgement)}
        if isinstance(record, Prompt):
            values["messages"] = [message.to_dict() for message in record.messages]
        for name in OPTIONAL:
            if not values.get(name, True):
                del values[name]
        return ({"record": type(record).__name__.lower(), "id": record.id, **values},)


def _read_prompt(row: Row) -> Prompt:
    messages = require(row, "messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise AssentError("'messages' holds no messages")
    require_no_surrogates(messages, "messages")
    for message in messages:
        read_text(message, "role")
        read_text(message, "content")
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        raise AssentError(f"'meta' is {type(meta).__name__}, not an object")
    require_no_surrogates(meta, "meta")
    return Prompt(
        tuple(map(Message.from_dict, messages)),
        read_text(row, "category"),
        read_text(row, "source"),
        read_tools(row),
        meta,
    )


def _read_response(row: Row) -> Response:
    finished = require(row, "finished")
    if not isinstance(finished, bool):
        raise AssentError(f"'finished' is {finished!r}, not true or false")
    extra = row.get("extra", {})
    if not isinstance(extra, dict):
        raise AssentError(f"'extra' is {type(extra).__name__}, not an object")
    require_no_surrogates(extra, "extra")
    token_ids = row.get("token_ids", [])
    if not isinstance(token_ids, list) or not all(type(token) is int and token >= 0 for token in token_ids):
        raise AssentError("'token_ids' is not a list of integers from 0")
    return Response(
        read_text(row, "prompt"),
        read_text(row, "text"),
        read_text(row, "policy"),
        finished,
        read_text(row, "sampling"),
        extra,
        tuple(token_ids),
        read_text(row, "tokenizer") if "tokenizer" in row else "",
    )


def _read_task(row: Row) -> Task:
    purpose = read_text(row, "purpose")
    if purpose not in get_args(Purpose):
        raise AssentError(f"no purpose '{purpose}'{did_you_mean(purpose, get_args(Purpose))}")
    return Task(
        read_text(row, "kind"),
        read_text(row, "prompt"),
        _read_texts(row, "items"),
        cast(Purpose, purpose),
        read_text(row, "instruction"),
    )


def _read_feedback(row: Row) -> Feedback:
    require_no_surrogates(require(row, "judgement"), "judgement")
    annotator = read_text(row, "annotator")
    return Feedback(
        task=read_text(row, "task"),
        annotator=annotator,
        judgement=parse(read_text(row, "kind"), row["judgement"]),
        created_at=read_text(row, "created_at"),
        duration=read_number(row, "duration", 0.0),
        display_order=_read_texts(row, "display_order"),
        comment=read_text(row, "comment"),
        supersedes=read_text(row, "supersedes"),
        id=read_text(row, "id"),
        flags=_read_texts(row, "flags") if "flags" in row else (),
        source=read_source(row, annotator),
    )


def read_source(row: Row, annotator: str) -> Source:
    """Return the source of feedback; where the row names none, the one that the annotator's prefix implies."""
    source = read_text(row, "source") if row.get("source") else implied_source(annotator)
    if source not in get_args(Source):
        raise AssentError(f"no source '{source}'{did_you_mean(source, get_args(Source))}")
    return cast(Source, source)


def _read_texts(row: Row, key: str) -> tuple[str, ...]:
    texts = require(row, key)
    if not isinstance(texts, list):
        raise AssentError(f"'{key}' is {type(texts).__name__}, not a list of texts")
    return tuple(read_text({key: text}, key) for text in texts)


READERS: dict[str, Callable[[Row], Event]] = {
    "prompt": _read_prompt,
    "response": _read_response,
    "task": _read_task,
    "feedback": _read_feedback,
}
"""In the order in which one refers to another."""
