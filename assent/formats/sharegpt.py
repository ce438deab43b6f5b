"""ShareGPT, as LLaMA-Factory describes it: https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import EXAMPLE, Format, Row, get, judged, messages, talk, text
from assent.records import Example, Message

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}
"""The roles of chat templates, by what `from` says."""


@dataclass(frozen=True)
class ShareGPT(Format):
    """Turns of `from` and `value`; the last one is what is learnt, or stands as `chosen` and `rejected` beside them."""

    reads: ClassVar[frozenset[str]] = EXAMPLE - {"prompt"} | {
        *("conversations", "chosen", "rejected", "system", "kto_tag", "p_chosen", "margin")
    }

    def fits(self, row: Row) -> int:
        turns = row.get("conversations")
        is_told = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
        return (1 if "prompt" in row else 4) * is_told

    def decode(self, row: Row, source: str) -> Iterable[Example]:
        turns = _turns(row, "conversations")
        if (system := text(row, "system") if row.get("system") else "") and turns[0] != Message("system", system):
            if turns[0].role == "system":
                raise AssentError("'system' differs from the first turn of 'conversations'")
            turns = (Message("system", system), *turns)
        if row.get("chosen") is None and row.get("rejected") is None:
            if len(turns) < 2:
                raise AssentError("'conversations' holds no message before the reply")
            return (judged(row, talk(row, turns[:-1]), {"conversations": turns[-1:]}),)
        return (judged(row, talk(row, turns), {key: _turns(row, key) for key in ("chosen", "rejected")}),)


def _turns(row: Row, key: str) -> tuple[Message, ...]:
    """The messages of a list of turns, or of one turn."""
    turns = [row[key]] if isinstance(row.get(key), dict) else get(row, key)
    if isinstance(turns, list):
        turns = [_message(turn) if isinstance(turn, dict) else turn for turn in turns]
    return messages({key: turns}, key)


def _message(turn: Row) -> Row:
    """A turn as a message; what it holds besides stays, to be refused by name."""
    if "from" not in turn:
        return turn
    speaker, rest = text(turn, "from"), {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker not in ROLES:
        raise AssentError(f"a turn from '{speaker}', not {', '.join(ROLES)}")
    if speaker == "function_call":
        return {**rest, "role": "assistant", "content": None, "tool_calls": _calls(text(turn, "value"))}
    return {**rest, "role": ROLES[speaker], "content": get(turn, "value")}


def _calls(value: str) -> list[dict[str, Any]]:
    """The calls that a turn from `function_call` spells, as chat templates take them."""
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise AssentError("a turn from 'function_call' is no JSON object with 'name' and 'arguments'")
    return [{"type": "function", "function": call} for call in calls]
