"""Sort the columns that a format does not read: judgements stop the import, the others become the prompt's meta."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from assent.formats import Format, Record, Remark, Row, TaskWithJudgements
from assent.formats.files.fields import EMPTY_VALUES
from assent.records import (
    Feedback,
    Preference,
    Prompt,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
    Task,
)

JUDGEMENT_WORDS = frozenset(
    (
        *("comparison", "comparisons", "preference", "preferences", "preferred", "dispreferred", "chosen", "rejected"),
        *("choice", "selected", "winner", "winners", "loser", "better", "worse", "verdict", "verdicts"),
        *("label", "labels", "rating", "ratings", "stars", "score", "scores", "reward", "rewards", "likert"),
        *("rank", "ranks", "ranking", "rankings", "vote", "votes", "upvotes", "downvotes", "thumb", "thumbs"),
        *("judgement", "judgements", "judgment", "judgments", "approval", "approved", "accepted", "liked", "disliked"),
        *("feedback", "annotation", "annotations", "critique", "critiques", "correction", "corrections", "corrected"),
        *("helpful", "helpfulness", "harmful", "harmless", "harmlessness", "safe", "unsafe", "toxic", "toxicity"),
        *("correctness", "quality", "status", "safer", "coherence", "verbosity", "complexity", "severity"),
    )
)
"""Words in the name of a column that holds a judgement of a response."""
REJECTION_WORDS = frozenset(
    (
        *("deleted", "removed", "discarded", "dismissed", "withdrawn", "hidden", "invalid", "spam", "reported"),
        *("cancelled", "canceled", "skipped", "flag", "flags", "flagged"),
    )
)
"""Words in the name of a column that withdraws a row, unless its value is one of `FALSE_WORDS`."""
FALSE_WORDS = ("", "0", "0.0", "no", "false", "none", "null", "nan", "n", "f")
SIDE_WORDS = frozenset(
    (
        *("score", "scores", "rating", "ratings", "rank", "reward", "rewards", "avg", "average", "mean"),
        *("model", "policy", "source", "length", "tokens", "logp", "logps"),
    )
)
"""Words of columns such as `score_chosen`, which describe one side of a preference."""
RESPONSE_WORDS = frozenset(
    (
        *("message", "messages", "conversation", "conversations", "response", "responses", "reply", "replies"),
        *("generation", "generations", "completion", "completions", "output", "outputs", "summaries"),
    )
)
"""Words in the name of a column that holds responses; one that repeats a response of its row is no meta."""
MIN_COPIED = 20
"""Characters of a response that another column repeats; a shorter text may be a reference, such as `42`."""
MESSAGE_PREFIX = "messages."
"""The prefix of an ignored key that belongs to messages, not to rows."""


def looks_like_judgement(key: str, value: Any, has_sides: bool) -> bool:
    """Return whether a column that the format does not read seems to hold a judgement, or to withdraw the row.

    Args:
        has_sides: the row holds a preference, so that columns about its sides are no further judgement.
    """
    words = key_words(key)
    if has_sides and describes_side(words):
        return False
    if isinstance(value, list) and any(_has_judgement(entry, has_sides) for entry in value):
        return True
    if words == {"language", "score"}:  # the certainty of a language detector, as in FineWeb
        return False
    return bool(words & JUDGEMENT_WORDS or (words & REJECTION_WORDS and str(value).strip().lower() not in FALSE_WORDS))


def _has_judgement(entry: Any, has_sides: bool) -> bool:
    """Return whether an object within a column seems to hold a judgement; messages hold none."""
    is_object = isinstance(entry, dict) and "role" not in entry
    return is_object and any(looks_like_judgement(key, value, has_sides) for key, value in entry.items())


@lru_cache(4096)
def key_words(key: str) -> frozenset[str]:
    """Return the words in the name of a column: `chosenModel`, `chosen-model` and `chosen_model` have two."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", key.rpartition("[].")[2]).lower()
    return frozenset(re.split(r"[^a-z]+", name))


def describes_side(words: frozenset[str]) -> bool:
    """Return whether a column with these words in its name describes one side of a preference."""
    sides = words & {"chosen", "rejected"}
    return bool(sides) and bool(words - sides) and words - sides <= SIDE_WORDS


# Meta


class DecodedFields(NamedTuple):
    """The records of a row, and the columns that are no meta because they repeat a response."""

    records: tuple[Any, ...]
    copies: tuple[str, ...] = ()


def decode_row(reader: Format, row: Row, source: str, ignore: Collection[str] = ()) -> DecodedFields:
    """Read the records of a row, with its further columns as the prompt's meta.

    Raises:
        AssentError: the row is broken.
    """
    records = tuple(reader.decode(row, source))
    if reader.lossless:
        return DecodedFields(records)
    fields = reader.unread_fields(row)
    keys = {name: key for name, key in meta_keys(reader, row, fields).items() if name not in ignore}
    answers = answer_texts(records) if keys else set()
    copies = tuple(name for name in keys if repeats_answer(name, fields[name], answers))
    meta = _read_meta(row, {key: fields[name] for name, key in keys.items() if name not in copies})
    return DecodedFields(tuple(_with_meta(record, meta) for record in records) if meta else records, copies)


def _read_meta(row: Row, meta: dict[str, Any]) -> dict[str, Any]:
    nested = _parse_object(row.get("meta"))
    return meta | {key: value for key, value in nested.items() if _is_storable(value)}


def _parse_object(value: Any) -> dict[str, Any]:
    """Return an object, or the object that the text of a cell spells; of anything else an empty one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def meta_keys(reader: Format, row: Row, fields: Row) -> dict[str, str]:
    """Return the unread fields that the prompt's meta keeps, with their keys there: not those about one side."""
    if not fields or reader.lossless:
        return {}
    discarded = reader.discarded_keys(row)
    return {
        name: key
        for name, key in reader.meta_keys(row).items()
        if name not in discarded
        and (fields[name] not in EMPTY_VALUES or fields[name] == [])  # an empty list of answers says something
        and not describes_side(key_words(name))
        and _is_storable(fields[name])
    }


def repeats_answer(key: str, value: Any, answers: Collection[str]) -> bool:
    """Return whether a column repeats one of the responses of its row."""
    long_answers = [answer for answer in answers if len(answer) >= MIN_COPIED]
    has_response_name = bool(key_words(key) & RESPONSE_WORDS)
    return any(
        (has_response_name and text.strip() in answers) or any(answer in text for answer in long_answers)
        for text in _texts(value)
    )


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value, at any depth."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            parts += part.values() if isinstance(part, dict) else part


def answer_texts(records: Iterable[Any]) -> set[str]:
    """Return the texts of the responses in some records, without the space around them."""
    texts: set[str] = set()
    for record in records:
        match record:
            case Preference():
                texts |= {record.chosen.text, record.rejected.text}
            case RankedCompletions():
                texts |= {completion.text for tier in record.tiers for completion in tier}
            case ScoredCompletion() | SFTExample():
                texts.add(record.completion.text)
            case TaskWithJudgements():
                texts |= {item.text for item in record.items}
    return {text.strip() for text in texts} - {""}


def _is_storable(value: Any) -> bool:
    """Return whether JSON and UTF-8 can hold a value: no NaN, no unpaired surrogate, no endless nesting."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _with_meta(record: Record | SkippedRow | Remark, meta: Row) -> Record | SkippedRow | Remark:
    match record:
        case SkippedRow() | Remark() | Response() | Task() | Feedback():
            return record
        case Prompt():
            return replace(record, meta=meta)
        case TaskWithJudgements():
            return record._replace(prompt=replace(record.prompt, meta=meta))
    return replace(record, prompt=replace(record.prompt, meta=meta))


def meta_columns(prompt: Prompt, reserved: Collection[str], answers: Collection[str]) -> dict[str, Any]:
    """Return the meta of a prompt as columns, those that would be misread in one object under `meta`.

    Args:
        reserved: names of columns that some format reads.
        answers: the texts of the responses in the row.
    """
    columns: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for key, value in prompt.meta.items():
        is_clear = (
            key not in reserved
            and value not in EMPTY_VALUES
            and not describes_side(key_words(key))
            and not looks_like_judgement(key, value, False)
            and not repeats_answer(key, value, answers)
        )
        (columns if is_clear else nested)[key] = value
    return columns | meta_object(nested)


def meta_object(meta: Row) -> dict[str, Any]:
    """Return meta as one object under `meta`, unless it is empty."""
    return {"meta": dict(meta)} if meta else {}


# Columns to ignore


def drop_keys(row: Row, keys: Collection[str]) -> Row:
    """Return a row without some of its columns, and without the keys of its messages named `messages.KEY`."""
    remaining = {key: value for key, value in row.items() if key not in keys}
    of_messages = {key.removeprefix(MESSAGE_PREFIX) for key in keys if key.startswith(MESSAGE_PREFIX)}
    if not of_messages:
        return remaining
    return {
        key: _drop_message_keys(value, of_messages) if key != "tools" else value for key, value in remaining.items()
    }


def _drop_message_keys(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_drop_message_keys(item, keys) for item in value]
    if not isinstance(value, dict):
        return value
    if "role" in value or {"from", "value"} <= value.keys():
        return {key: item for key, item in value.items() if key not in keys}
    return {key: _drop_message_keys(item, keys) for key, item in value.items()}
