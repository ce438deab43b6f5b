"""OpenAI's files for direct preference optimization: https://platform.openai.com/docs/guides/direct-preference-optimization"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import (
    CALLS,
    Format,
    Row,
    asked,
    content,
    get,
    has,
    last,
    messages,
    pair,
    respelt,
    soft,
    talk,
    turn,
)
from assent.records import Preference

INPUT = ("messages", "tools", "parallel_tool_calls")
"""Parts of `input`; whether tools may be called in parallel is for the server that samples."""


@dataclass(frozen=True)
class OpenAIPreference(Format):
    """The messages of `input`, and a reply of one message on either side."""

    holds: ClassVar[tuple[type, ...]] = (Preference,)
    reads: ClassVar[frozenset[str]] = frozenset(
        ("input", "preferred_output", "non_preferred_output", "mode", "weight", "p_chosen", "margin", "id")
    )

    def fits(self, row: Row) -> int:
        return has(row, "input", "preferred_output", "non_preferred_output")

    def unread(self, row: Row) -> Row:
        given = row["input"] if isinstance(row.get("input"), dict) else {}
        within = {f"input.{key}": value for key, value in given.items() if key not in INPUT}
        return {**super().unread(row), **within}

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        given = get(row, "input")
        if not isinstance(given, dict):
            raise AssentError(f"'input' is {type(given).__name__}, not an object")
        prompt = asked(talk({**row, "tools": given.get("tools")}, messages(given, "messages")))
        preferred, other = (last(messages(row, key), key, 1) for key in ("preferred_output", "non_preferred_output"))
        return (pair(row, prompt, preferred, other),)

    def encode(self, thing: Preference) -> Iterable[Row]:
        if thing.prompt.is_plain:
            raise AssentError("text to be continued, and this format holds conversations")
        sides = {
            "preferred_output": _spelt(turn(thing.prompt, thing.chosen)),
            "non_preferred_output": _spelt(turn(thing.prompt, thing.rejected)),
        }
        tools = {"tools": list(thing.prompt.tools)} if thing.prompt.tools else {}
        return ({"input": {"messages": _spelt(content(thing.prompt)), **tools}, **sides, **soft(thing)},)


def _spelt(turns: Any) -> list[Row]:
    """Messages whose calls have their arguments as JSON text, which is what OpenAI takes."""
    return [{key: respelt(value, _as_text) if key in CALLS else value for key, value in turn.items()} for turn in turns]


def _as_text(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
