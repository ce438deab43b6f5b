"""ShareGPT, as LLaMA-Factory describes it: https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import EXAMPLE_KEYS, chat_prompt, read_example, read_messages, read_text, require
from assent.records import Example, Message

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
}
"""The roles of chat templates by the value of `from`."""


@dataclass(frozen=True)
class ShareGPT(Format):
    """Turns of `from` and `value`; the reply is the last one, or there are two under `chosen` and `rejected`."""

    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS - {"prompt"} | {
        *("conversations", "chosen", "rejected", "system", "kto_tag", "p_chosen", "margin")
    }

    def match_score(self, row: Row) -> int:
        turns = row.get("conversations")
        has_turns = isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns)
        return (1 if "prompt" in row else 4) * has_turns

    def keeps_judgement(self, row: Row) -> bool:
        return row.get("chosen") is not None or row.get("kto_tag") is not None

    def decode(self, row: Row, source: str) -> Iterable[Example]:
        turns = _read_turns(row, "conversations")
        if (system := read_text(row, "system") if row.get("system") else "") and turns[0] != Message("system", system):
            if turns[0].role == "system":
                raise AssentError("'system' differs from the first turn of 'conversations'")
            turns = (Message("system", system), *turns)
        if row.get("chosen") is None and row.get("rejected") is None:
            if len(turns) < 2:
                raise AssentError("'conversations' holds no message before the reply")
            return (read_example(row, chat_prompt(row, turns[:-1]), {"conversations": turns[-1:]}),)
        return (
            read_example(row, chat_prompt(row, turns), {key: _read_turns(row, key) for key in ("chosen", "rejected")}),
        )


def _read_turns(row: Row, key: str) -> tuple[Message, ...]:
    """Return the messages of a list of turns, or of one turn."""
    turns = [row[key]] if isinstance(row.get(key), dict) else require(row, key)
    if isinstance(turns, list):
        turns = [_to_message(turn) if isinstance(turn, dict) else turn for turn in turns]
    return read_messages({key: turns}, key)


def _to_message(turn: Row) -> Row:
    """Return a turn as a message; its other keys stay and are refused by name later."""
    if "from" not in turn:
        return turn
    speaker = read_text(turn, "from")
    others = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker not in ROLES:
        raise AssentError(f"a turn from '{speaker}', not {', '.join(ROLES)}")
    if speaker == "function_call":
        return {**others, "role": "assistant", "content": None, "tool_calls": _parse_calls(read_text(turn, "value"))}
    return {**others, "role": ROLES[speaker], "content": require(turn, "value")}


def _parse_calls(value: str) -> list[dict[str, Any]]:
    """Return the calls in the JSON text of a `function_call` turn, as chat templates take them."""
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        raise AssentError("a turn from 'function_call' is not a JSON object with 'name' and 'arguments'")
    return [{"type": "function", "function": call} for call in calls]
