"""Bare text, or a whole conversation, to imitate: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import (
    EXAMPLE,
    Format,
    Row,
    content,
    last,
    messages,
    plain,
    said,
    talk,
    text,
    turn,
    weighed,
    weight,
)
from assent.records import Completion, SFTExample


@dataclass(frozen=True)
class LanguageModelling(Format):
    """Bare text is a completion of nothing; of a conversation the last turn is what is learnt."""

    holds: ClassVar[tuple[type, ...]] = (SFTExample,)
    reads: ClassVar[frozenset[str]] = EXAMPLE - {"prompt"} | {"text", "messages"}

    def fits(self, row: Row) -> int:
        return int("text" in row or "messages" in row)

    def decode(self, row: Row, source: str) -> Iterable[SFTExample]:
        counts = weight(row)
        if "messages" not in row:
            return (SFTExample(plain(row, ""), Completion(said(text(row, "text"), "text")), counts),)
        turns = messages(row, "messages")
        if len(turns) < 2:
            raise AssentError("'messages' holds no message before the reply")
        return (SFTExample(talk(row, turns[:-1]), last(turns, "messages", len(turns)), counts),)

    def encode(self, thing: SFTExample) -> Iterable[Row]:
        before, after = content(thing.prompt), turn(thing.prompt, thing.completion)
        whole = before + after  # type: ignore[operator]  # both text or both messages
        return ({"text" if thing.prompt.is_plain else "messages": whole, **weighed(thing)},)
