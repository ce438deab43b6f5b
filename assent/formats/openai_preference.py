"""OpenAI's files for direct preference optimization: https://platform.openai.com/docs/guides/direct-preference-optimization"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    CALL_KEYS,
    chat_prompt,
    completion_value,
    count_keys,
    last_completion,
    map_arguments,
    preference_fields,
    prompt_value,
    read_messages,
    read_preference,
    require,
    require_prompt_text,
)
from assent.records import Preference

INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
"""Parts of `input`; `parallel_tool_calls` matters only to the server that samples."""

OUTPUT_KEYS = ("preferred_output", "non_preferred_output")


@dataclass(frozen=True)
class OpenAIPreference(Format):
    """The messages of `input`, and one reply of one message on either side."""

    record_types: ClassVar[tuple[type, ...]] = (Preference,)
    known_keys: ClassVar[frozenset[str]] = frozenset(
        ("input", "preferred_output", "non_preferred_output", "category", "meta", "weight", "p_chosen", "margin", "id")
    )

    def match_score(self, row: Row) -> int:
        return count_keys(row, "input", "preferred_output", "non_preferred_output")

    def unread_fields(self, row: Row) -> Row:
        request = row["input"] if isinstance(row.get("input"), dict) else {}
        nested = {f"input.{key}": value for key, value in request.items() if key not in INPUT_KEYS}
        return {**super().unread_fields(row), **nested}

    def meta_keys(self, row: Row) -> Row:
        return {key: key for key in super().unread_fields(row)}

    def decode(self, row: Row, source: str) -> Iterable[Preference]:
        request = require(row, "input")
        if not isinstance(request, dict):
            raise AssentError(f"'input' is {type(request).__name__}, not an object")
        prompt = chat_prompt({**row, "tools": request.get("tools")}, read_messages(request, "messages"))
        completions = [last_completion(read_messages(row, key), key, 1) for key in OUTPUT_KEYS]
        return (read_preference(row, require_prompt_text(prompt), *completions),)

    def encode(self, record: Preference) -> Iterable[Row]:
        if record.prompt.is_plain:
            raise AssentError("a prompt of text, but this format holds conversations only")
        outputs = {
            "preferred_output": _with_text_arguments(completion_value(record.prompt, record.chosen)),
            "non_preferred_output": _with_text_arguments(completion_value(record.prompt, record.rejected)),
        }
        tools = {"tools": list(record.prompt.tools)} if record.prompt.tools else {}
        request = {"messages": _with_text_arguments(prompt_value(record.prompt)), **tools}
        return ({"input": request, **outputs, **preference_fields(record)},)


def _with_text_arguments(messages: Any) -> list[Row]:
    """Return messages with the arguments of their calls as JSON text, as OpenAI takes them."""
    return [
        {key: map_arguments(value, _to_json) if key in CALL_KEYS else value for key, value in message.items()}
        for message in messages
    ]


def _to_json(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments
