"""How what was said stands in files, one file a format; and what the value of a row must be, or the row is refused."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from assent.errors import AssentError
from assent.records import (
    Completion,
    Example,
    Feedback,
    Message,
    Preference,
    Prompt,
    Response,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
    Task,
)

Row = Mapping[str, Any]
Shape = Literal["lines", "array", "table"]
"""JSON lines, one JSON array, or rows of cells under a header."""


class TaskWithJudgements(NamedTuple):
    """A question, what it showed, and what was said about it."""

    prompt: Prompt
    items: tuple[Response, ...]
    query: Task
    answers: tuple[Feedback, ...] = ()
    origin: str = ""
    """The id under which a file keeps the answers: those of one annotator that stand there twice count once."""


class Remark(NamedTuple):
    """What was assumed about an answer that is read all the same."""

    text: str


Thing = Prompt | Example | TaskWithJudgements | Response | Task | Feedback
"""What a row may stand for."""


class Format(Protocol):
    """One way to write things as rows: a frozen dataclass, named as its file is."""

    holds: ClassVar[tuple[type, ...]] = ()
    """The things that it can write; none of a format that is only read."""
    shape: ClassVar[Shape] = "lines"
    """How a file is written; lines and arrays are both read."""
    whole: ClassVar[bool] = False
    """Whether it moves a store as it stands: what it tells is taken as it is, and has to refer to what it told."""
    answer: ClassVar[str] = ""
    """The kind of answer that an example of this format stands for, where the example leaves it open."""
    tabular: ClassVar[bool] = False
    """Whether its rows may also stand under the header of a table."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """The keys that `decode` looks at; empty where that depends on the row, and `unread` tells."""

    def fits(self, row: Row) -> int:
        """How many keys of a row tell that it is of this format; 0: it is not."""
        ...

    def unread(self, row: Row) -> Row:
        """The keys of a row that `decode` does not look at, with their values; none of a row that it refuses."""
        return {key: value for key, value in row.items() if key not in self.reads} if self.fits(row) else {}

    def demand_clear(self, row: Row) -> None:
        """Look at a row before anything of its file is stored.

        Raises:
            AssentError: it shows that other rows of the file would be misread.
        """
        return

    def decode(self, row: Row, source: str) -> Iterable[Thing | SkippedRow | Remark]:
        """What a row of a file called `source` stands for; of a part that is broken, which part and why.

        Raises:
            AssentError: the whole row is broken, and why.
        """
        ...

    def encode(self, thing: Any) -> Iterable[Row]:
        """A thing as rows.

        Raises:
            AssentError: a thing that no row of this format can say.
        """
        raise AssentError("this format is read alone")

    def turn(self, row: Row) -> int:
        """A row may refer to rows of earlier turns, wherever they stand in the file."""
        return 0

    def header(self, columns: Iterable[str]) -> list[str]:
        """The columns of a table, in the order in which they are written."""
        return sorted(columns)


MESSAGE_KEYS = (
    *("reasoning_content", "reasoning", "thinking", "tool_plan"),
    *("tool_calls", "tool_call_id", "function_call", "name"),
)
"""Keys of a message, beside `role` and `content`, that chat templates read."""
CALLS = ("tool_calls", "function_call")
"""Those that are an answer by themselves, without `content`."""
MASKS = ("weight", "train", "loss")
"""Keys by which some trainers leave a message out of the loss."""
EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values that stand where a message has no such key: Arrow gives every message the keys of all."""
HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: JSON can spell it, UTF-8 and databases cannot hold it."""


EXAMPLE = frozenset(("prompt", "mode", "weight", "id", "tools"))
"""Keys of an example; `exchange` tells by `id` what stands twice."""
PAIR = EXAMPLE | {"chosen", "rejected", "p_chosen", "margin"}
"""Keys of a preference."""


NUMBERS = ("weight", "label", "rating", "kto_tag")
"""Columns of a table that hold numbers, or yes and no."""
WORDS = {"true": True, "yes": True, "false": False, "no": False}


def from_cells(row: Row) -> Row:
    """A row of a table, whose cells are all text, with its numbers as numbers; without those that are empty."""
    return {key: _value(cell) if key in NUMBERS else cell for key, cell in row.items() if cell or key not in NUMBERS}


def _value(cell: str) -> Any:
    word = cell.strip().lower()
    try:
        return WORDS[word] if word in WORDS else float(word)
    except ValueError:
        return cell


def get(row: Row, key: str) -> Any:
    """What stands under a key that has to be there."""
    if key not in row:
        raise AssentError(f"no '{key}'")
    return row[key]


def text(row: Row, key: str) -> str:
    """A text that UTF-8 can hold."""
    found = get(row, key)
    if not isinstance(found, str):
        raise AssentError(f"'{key}' is {type(found).__name__}, not text")
    if HALF.search(found):
        raise AssentError(f"'{key}' holds half a character, a lone surrogate")
    return found


def messages(row: Row, key: str) -> tuple[Message, ...]:
    """The messages of a conversation, at least one."""
    turns = get(row, key)
    if not isinstance(turns, list) or not turns:
        raise AssentError(f"'{key}' holds no messages")
    for turn in turns:
        if not isinstance(turn, dict):
            raise AssentError(f"a message of '{key}' is {type(turn).__name__}, not an object")
    return tuple(_message(turn, key) for turn in turns)


def _message(turn: Row, key: str) -> Message:
    extra = {
        name: respelt(value, _as_object) if name in CALLS else value
        for name, value in turn.items()
        if name not in ("role", "content") and value not in EMPTY
    }
    if unknown := sorted(set(extra) - set(MESSAGE_KEYS)):
        masked = "says which turns are trained on, and assent trains on the last one alone"
        what = masked if unknown[0] in MASKS else "assent does not read"
        raise AssentError(f"a message of '{key}' has '{unknown[0]}', which {what}: {without('messages.' + unknown[0])}")
    demand_whole(extra, key)
    role = text(turn, "role")
    if role == "text":
        raise AssentError(f"a message of '{key}' has the role 'text', which is reserved for prompts without turns")
    return Message(role, _content(turn, bool(extra)), extra)


def respelt(calls: Any, spell: Callable[[Any], Any]) -> Any:
    """The value of one of `CALLS` with the arguments of each call spelt otherwise."""
    if isinstance(calls, list):
        return [_respelt(call, spell) for call in calls]
    return _respelt(calls, spell)


def _respelt(call: Any, spell: Callable[[Any], Any]) -> Any:
    within = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(within, dict) or "arguments" not in within:
        return call
    changed = {**within, "arguments": spell(within["arguments"])}
    return changed if within is call else {**call, "function": changed}


def _as_object(arguments: Any) -> Any:
    """The object that JSON text spells: OpenAI writes text, and chat templates take the object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
        json.dumps(value, allow_nan=False)  # a database may refuse what JSON has no word for
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def without(key: str) -> str:
    """How to go on without a column, or without a key of messages."""
    return f"'assent import --ignore {key}' leaves it out"


def _content(turn: Row, optional: bool) -> str:
    """The text of a message; of a list of parts, their texts in a row."""
    content = turn.get("content") if optional else get(turn, "content")
    if content is None and optional:  # a message that only calls tools
        return ""
    if not isinstance(content, list):
        return text({"content": content}, "content")
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise AssentError(f"'content' holds a part of type '{kind}', and assent reads text alone")
    return "".join(text(part, "text") for part in content)


def tools(row: Row) -> tuple[Row, ...]:
    """The tools that a row offers to the model, as JSON schemas; some files hold the list as JSON text."""
    value = row.get("tools")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise AssentError("'tools' is text, but no JSON") from None
    if value in EMPTY:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise AssentError("'tools' is not a list of objects")
    demand_whole(value, "tools")
    return tuple(value)


def demand_whole(value: Any, key: str) -> None:
    """Refuse a lone surrogate at any depth."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise AssentError(f"'{key}' holds half a character, a lone surrogate") from error


def number(row: Row, key: str, usual: float) -> float:
    """A finite number, or the usual one if there is none."""
    value = row.get(key)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise AssentError(f"'{key}' is {value!r}, not a number: {without(key)}")
    return value


def prompt_of(row: Row, key: str = "prompt") -> Prompt:
    """Text to be continued, or the messages of a conversation."""
    return talk(row, messages(row, key)) if isinstance(get(row, key), list) else plain(row, text(row, key))


def talk(row: Row, turns: tuple[Message, ...]) -> Prompt:
    """A conversation, with the mode and the tools of its row."""
    return Prompt(turns, mode(row), tools=tools(row))


def plain(row: Row, words: str) -> Prompt:
    """Text to be continued, with the mode of its row."""
    if tools(row):
        raise AssentError("'tools' beside a prompt that is text: write the prompt as messages")
    return Prompt.plain(words, mode(row))


def asked(prompt: Prompt) -> Prompt:
    """A prompt that says something."""
    if not any(message.content.strip() for message in prompt.messages):
        raise AssentError("empty prompt")
    return prompt


def mode(row: Row) -> str:
    """The mode of use, if the row names one."""
    if not isinstance(row.get("mode"), str | None):
        raise AssentError(f"'mode' is {type(row['mode']).__name__}, not text: {without('mode')}")
    return text(row, "mode") if row.get("mode") is not None else ""


def reply(row: Row, key: str, prompt: Prompt) -> Completion:
    """An answer to a prompt: text to text; to messages one message, or the prompt's once more and then the answer."""
    if prompt.is_plain == isinstance(get(row, key), list):
        raise AssentError(f"of 'prompt' and '{key}' one is text and the other messages")
    if prompt.is_plain:
        return Completion(said(text(row, key), key))
    turns, before = messages(row, key), len(prompt.messages)
    if len(turns) > 1 and turns[:before] != prompt.messages:
        raise AssentError(f"'{key}' holds {len(turns)} messages, and does not begin with those of the prompt")
    return last(turns[before:] if len(turns) > 1 else turns, key, 1)


def last(turns: tuple[Message, ...], key: str, count: int) -> Completion:
    """The reply with which so many turns end."""
    if len(turns) != count:
        raise AssentError(f"'{key}' holds {len(turns)} messages in place of one reply")
    if turns[-1].role != "assistant":
        raise AssentError(f"'{key}' does not end with a message of the assistant")
    reply = turns[-1]
    calls = any(name in reply.extra for name in CALLS)
    return Completion(reply.content if calls else said(reply.content, key), extra=reply.extra)


def said(found: str, key: str) -> str:
    """A reply that says something."""
    if not found.strip():
        raise AssentError(f"empty reply in '{key}'")
    return found


def content(prompt: Prompt) -> str | list[dict[str, Any]]:
    """A prompt as it stands in a row."""
    return prompt.text if prompt.is_plain else [message.to_dict() for message in prompt.messages]


def turn(prompt: Prompt, answer: Completion) -> str | list[dict[str, Any]]:
    """An answer as it stands in a row beside such a prompt."""
    return answer.text if prompt.is_plain else [Message("assistant", answer.text, answer.extra).to_dict()]


def weight(row: Row) -> float:
    """How much a row counts."""
    found = number(row, "weight", 1.0)
    if found < 0:
        raise AssentError(f"'weight' is {found}, less than 0: {without('weight')}")
    return found


def weighed(example: Example) -> dict[str, float]:
    """How much an example counts, where that is not the usual."""
    return {"weight": example.weight} if example.weight != 1 else {}


def demand_apart(replies: Iterable[Completion]) -> None:
    """Refuse replies that nobody can tell apart; line breaks and indentation can be seen."""
    spelt = [(reply.text, json.dumps(dict(reply.extra), sort_keys=True)) for reply in replies]
    if len(set(spelt)) < len(spelt):
        raise AssentError("identical replies")
    if len({(_visible(reply), extra) for reply, extra in spelt}) < len(spelt):
        raise AssentError("replies that differ by white space alone")


def _visible(reply: str) -> tuple[str, ...]:
    lines = (line.rstrip() for line in reply.strip().split("\n"))
    return tuple(re.sub(r"(?<=\S)\s+", " ", line) for line in lines)


def pair(row: Row, prompt: Prompt, chosen: Completion, rejected: Completion) -> Preference:
    """A preference, with what a row says of how sure it is."""
    demand_apart((chosen, rejected))
    p_chosen = number(row, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise AssentError(f"'p_chosen' is {p_chosen}, not a probability: {without('p_chosen')}")
    return Preference(prompt, chosen, rejected, p_chosen, number(row, "margin", 0.0), weight(row))


def judged(row: Row, prompt: Prompt, sides: Mapping[str, tuple[Message, ...]]) -> Example:
    """What a row says of one reply, or of two of which the first is the better.

    Args:
        sides: the replies, by the keys under which they stand.
    """
    replies = [last(turns, key, 1) for key, turns in sides.items()]
    if len(replies) == 2:
        return pair(row, asked(prompt), *replies)
    if row.get("kto_tag") is None:
        return SFTExample(prompt, replies[0], weight(row))
    if row["kto_tag"] not in (0, 1):
        raise AssentError(f"'kto_tag' is {row['kto_tag']!r}, not true or false: {without('kto_tag')}")
    return ScoredCompletion(asked(prompt), replies[0], float(row["kto_tag"]), weight(row))


def soft(preference: Preference) -> Row:
    """How sure a preference is, by how much, and what it counts, where that is not the usual."""
    if preference.p_chosen == 0.5:
        raise AssentError("a tie, which this format would turn into a flip of a coin")
    sure = {"p_chosen": preference.p_chosen} if preference.p_chosen != 1 else {}
    return sure | ({"margin": preference.margin} if preference.margin else {}) | weighed(preference)


def has(row: Row, *keys: str) -> int:
    """How many keys these are, if the row has all of them; else 0."""
    return len(keys) * all(key in row for key in keys)
