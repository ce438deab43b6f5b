"""How what was said stands in files, one file a format; and what the value of a row must be, or the row is refused."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from assent.errors import AssentError
from assent.records import Example, Feedback, Message, Preference, Prompt, Query, Rejected, Response

Row = Mapping[str, Any]
Shape = Literal["lines", "array", "table"]
"""JSON lines, one JSON array, or rows of cells under a header."""


class Inquiry(NamedTuple):
    """A question, what it showed, and what was said about it."""

    prompt: Prompt
    items: tuple[Response, ...]
    query: Query
    answers: tuple[Feedback, ...] = ()
    origin: str = ""
    """The id under which a file keeps the answers: those of one annotator that stand there twice count once."""


class Remark(NamedTuple):
    """What was assumed about an answer that is read all the same."""

    text: str


Thing = Prompt | Example | Inquiry | Response | Query | Feedback
"""What a row may stand for."""


class Format(Protocol):
    """One way to write things as rows: a frozen dataclass, named as its file is."""

    holds: ClassVar[tuple[type, ...]]
    """The things that it can write."""
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

    def decode(self, row: Row, source: str) -> Iterable[Thing | Rejected | Remark]:
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
        ...

    def turn(self, row: Row) -> int:
        """A row may refer to rows of earlier turns, wherever they stand in the file."""
        return 0

    def header(self, columns: Iterable[str]) -> list[str]:
        """The columns of a table, in the order in which they are written."""
        return sorted(columns)


HALF = re.compile("[\ud800-\udfff]")
"""A lone surrogate: JSON can spell it, UTF-8 and databases cannot hold it."""


EXAMPLE = frozenset(("prompt", "mode", "weight", "id"))
"""Keys of an example; `exchange` tells by `id` what stands twice."""
PAIR = EXAMPLE | {"chosen", "rejected", "p_chosen", "margin"}
"""Keys of a preference."""


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
    """The turns of a conversation, one or more."""
    turns = get(row, key)
    if not isinstance(turns, list) or not turns:
        raise AssentError(f"'{key}' holds no messages")
    for turn in turns:
        if not isinstance(turn, dict):
            raise AssentError(f"a message of '{key}' is {type(turn).__name__}, not an object")
        if turn.get("tool_calls"):
            raise AssentError(f"a message of '{key}' calls tools, which no record can hold yet")
    return tuple(Message(text(turn, "role"), text(turn, "content")) for turn in turns)


def number(row: Row, key: str, usual: float) -> float:
    """A finite number, or the usual one if there is none."""
    value = row.get(key)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise AssentError(f"'{key}' is {value!r}, not a number")
    return value


def prompt_of(row: Row, key: str = "prompt") -> Prompt:
    """Text to be continued, or the messages of a conversation."""
    talks = isinstance(get(row, key), list)
    return Prompt(messages(row, key), mode(row)) if talks else Prompt.plain(text(row, key), mode(row))


def asked(prompt: Prompt) -> Prompt:
    """A prompt that says something."""
    if not any(message.content.strip() for message in prompt.messages):
        raise AssentError("empty prompt")
    return prompt


def mode(row: Row) -> str:
    """The mode of use, if the row names one."""
    return text(row, "mode") if row.get("mode") is not None else ""


def reply(row: Row, key: str, prompt: Prompt) -> str:
    """An answer to a prompt: text to text, one message to messages."""
    if is_plain(prompt) == isinstance(get(row, key), list):
        raise AssentError(f"of 'prompt' and '{key}' one is text and the other messages")
    return said(text(row, key), key) if is_plain(prompt) else last(messages(row, key), key, 1)


def last(turns: tuple[Message, ...], key: str, count: int) -> str:
    """The reply with which so many turns end."""
    if len(turns) != count:
        raise AssentError(f"'{key}' holds {len(turns)} messages in place of one reply")
    if turns[-1].role != "assistant":
        raise AssentError(f"'{key}' does not end with a message of the assistant")
    return said(turns[-1].content, key)


def said(found: str, key: str) -> str:
    """A reply that says something."""
    if not found.strip():
        raise AssentError(f"empty reply in '{key}'")
    return found


def is_plain(prompt: Prompt) -> bool:
    """Whether a prompt is text to be continued."""
    return [message.role for message in prompt.messages] == ["text"]


def content(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as it stands in a row."""
    return prompt.text if is_plain(prompt) else [asdict(message) for message in prompt.messages]


def turn(prompt: Prompt, answer: str) -> str | list[dict[str, str]]:
    """An answer as it stands in a row beside such a prompt."""
    return answer if is_plain(prompt) else [{"role": "assistant", "content": answer}]


def weight(row: Row) -> float:
    """How much a row counts."""
    found = number(row, "weight", 1.0)
    if found < 0:
        raise AssentError(f"'weight' is {found}, less than 0")
    return found


def weighed(example: Example) -> dict[str, float]:
    """How much an example counts, where that is not the usual."""
    return {"weight": example.weight} if example.weight != 1 else {}


def demand_apart(replies: Iterable[str]) -> None:
    """Refuse replies that nobody can tell apart; line breaks and indentation can be seen."""
    replies = list(replies)
    if len(set(replies)) < len(replies):
        raise AssentError("identical replies")
    if len(set(map(_visible, replies))) < len(replies):
        raise AssentError("replies that differ by white space alone")


def _visible(reply: str) -> tuple[str, ...]:
    lines = (line.rstrip() for line in reply.strip().split("\n"))
    return tuple(re.sub(r"(?<=\S)\s+", " ", line) for line in lines)


def pair(row: Row, prompt: Prompt, chosen: str, rejected: str) -> Preference:
    """A preference, with what a row says of how sure it is."""
    demand_apart((chosen, rejected))
    p_chosen = number(row, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise AssentError(f"'p_chosen' is {p_chosen}, not a probability")
    return Preference(prompt, chosen, rejected, p_chosen, number(row, "margin", 0.0), weight(row))


def soft(preference: Preference) -> Row:
    """How sure a preference is, by how much, and what it counts, where that is not the usual."""
    if preference.p_chosen == 0.5:
        raise AssentError("a tie, which this format would turn into a flip of a coin")
    sure = {"p_chosen": preference.p_chosen} if preference.p_chosen != 1 else {}
    return sure | ({"margin": preference.margin} if preference.margin else {}) | weighed(preference)


def has(row: Row, *keys: str) -> int:
    """How many keys these are, if the row has all of them; else 0."""
    return len(keys) * all(key in row for key in keys)
