"""OpenAI's files for direct preference optimization: https://platform.openai.com/docs/guides/direct-preference-optimization"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.records import Preference, Prompt
from assent.store.formats import (
    Format,
    Row,
    asked,
    content,
    get,
    has,
    is_plain,
    last,
    messages,
    mode,
    pair,
    soft,
    turn,
)


@dataclass(frozen=True)
class OpenAIPreference(Format):
    """The messages of `input`, and a reply of one message on either side."""

    holds: ClassVar[tuple[type, ...]] = (Preference,)
    reads: ClassVar[frozenset[str]] = frozenset(
        ("input", "preferred_output", "non_preferred_output", "mode", "weight", "p_chosen", "margin", "id")
    )

    def fits(self, row: Row) -> int:
        return has(row, "input", "preferred_output", "non_preferred_output")

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        given = get(row, "input")
        if not isinstance(given, dict):
            raise AssentError(f"'input' is {type(given).__name__}, not an object")
        if given.get("tools"):
            raise AssentError("'input' offers tools, which no record can hold yet")
        prompt = asked(Prompt(messages(given, "messages"), mode(row)))
        preferred, other = (last(messages(row, key), key, 1) for key in ("preferred_output", "non_preferred_output"))
        return (pair(row, prompt, preferred, other),)

    def encode(self, thing: Preference) -> Iterable[Row]:
        if is_plain(thing.prompt):
            raise AssentError("text to be continued, and this format holds conversations")
        sides = {
            "preferred_output": turn(thing.prompt, thing.chosen),
            "non_preferred_output": turn(thing.prompt, thing.rejected),
        }
        return ({"input": {"messages": content(thing.prompt)}, **sides, **soft(thing)},)
