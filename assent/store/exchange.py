"""Files in and out: the formats of TRL, transcripts of hh-rlhf, our own events; a broken row is named, never lost."""

import gzip
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import body, check, parse
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.records import (
    Completion,
    Example,
    Feedback,
    Imitation,
    Label,
    Message,
    Preference,
    Prompt,
    Purpose,
    Query,
    Ranked,
    Rejected,
    Response,
    content_id,
)
from assent.registry import name_of
from assent.store.database import Store

Row = Mapping[str, Any]
Event = Prompt | Response | Query | Feedback

UNKNOWN_TIME = "1970-01-01T00:00:00Z"
"""When an imported judgement was made: files do not tell, and a second import must make the same event."""
LOOK = 20
"""Good rows by whose keys the format is told."""
HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: JSON can spell it, UTF-8 and databases cannot hold it."""


@dataclass(frozen=True)
class Reading:
    """What a file holds, as testimony for the store and as examples to train on; and what it holds in vain."""

    format: str
    examples: tuple[Example, ...]
    """Made from the feedback below; empty for `events`, which `preferences.convert` turns into examples."""
    prompts: tuple[Prompt, ...]
    responses: tuple[Response, ...]
    queries: tuple[Query, ...]
    feedback: tuple[Feedback, ...]
    rejected: tuple[Rejected, ...]
    rows: int
    """Good and broken ones; blank lines are none."""

    def __str__(self) -> str:
        line = f"{self.rows - len(self.rejected)} of {self.rows} rows read as {self.format}"
        reasons = Counter(row.reason for row in self.rejected).most_common()
        return line + "".join(f"; {count} rejected: {reason}" for reason, count in reasons)


class Written(NamedTuple):
    """Rows written, and what the format cannot hold."""

    rows: int
    left_out: tuple[Rejected, ...]


class Format(NamedTuple):
    """One way to write an example as a row; `decode` raises AssentError with the reason why a row is broken."""

    fits: Callable[[Row], bool]
    decode: Callable[[Row], Example | Prompt]
    encode: Callable[[Any], Row]
    holds: type


def read(path: str | Path, format: str = "auto") -> Reading:
    """Read a file of JSON lines or one JSON array, gzipped or not, with or without a byte-order mark.

    Args:
        format: a name in `FORMATS`, `events`, or `auto`: told from the keys of the first good rows.

    Raises:
        AssentError: a file that cannot be read, is empty, or whose format is unknown. Broken rows are in `rejected`.
    """
    path = Path(path)
    if format not in (*FORMATS, "events", "auto"):
        raise AssentError(f"no format '{format}'{did_you_mean(format, (*FORMATS, 'events'))}")
    rows, rejected = _rows(path)
    if not rows and not rejected:
        raise AssentError(f"{path} is empty")
    if not rows:
        raise AssentError(f"{path} holds no JSON object; first {rejected[0].where}: {rejected[0].reason}")
    format = _detect(path, rows) if format == "auto" else format
    return _read_events(rows, rejected) if format == "events" else _read_examples(path.name, rows, rejected, format)


def load(path: str | Path, store: Store, format: str = "auto") -> Reading:
    """Read a file into the store; a second time changes nothing.

    A preference becomes a comparison of two responses, a label an approval, an imitation a demonstration, all of them
    by annotator `imported:<file name>` and policy of the same name.
    """
    return _keep(read(path, format), store)


def add(examples: Iterable[Example], store: Store, source: str) -> Reading:
    """Put examples into the store as `load` would those of a file of that name.

    Raises:
        AssentError: one that no answer stands for, such as a preference between a completion and itself.
    """
    things = list(examples)
    for number, thing in enumerate(things, 1):
        if isinstance(thing, Preference) and thing.chosen == thing.rejected:
            raise AssentError(f"example {number} prefers a completion to itself: {thing.chosen[:60]!r}")
        if isinstance(thing, Label) and not 0 <= thing.value <= 1:
            raise AssentError(
                f"example {number} is a label of {thing.value:g}, not from 0 (disapproved) to 1 (approved)"
            )
    return _keep(_reading("examples", things, source, [], len(things)), store)


def _keep(reading: Reading, store: Store) -> Reading:
    store.add_prompts(reading.prompts)
    store.add_responses(reading.responses)
    store.add_queries(reading.queries)
    store.add_feedback(reading.feedback)
    return reading


def write(source: Store | Iterable[Example | Prompt], path: str | Path, format: str) -> Written:
    """Write examples or prompts in a format, or a whole store as `events`; gzipped if the name ends in `.gz`.

    Each row is read back before it is written: what a format cannot hold is left out, and named by its position.

    Raises:
        AssentError: an unknown format, a store in a format of examples, or a file that cannot be written.
    """
    path, left_out, count = Path(path), list[Rejected](), 0
    if format not in (*FORMATS, "events"):
        raise AssentError(f"no format '{format}'{did_you_mean(format, (*FORMATS, 'events'))}")
    if isinstance(source, Store) and format == "prompt-only":
        source = source.prompts()
    if isinstance(source, Store) != (format == "events"):
        raise AssentError("'events' is for a store, the rest for examples: preferences.convert makes them of a store")
    rows = _event_rows(source) if isinstance(source, Store) else _example_rows(source, FORMATS[format], left_out)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            # No time in the header: the same examples make the same bytes.
            pack = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.suffix == ".gz" else None
            for row in rows:
                (pack or file).write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                count += 1
            if pack:
                pack.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise AssentError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return Written(count, tuple(left_out))


# Rows of a file


def _rows(path: Path) -> tuple[list[tuple[str, Row, str]], list[Rejected]]:
    """(where, row, text) of every JSON object, and what is none."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise AssentError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    rows: list[tuple[str, Row, str]] = []
    rejected: list[Rejected] = []
    for where, piece in _pieces(path, data):
        raw = piece.decode(errors="replace") if isinstance(piece, bytes) else json.dumps(piece)
        try:
            row = json.loads(piece.decode()) if isinstance(piece, bytes) else piece
            if not isinstance(row, dict):
                raise AssentError(f"not a JSON object but {type(row).__name__}")
            rows.append((where, row, raw))
        except (AssentError, ValueError, RecursionError) as error:
            rejected.append(Rejected(where, _reason(error), raw))
    return rows, rejected


def _pieces(path: Path, data: bytes) -> Iterator[tuple[str, Any]]:
    """Where, and the bytes of a line or the parsed row of an array."""
    if data.lstrip().startswith(b"["):
        try:
            array = json.loads(data)
        except (ValueError, RecursionError):
            array = None  # a file of lines whose first is broken
        if isinstance(array, list):
            for number, row in enumerate(array, 1):
                yield f"{path.name}:row {number}", row
            return
    # Split as bytes: text would be split at U+2028 and its like too, which may stand inside a JSON string.
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            yield f"{path.name}:{number}", line


def _reason(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"invalid UTF-8 at byte {error.start + 1}"
        case json.JSONDecodeError():
            return f"broken JSON: {error.msg}"
        case AssentError():
            return str(error)
    return f"broken JSON: {type(error).__name__}"


def _detect(path: Path, rows: list[tuple[str, Row, str]]) -> str:
    formats = {"events": lambda row: "record" in row, **{name: format.fits for name, format in FORMATS.items()}}
    told = (next((name for name, fits in formats.items() if fits(row)), "") for _, row, _ in rows)
    votes = Counter(islice(filter(None, told), LOOK))
    if not votes:
        keys = ", ".join(rows[0][1]) or "no keys"
        raise AssentError(f"{path}: no format has rows of {keys}; known: {', '.join(formats)}")
    return votes.most_common(1)[0][0]


# Examples and the testimony that they stand for


def _read_examples(file: str, rows: list[tuple[str, Row, str]], rejected: list[Rejected], format: str) -> Reading:
    total, rejected = len(rows) + len(rejected), list(rejected)
    things: list[Example | Prompt] = []
    for where, row, raw in rows:
        try:
            things.append(FORMATS[format].decode(row))
        except AssentError as error:
            rejected.append(Rejected(where, str(error), raw))
    return _reading(format, things, file, rejected, total)


def _reading(
    format: str, things: Iterable[Example | Prompt], source: str, rejected: list[Rejected], rows: int
) -> Reading:
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    queries: dict[str, Query] = {}
    feedback: list[Feedback] = []
    examples: list[Example] = []
    seen: Counter[str] = Counter()
    for thing in things:
        prompt = thing if isinstance(thing, Prompt) else thing.prompt
        prompt = prompts.setdefault(prompt.id, replace(prompt, source=source))
        if isinstance(thing, Prompt):
            continue
        items, query, event = _testimony(replace(thing, prompt=prompt), f"imported:{source}", seen, format)
        responses.update((item.id, item) for item in items)
        queries[query.id] = query
        feedback.append(event)
        examples.append(replace(thing, prompt=prompt, sources=(event.id,)))
    nouns = tuple(prompts.values()), tuple(responses.values()), tuple(queries.values()), tuple(feedback)
    return Reading(format, tuple(examples), *nouns, tuple(rejected), rows)


def _testimony(example: Example, who: str, seen: Counter[str], format: str) -> tuple[list[Response], Query, Feedback]:
    """The responses, question and answer that an imported example stands for; equal rows make several events."""
    prompt, weight = example.prompt.id, float(example.weight)
    answer: Comparison | Ranking | Approval | Rating | Demonstration
    match example:
        case Preference():
            items = [
                Response(prompt, example.chosen, who, example.chosen_finished),
                Response(prompt, example.rejected, who, example.rejected_finished),
            ]
            margin, p = float(example.margin), float(example.p_chosen)
            if p == 0.5:
                answer = Comparison(verdict="tie", weight=weight)  # equals have no margin
            else:
                answer = Comparison(items[p < 0.5].id, certainty=max(p, 1 - p), margin=margin, weight=weight)
        case Ranked():
            tiers = [[Response(prompt, text, who, finished) for text, finished in tier] for tier in example.tiers]
            items = [item for tier in tiers for item in tier]
            answer = Ranking(tuple(tuple(item.id for item in tier) for tier in tiers), weight)
        case Label():
            items = [Response(prompt, example.completion, who, example.finished)]
            rated = format == "rating" or example.value not in (0, 1)
            answer = Rating((("overall", _stars(example)),), weight) if rated else Approval(bool(example.value), weight)
        case Imitation():
            items, answer = [], Demonstration(example.completion, weight)
    # In the order of their ids: the order of the file would tell which is the better.
    query = Query(name_of(answer), prompt, tuple(sorted(item.id for item in items)))
    told = content_id("imported", who, query.id, body(answer))
    seen[told] += 1
    event = Feedback(query.id, who, answer, UNKNOWN_TIME, id=content_id(told, seen[told]))
    return items, query, event


def _example_rows(things: Iterable[Example | Prompt], format: Format, left_out: list[Rejected]) -> Iterator[Row]:
    for number, thing in enumerate(things, 1):
        try:
            if not isinstance(thing, format.holds):
                raise AssentError(f"a {type(thing).__name__.lower()}, which this format does not hold")
            if isinstance(thing, Preference) and thing.p_chosen < 0.5:
                thing = replace(thing, chosen=thing.rejected, rejected=thing.chosen, p_chosen=1 - thing.p_chosen)
            mode = thing.mode if isinstance(thing, Prompt) else thing.prompt.mode
            row = {**format.encode(thing), **({"mode": mode} if mode else {})}
            if _bare(format.decode(row)) != _bare(thing):
                raise AssentError("this format would give it back as something else")
        except AssentError as error:
            left_out.append(Rejected(f"example {number}", str(error)))
        else:
            yield row


def _bare(thing: Example | Prompt) -> Example | Prompt:
    if isinstance(thing, Prompt):
        return replace(thing, source="")
    return replace(thing, prompt=replace(thing.prompt, source=""), sources=())


# The values of a row


def _get(row: Row, key: str) -> Any:
    if key not in row:
        raise AssentError(f"no '{key}'")
    return row[key]


def _text(row: Row, key: str) -> str:
    text = _get(row, key)
    if not isinstance(text, str):
        raise AssentError(f"'{key}' is {type(text).__name__}, not text")
    if HALF.search(text):
        raise AssentError(f"'{key}' holds half a character, a lone surrogate")
    return text


def _messages(row: Row, key: str) -> tuple[Message, ...]:
    turns = _get(row, key)
    if not isinstance(turns, list) or not turns:
        raise AssentError(f"'{key}' holds no messages")
    for turn in turns:
        if not isinstance(turn, dict):
            raise AssentError(f"a message of '{key}' is {type(turn).__name__}, not an object")
        if turn.get("tool_calls"):
            raise AssentError(f"a message of '{key}' calls tools, which no record can hold yet")
    return tuple(Message(_text(turn, "role"), _text(turn, "content")) for turn in turns)


def _number(row: Row, key: str, usual: float) -> float:
    value = row.get(key)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise AssentError(f"'{key}' is {value!r}, not a number")
    return value


def _prompt(row: Row, key: str = "prompt") -> Prompt:
    talks = isinstance(_get(row, key), list)
    return Prompt(_messages(row, key), _mode(row)) if talks else Prompt.plain(_text(row, key), _mode(row))


def _mode(row: Row) -> str:
    return _text(row, "mode") if row.get("mode") is not None else ""


def _reply(row: Row, key: str, prompt: Prompt) -> str:
    if _plain(prompt) == isinstance(_get(row, key), list):
        raise AssentError(f"of 'prompt' and '{key}' one is text and the other messages")
    return _said(_text(row, key), key) if _plain(prompt) else _last(_messages(row, key), key, 1)


def _last(turns: tuple[Message, ...], key: str, count: int) -> str:
    if len(turns) != count:
        raise AssentError(f"'{key}' holds {len(turns)} messages in place of one reply")
    if turns[-1].role != "assistant":
        raise AssentError(f"'{key}' does not end with a message of the assistant")
    return _said(turns[-1].content, key)


def _said(text: str, key: str) -> str:
    if not text.strip():
        raise AssentError(f"empty reply in '{key}'")
    return text


def _plain(prompt: Prompt) -> bool:
    return [message.role for message in prompt.messages] == ["text"]


def _content(prompt: Prompt) -> str | list[dict[str, str]]:
    return prompt.text if _plain(prompt) else [asdict(message) for message in prompt.messages]


def _turn(prompt: Prompt, text: str) -> str | list[dict[str, str]]:
    return text if _plain(prompt) else [{"role": "assistant", "content": text}]


def _weight(row: Row) -> float:
    weight = _number(row, "weight", 1.0)
    if weight < 0:
        raise AssentError(f"'weight' is {weight}, less than 0")
    return weight


def _weighed(example: Example) -> dict[str, float]:
    return {"weight": example.weight} if example.weight != 1 else {}


# Preferences: https://huggingface.co/docs/trl/dataset_formats


def _pair(row: Row, prompt: Prompt, chosen: str, rejected: str) -> Preference:
    if chosen == rejected:
        raise AssentError("identical replies")
    p_chosen = _number(row, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise AssentError(f"'p_chosen' is {p_chosen}, not a probability")
    return Preference(prompt, chosen, rejected, p_chosen, _number(row, "margin", 0.0), _weight(row))


def _soft(pair: Preference) -> Row:
    if pair.p_chosen == 0.5:
        raise AssentError("a tie, which this format would turn into a flip of a coin")
    soft = {"p_chosen": pair.p_chosen} if pair.p_chosen != 1 else {}
    return soft | ({"margin": pair.margin} if pair.margin else {}) | _weighed(pair)


def _decode_explicit(row: Row) -> Preference:
    if isinstance(row.get("prompt"), str) and isinstance(row.get("chosen"), list):
        # As in ultrafeedback_binarized: whole conversations, and their first question once more as text.
        pair = _decode_implicit(row)
        if _text(row, "prompt") not in (message.content for message in pair.prompt.messages):
            raise AssentError("'prompt' is not part of the conversation in 'chosen'")
        return pair
    prompt = _prompt(row)
    return _pair(row, prompt, _reply(row, "chosen", prompt), _reply(row, "rejected", prompt))


def _encode_explicit(pair: Preference) -> Row:
    prompt = pair.prompt
    sides = {"chosen": _turn(prompt, pair.chosen), "rejected": _turn(prompt, pair.rejected)}
    return {"prompt": _content(prompt), **sides, **_soft(pair)}


def _decode_implicit(row: Row) -> Preference:
    if isinstance(_get(row, "chosen"), str):
        return _decode_common_text(row)
    chosen, rejected = _messages(row, "chosen"), _messages(row, "rejected")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise AssentError("no shared prompt")
    sides = [_last(turns, key, len(turns)) for turns, key in ((chosen, "chosen"), (rejected, "rejected"))]
    return _pair(row, Prompt(chosen[:-1], _mode(row)), *sides)


def _decode_common_text(row: Row) -> Preference:
    """The prompt is what both begin with, up to the last space, so that no word is cut in two."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    if chosen == rejected:
        raise AssentError("identical replies")
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((place for place, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
    cut = next((place for place in reversed(range(shared)) if chosen[place].isspace()), 0)
    if not cut:
        raise AssentError("no shared prompt")
    sides = _said(chosen[cut:], "chosen"), _said(rejected[cut:], "rejected")
    return _pair(row, Prompt.plain(chosen[:cut], _mode(row)), *sides)


def _encode_implicit(pair: Preference) -> Row:
    sides = {}
    for key, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        before, reply = _content(pair.prompt), _turn(pair.prompt, text)
        sides[key] = before + reply  # type: ignore[operator]  # both text or both messages
    return {**sides, **_soft(pair)}


# Transcripts of hh-rlhf (arXiv:2204.05862)

ASKED, TOLD = "\n\nHuman:", "\n\nAssistant:"
SPEAKERS = {"user": ASKED, "assistant": TOLD}


def _decode_transcript(row: Row) -> Preference:
    """The prompt is all up to the last turn of the assistant, and the same on both sides."""
    chosen, rejected = _text(row, "chosen"), _text(row, "rejected")
    before, mark, reply = chosen.rpartition(TOLD)
    other, _, rival = rejected.rpartition(TOLD)
    if not mark or not chosen.startswith(ASKED):
        raise AssentError("'chosen' is no transcript of Human and Assistant")
    if not rejected.startswith(before + mark):
        raise AssentError("no shared prompt")
    if before != other:
        raise AssentError("'rejected' goes on for another turn, so that the two replies answer different prompts")
    parts = re.split(r"\n\n(Human|Assistant):", before)[1:]
    # One space after the colon belongs to the notation; everything else is somebody's own.
    turns = zip(parts[::2], (part.removeprefix(" ") for part in parts[1::2]), strict=True)
    prompt = Prompt(tuple(Message("user" if who == "Human" else "assistant", text) for who, text in turns), _mode(row))
    sides = (_said(text.removeprefix(" "), key) for text, key in ((reply, "chosen"), (rival, "rejected")))
    return _pair(row, prompt, *sides)


def _encode_transcript(pair: Preference) -> Row:
    if strange := [turn.role for turn in pair.prompt.messages if turn.role not in SPEAKERS]:
        raise AssentError(f"a message of role '{strange[0]}', which a transcript cannot hold")
    before = "".join(f"{SPEAKERS[turn.role]} {turn.content}" for turn in pair.prompt.messages)
    sides = {"chosen": f"{before}{TOLD} {pair.chosen}", "rejected": f"{before}{TOLD} {pair.rejected}"}
    return {**sides, **_soft(pair)}


def _decode_ranking(row: Row) -> Ranked:
    prompt, texts, ranks = _prompt(row), _get(row, "completions"), _get(row, "ranks")
    if not isinstance(texts, list) or not isinstance(ranks, list) or not len(texts) == len(ranks) > 1:
        raise AssentError("'completions' and 'ranks' are not two lists of one length, of two or more")
    if not all(type(rank) in (int, float) and math.isfinite(rank) for rank in ranks):
        raise AssentError(f"'ranks' are {ranks!r}, not numbers")
    said = [_reply({"completions": text}, "completions", prompt) for text in texts]
    if len(set(said)) < len(said):
        raise AssentError("identical replies")
    placed = list(zip(said, ranks, strict=True))
    tiers = [[Completion(text) for text, rank in placed if rank == tier] for tier in sorted(set(ranks))]
    return Ranked(prompt, tuple(map(tuple, tiers)), _weight(row))


def _encode_ranking(ranked: Ranked) -> Row:
    placed = [(text.text, rank) for rank, tier in enumerate(ranked.tiers, 1) for text in tier]
    texts = [_turn(ranked.prompt, text) for text, _ in placed]
    sides = {"completions": texts, "ranks": [rank for _, rank in placed]}
    return {"prompt": _content(ranked.prompt), **sides, **_weighed(ranked)}


# Labels, imitation, prompts


def _decode_unpaired(row: Row) -> Label:
    prompt, label = _prompt(row), _get(row, "label")
    if not isinstance(label, bool | int) or label not in (0, 1):
        raise AssentError(f"'label' is {label!r}, not true or false")
    return Label(prompt, _reply(row, "completion", prompt), float(label), _weight(row))


def _encode_unpaired(label: Label) -> Row:
    if label.value not in (0, 1):
        raise AssentError(f"a rating of {label.value:g}, which is neither true nor false")
    sides = {"prompt": _content(label.prompt), "completion": _turn(label.prompt, label.completion)}
    return {**sides, "label": bool(label.value), **_weighed(label)}


def _decode_rating(row: Row) -> Label:
    prompt, rating = _prompt(row), _number(row, "rating", math.nan)
    if not 1 <= rating <= 7:
        raise AssentError(f"'rating' is {row['rating']!r}, not a number from 1 to 7")
    return Label(prompt, _reply(row, "completion", prompt), (rating - 1) / 6, _weight(row))


def _encode_rating(label: Label) -> Row:
    sides = {"prompt": _content(label.prompt), "completion": _turn(label.prompt, label.completion)}
    return {**sides, "rating": _stars(label), **_weighed(label)}


def _stars(label: Label) -> float:
    """A label as a rating from 1 to 7."""
    return round(1 + 6 * label.value, 9)


def _decode_completion(row: Row) -> Imitation:
    prompt = _prompt(row)
    return Imitation(prompt, _reply(row, "completion", prompt), _weight(row))


def _encode_completion(shown: Imitation) -> Row:
    sides = {"prompt": _content(shown.prompt), "completion": _turn(shown.prompt, shown.completion)}
    return {**sides, **_weighed(shown)}


def _decode_language(row: Row) -> Imitation:
    """Bare text is a completion of nothing; of a conversation the last turn is what is learnt."""
    weight = _weight(row)
    if "messages" not in row:
        return Imitation(Prompt.plain("", _mode(row)), _said(_text(row, "text"), "text"), weight)
    turns = _messages(row, "messages")
    if len(turns) < 2:
        raise AssentError("'messages' holds no message before the reply")
    return Imitation(Prompt(turns[:-1], _mode(row)), _last(turns, "messages", len(turns)), weight)


def _encode_language(shown: Imitation) -> Row:
    before, reply = _content(shown.prompt), _turn(shown.prompt, shown.completion)
    return {"text" if _plain(shown.prompt) else "messages": before + reply, **_weighed(shown)}  # type: ignore[operator]


def _encode_prompt(prompt: Prompt) -> Row:
    return {"prompt": _content(prompt)}


def _has(*keys: str) -> Callable[[Row], bool]:
    return lambda row: all(key in row for key in keys)


FORMATS: dict[str, Format] = {
    "hh-rlhf": Format(
        lambda row: "prompt" not in row and ASKED in str(row.get("chosen")) and TOLD in str(row.get("rejected")),
        _decode_transcript,
        _encode_transcript,
        Preference,
    ),
    "preference": Format(_has("prompt", "chosen", "rejected"), _decode_explicit, _encode_explicit, Preference),
    "preference-implicit": Format(_has("chosen", "rejected"), _decode_implicit, _encode_implicit, Preference),
    "ranking": Format(_has("prompt", "completions", "ranks"), _decode_ranking, _encode_ranking, Ranked),
    "rating": Format(_has("prompt", "completion", "rating"), _decode_rating, _encode_rating, Label),
    "unpaired": Format(_has("prompt", "completion", "label"), _decode_unpaired, _encode_unpaired, Label),
    "prompt-completion": Format(_has("prompt", "completion"), _decode_completion, _encode_completion, Imitation),
    "language-modelling": Format(
        lambda row: "text" in row or "messages" in row, _decode_language, _encode_language, Imitation
    ),
    "prompt-only": Format(_has("prompt"), _prompt, _encode_prompt, Prompt),
}
"""By name, the most telling keys first; `events` stands beside them."""


# Our own events: a store, whole


def _event_rows(store: Store) -> Iterator[Row]:
    things: Iterator[Event] = chain(store.prompts(), store.responses(), store.queries(), store.feedback())
    for thing in things:
        values = asdict(thing)
        if isinstance(thing, Feedback):
            values |= {"kind": name_of(thing.answer), "answer": body(thing.answer)}
        yield {"record": type(thing).__name__.lower(), "id": thing.id, **values}


def _read_events(rows: list[tuple[str, Row, str]], rejected: list[Rejected]) -> Reading:
    found: dict[str, dict[Any, Any]] = {name: {} for name in EVENTS}
    total, rejected = len(rows) + len(rejected), list(rejected)
    # In the order in which one refers to another, whatever the order of the file.
    for name in (*EVENTS, ""):
        for where, row, raw in rows:
            kind = str(row.get("record"))
            if kind != name and (name or kind in EVENTS):
                continue
            try:
                thing = _event(kind, row)
                _refers(thing, found)
                found[kind][thing.id, getattr(thing, "policy", "")] = thing
            except AssentError as error:
                rejected.append(Rejected(where, str(error), raw))
    prompts, responses, queries, feedback = (tuple(things.values()) for things in found.values())
    return Reading("events", (), prompts, responses, queries, feedback, tuple(rejected), total)


def _event(kind: str, row: Row) -> Event:
    if kind not in EVENTS:
        raise AssentError(f"no record '{kind}'{did_you_mean(kind, EVENTS)}")
    thing = EVENTS[kind](row)
    if thing.id != _text(row, "id"):
        raise AssentError(f"its content has id {thing.id}, not {row['id']}: it was changed by hand")
    return thing


def _refers(thing: Event, found: dict[str, dict[Any, Any]]) -> None:
    match thing:
        case Response() | Query():
            if (thing.prompt, "") not in found["prompt"]:
                raise AssentError(f"its prompt {thing.prompt} is not in this file, or broken")
            if isinstance(thing, Query) and (lost := set(thing.items) - {name for name, _ in found["response"]}):
                raise AssentError(f"its item {min(lost)} is not in this file, or broken")
        case Feedback():
            if (thing.query, "") not in found["query"]:
                raise AssentError(f"its query {thing.query} is not in this file, or broken")
            check(thing.answer, found["query"][thing.query, ""])
            if found["feedback"].get((thing.id, ""), thing) != thing:
                raise AssentError(f"feedback {thing.id} stands in this file with two bodies")


def _names(row: Row, key: str) -> tuple[str, ...]:
    names = _get(row, key)
    if not isinstance(names, list):
        raise AssentError(f"'{key}' is {type(names).__name__}, not a list of ids")
    return tuple(_text({key: name}, key) for name in names)


def _make_prompt(row: Row) -> Prompt:
    return Prompt(_messages(row, "messages"), _text(row, "mode"), _text(row, "source"))


def _make_response(row: Row) -> Response:
    finished = _get(row, "finished")
    if not isinstance(finished, bool):
        raise AssentError(f"'finished' is {finished!r}, not true or false")
    return Response(_text(row, "prompt"), _text(row, "text"), _text(row, "policy"), finished, _text(row, "sampling"))


def _make_query(row: Row) -> Query:
    purpose = _text(row, "purpose")
    if purpose not in get_args(Purpose):
        raise AssentError(f"no purpose '{purpose}'{did_you_mean(purpose, get_args(Purpose))}")
    told = _text(row, "kind"), _text(row, "prompt"), _names(row, "items")
    return Query(*told, cast(Purpose, purpose), _text(row, "instruction"))


def _make_feedback(row: Row) -> Feedback:
    # Through UTF-8 and back, because an answer may hide half a character at any depth.
    try:
        json.dumps(_get(row, "answer"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise AssentError("'answer' holds half a character, a lone surrogate") from error
    answer, seconds = parse(_text(row, "kind"), row["answer"]), _number(row, "seconds", 0.0)
    who, at, shown = _text(row, "annotator"), _text(row, "at"), _names(row, "shown")
    told = _text(row, "note"), _text(row, "supersedes"), _text(row, "id")
    return Feedback(_text(row, "query"), who, answer, at, seconds, shown, *told)


EVENTS: dict[str, Callable[[Row], Event]] = {
    "prompt": _make_prompt,
    "response": _make_response,
    "query": _make_query,
    "feedback": _make_feedback,
}
"""In the order in which one refers to another."""
