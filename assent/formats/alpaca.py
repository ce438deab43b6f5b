"""Alpaca, as Stanford wrote it and LLaMA-Factory reads it: https://github.com/tatsu-lab/stanford_alpaca"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import EXAMPLE, Format, Row, has, judged, talk, text
from assent.records import Example, Message


@dataclass(frozen=True)
class Alpaca(Format):
    """The prompt is `instruction`, with `input` on the next line, as a turn of the user."""

    tabular: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = EXAMPLE - {"prompt"} | {
        *("instruction", "input", "output", "chosen", "rejected", "system", "history", "kto_tag", "p_chosen", "margin")
    }

    def fits(self, row: Row) -> int:
        sides = has(row, "instruction", "output") or has(row, "instruction", "chosen", "rejected")
        return 3 * (bool(sides) and "prompt" not in row)

    def decode(self, row: Row, source: str) -> Iterable[Example]:
        system = [Message("system", text(row, "system"))] if row.get("system") else []
        asked = "\n".join(part for part in (text(row, "instruction"), row.get("input") and text(row, "input")) if part)
        prompt = talk(row, (*system, *_history(row), Message("user", asked)))
        keys = ("output",) if row.get("chosen") is None else ("chosen", "rejected")
        return (judged(row, prompt, {key: (Message("assistant", text(row, key)),) for key in keys}),)


def _history(row: Row) -> list[Message]:
    """Earlier turns, told as pairs of what was asked and what was answered."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise AssentError("'history' is no list of pairs, an instruction and its answer")
    roles = ("user", "assistant")
    return [
        Message(role, text({"history": words}, "history"))
        for pair in pairs
        for role, words in zip(roles, pair, strict=True)
    ]
