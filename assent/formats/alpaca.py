"""Alpaca, as Stanford wrote it and LLaMA-Factory reads it: https://github.com/tatsu-lab/stanford_alpaca"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import EXAMPLE_KEYS, chat_prompt, count_keys, read_example, read_text
from assent.records import Example, Message


@dataclass(frozen=True)
class Alpaca(Format):
    """The prompt is `instruction`, with `input` on the next line, as one message of the user."""

    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS - {"prompt"} | {
        *("instruction", "input", "output", "chosen", "rejected", "system", "history", "kto_tag", "p_chosen", "margin")
    }

    def match_score(self, row: Row) -> int:
        sides = count_keys(row, "instruction", "output") or count_keys(row, "instruction", "chosen", "rejected")
        return 3 * (bool(sides) and "prompt" not in row)

    def keeps_judgement(self, row: Row) -> bool:
        return row.get("chosen") is not None or row.get("kto_tag") is not None

    def decode(self, row: Row, source: str) -> Iterable[Example]:
        system = [Message("system", read_text(row, "system"))] if row.get("system") else []
        parts = (read_text(row, "instruction"), row.get("input") and read_text(row, "input"))
        question = Message("user", "\n".join(filter(None, parts)))
        prompt = chat_prompt(row, (*system, *_read_history(row), question))
        keys = ("output",) if row.get("chosen") is None else ("chosen", "rejected")
        return (read_example(row, prompt, {key: (Message("assistant", read_text(row, key)),) for key in keys}),)


def _read_history(row: Row) -> list[Message]:
    """Return the earlier messages, which rows hold as pairs of instruction and response."""
    pairs = row.get("history") or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise AssentError("'history' is not a list of pairs of instruction and response")
    roles = ("user", "assistant")
    return [
        Message(role, read_text({"history": text}, "history"))
        for pair in pairs
        for role, text in zip(roles, pair, strict=True)
    ]
