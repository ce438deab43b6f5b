"""Chosen and rejected, the prompt being what both begin with: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import (
    PAIR,
    Format,
    Row,
    content,
    get,
    has,
    last,
    messages,
    pair,
    plain,
    said,
    soft,
    talk,
    text,
    turn,
)
from assent.records import Completion, Preference


@dataclass(frozen=True)
class PreferenceImplicit(Format):
    """Of conversations, the prompt is all but the last message; of text, all up to the last space that is shared."""

    holds: ClassVar[tuple[type, ...]] = (Preference,)
    reads: ClassVar[frozenset[str]] = PAIR - {"prompt"}

    def fits(self, row: Row) -> int:
        return has(row, "chosen", "rejected")

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        if isinstance(get(row, "chosen"), str):
            return (_of_text(row),)
        chosen, rejected = messages(row, "chosen"), messages(row, "rejected")
        if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
            raise AssentError("no shared prompt")
        sides = [last(turns, key, len(turns)) for turns, key in ((chosen, "chosen"), (rejected, "rejected"))]
        return (pair(row, talk(row, chosen[:-1]), *sides),)

    def encode(self, thing: Preference) -> Iterable[Row]:
        sides = {}
        for key, answer in (("chosen", thing.chosen), ("rejected", thing.rejected)):
            before, after = content(thing.prompt), turn(thing.prompt, answer)
            sides[key] = before + after  # type: ignore[operator]  # both text or both messages
        return ({**sides, **soft(thing)},)


def _of_text(row: Row) -> Preference:
    """The prompt is what both begin with, up to the last space, so that no word is cut in two."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    if chosen == rejected:
        raise AssentError("identical replies")
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((place for place, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
    cut = next((place for place in reversed(range(shared)) if chosen[place].isspace()), 0)
    if not cut:
        raise AssentError("no shared prompt")
    sides = Completion(said(chosen[cut:], "chosen")), Completion(said(rejected[cut:], "rejected"))
    return pair(row, plain(row, chosen[:cut]), *sides)
