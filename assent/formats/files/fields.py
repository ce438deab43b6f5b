"""Read and write the fields that many formats share: messages, prompts, completions, weights."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assent.errors import AssentError
from assent.formats import Row
from assent.records import (
    Completion,
    Example,
    Message,
    Preference,
    Prompt,
    ScoredCompletion,
    SFTExample,
)

MESSAGE_KEYS = (
    *("reasoning_content", "reasoning", "thinking", "tool_plan"),
    *("tool_calls", "tool_call_id", "function_call", "name"),
)
"""Keys of a message, besides `role` and `content`, that chat templates read."""
CALL_KEYS = ("tool_calls", "function_call")
"""Message keys that make a reply without `content`."""
LOSS_MASK_KEYS = ("weight", "train", "loss")
"""Keys by which some trainers leave a message out of the loss."""
EMPTY_VALUES: tuple[Any, ...] = (None, "", [], {})
"""Values that count as a missing key: Arrow gives every message the keys of all."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: JSON can spell it, UTF-8 and databases cannot hold it."""
EXAMPLE_KEYS = frozenset(("prompt", "category", "meta", "weight", "id", "tools"))
"""Keys of every example. Rows with equal `id` count once."""
PREFERENCE_KEYS = EXAMPLE_KEYS | {"chosen", "rejected", "p_chosen", "margin"}
NUMBER_COLUMNS = ("weight", "label", "rating", "kto_tag")
"""Columns of a table that hold numbers or booleans."""
BOOLEAN_WORDS = {"true": True, "yes": True, "false": False, "no": False}


# Values


def parse_cells(row: Row) -> Row:
    """Return a row of a table, whose cells are all text, with its numbers as numbers; empty ones are left out."""
    return {
        key: _parse_cell(cell) if key in NUMBER_COLUMNS else cell
        for key, cell in row.items()
        if cell or key not in NUMBER_COLUMNS
    }


def _parse_cell(cell: str) -> Any:
    word = cell.strip().lower()
    try:
        return BOOLEAN_WORDS[word] if word in BOOLEAN_WORDS else float(word)
    except ValueError:
        return cell


def require(row: Row, key: str) -> Any:
    """Return the value of a key.

    Raises:
        AssentError: the row has no such key.
    """
    if key not in row:
        raise AssentError(f"no '{key}'")
    return row[key]


def require_object(row: Row, key: str) -> Row:
    """Return the object under a key.

    Raises:
        AssentError: the row has no such key, or another value there.
    """
    value = require(row, key)
    if not isinstance(value, dict):
        raise AssentError(f"'{key}' is {type(value).__name__}, not an object")
    return value


def require_objects(row: Row, key: str) -> list[Row]:
    """Return the list of objects under a key.

    Raises:
        AssentError: the row has no such key, or another value there.
    """
    value = require(row, key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise AssentError(f"'{key}' is not a list of objects")
    return value


def count_keys(row: Row, *keys: str) -> int:
    """Return the number of these keys if the row has all of them, else 0."""
    return len(keys) * all(key in row for key in keys)


def read_text(row: Row, key: str) -> str:
    """Return a text that UTF-8 can hold."""
    value = require(row, key)
    if not isinstance(value, str):
        raise AssentError(f"'{key}' is {type(value).__name__}, not text")
    if LONE_SURROGATE.search(value):
        raise AssentError(f"'{key}' contains an unpaired surrogate")
    return value


def read_number(row: Row, key: str, default: float) -> float:
    """Return a finite number, or the default if the row has none."""
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise AssentError(f"'{key}' is {value!r}, not a number: {ignore_hint(key)}")
    return value


def read_weight(row: Row) -> float:
    """Return the weight of a row, 1 unless it names one."""
    weight = read_number(row, "weight", 1.0)
    if weight < 0:
        raise AssentError(f"'weight' is {weight}, less than 0: {ignore_hint('weight')}")
    return weight


def read_category(row: Row) -> str:
    """Return the category of a prompt, or an empty text."""
    if not isinstance(row.get("category"), str | None):
        raise AssentError(f"'category' is {type(row['category']).__name__}, not text: {ignore_hint('category')}")
    return read_text(row, "category") if row.get("category") is not None else ""


def read_tools(row: Row) -> tuple[Row, ...]:
    """Return the tools that a row offers to the model, as JSON schemas; some files hold the list as JSON text."""
    value = row.get("tools")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise AssentError("'tools' is text, but not JSON") from None
    if value in EMPTY_VALUES:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise AssentError("'tools' is not a list of objects")
    require_no_surrogates(value, "tools")
    return tuple(value)


def require_no_surrogates(value: Any, key: str) -> None:
    """Refuse an unpaired surrogate at any depth."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise AssentError(f"'{key}' contains an unpaired surrogate") from error


def ignore_hint(key: str) -> str:
    """Return the advice to go on without a column, or without a key of messages."""
    return f"'assent import --ignore {key}' leaves it out"


# Messages


def read_messages(row: Row, key: str) -> tuple[Message, ...]:
    """Return the messages of a conversation, at least one."""
    messages = require(row, key)
    if not isinstance(messages, list) or not messages:
        raise AssentError(f"'{key}' holds no messages")
    for message in messages:
        if not isinstance(message, dict):
            raise AssentError(f"a message of '{key}' is {type(message).__name__}, not an object")
    return tuple(_read_message(message, key) for message in messages)


def _read_message(message: Row, key: str) -> Message:
    extra = {
        name: map_arguments(value, _parse_arguments) if name in CALL_KEYS else value
        for name, value in message.items()
        if name not in ("role", "content") and value not in EMPTY_VALUES
    }
    if unknown := sorted(set(extra) - set(MESSAGE_KEYS)):
        is_mask = unknown[0] in LOSS_MASK_KEYS
        reason = "marks messages for the loss, but assent trains on the last message only"
        raise AssentError(
            f"a message of '{key}' has '{unknown[0]}', which {reason if is_mask else 'assent does not read'}: "
            f"{ignore_hint('messages.' + unknown[0])}"
        )
    require_no_surrogates(extra, key)
    role = read_text(message, "role")
    if role == "text":
        raise AssentError(f"a message of '{key}' has the role 'text', which is reserved for prompts without messages")
    return Message(role, _read_content(message, bool(extra)), extra)


def _read_content(message: Row, is_optional: bool) -> str:
    """Return the text of a message; of a list of parts, their texts joined."""
    content = message.get("content") if is_optional else require(message, "content")
    if content is None and is_optional:  # a message that only calls tools
        return ""
    if not isinstance(content, list):
        return read_text({"content": content}, "content")
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise AssentError(f"'content' has a part of type '{kind}', but assent reads text only")
    return "".join(read_text(part, "text") for part in content)


def map_arguments(calls: Any, convert: Callable[[Any], Any]) -> Any:
    """Return the value of one of `CALL_KEYS` with the arguments of each call converted."""
    if isinstance(calls, list):
        return [_map_call_arguments(call, convert) for call in calls]
    return _map_call_arguments(calls, convert)


def _map_call_arguments(call: Any, convert: Callable[[Any], Any]) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    converted = {**function, "arguments": convert(function["arguments"])}
    return converted if function is call else {**call, "function": converted}


def _parse_arguments(arguments: Any) -> Any:
    """Return the object that JSON text spells: OpenAI writes text, and chat templates take the object."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
        json.dumps(value, allow_nan=False)  # a database may refuse NaN and infinities, which JSON does not have
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


# Prompts and completions


def read_prompt(row: Row, key: str = "prompt") -> Prompt:
    """Return text to be continued, or the messages of a conversation."""
    if isinstance(require(row, key), list):
        return chat_prompt(row, read_messages(row, key))
    return text_prompt(row, read_text(row, key))


def chat_prompt(row: Row, messages: tuple[Message, ...]) -> Prompt:
    """Return a conversation with the category and the tools of its row."""
    return Prompt(messages, read_category(row), tools=read_tools(row))


def text_prompt(row: Row, text: str) -> Prompt:
    """Return text to be continued, with the category of its row."""
    if read_tools(row):
        raise AssentError("'tools' with a prompt that is text: write the prompt as messages")
    return Prompt.plain(text, read_category(row))


def user_turn(text: str, system: str = "") -> tuple[Message, ...]:
    """Return the conversation of one question, after the system's message if there is one."""
    return (*([Message("system", system)] if system else []), Message("user", text))


def require_prompt_text(prompt: Prompt) -> Prompt:
    """Return a prompt, and refuse one without any text."""
    if not any(message.content.strip() for message in prompt.messages):
        raise AssentError("empty prompt")
    return prompt


def read_completion(row: Row, key: str, prompt: Prompt) -> Completion:
    """Return a completion of a prompt.

    To a prompt of text it is text. To a conversation it is one message, or the prompt's messages and then that one.
    """
    if prompt.is_plain == isinstance(require(row, key), list):
        raise AssentError(f"'prompt' and '{key}' must both be text or both be messages")
    if prompt.is_plain:
        return Completion(require_reply_text(read_text(row, key), key))
    messages = read_messages(row, key)
    prefix = len(prompt.messages)
    if len(messages) > 1 and messages[:prefix] != prompt.messages:
        raise AssentError(f"'{key}' holds {len(messages)} messages and does not begin with those of the prompt")
    return last_completion(messages[prefix:] if len(messages) > 1 else messages, key, 1)


def last_completion(messages: tuple[Message, ...], key: str, count: int) -> Completion:
    """Return the reply that ends a conversation of `count` messages."""
    if len(messages) != count:
        raise AssentError(f"'{key}' holds {len(messages)} messages instead of one reply")
    reply = messages[-1]
    if reply.role != "assistant":
        raise AssentError(f"'{key}' does not end with a message of the assistant")
    has_calls = any(name in reply.extra for name in CALL_KEYS)
    return Completion(reply.content if has_calls else require_reply_text(reply.content, key), extra=reply.extra)


def require_reply_text(text: str, key: str) -> str:
    """Return the text of a reply, and refuse an empty one."""
    if not text.strip():
        raise AssentError(f"empty reply in '{key}'")
    return text


def prompt_value(prompt: Prompt) -> str | list[dict[str, Any]]:
    """Return a prompt as rows hold it: text or messages."""
    return prompt.text if prompt.is_plain else [message.to_dict() for message in prompt.messages]


def completion_value(prompt: Prompt, completion: Completion) -> str | list[dict[str, Any]]:
    """Return a completion as rows hold it: text, or one message."""
    if prompt.is_plain:
        return completion.text
    return [Message("assistant", completion.text, completion.extra).to_dict()]


def require_distinct(completions: Iterable[Completion]) -> None:
    """Refuse completions that annotators cannot tell apart; line breaks and indentation are visible."""
    replies = [(reply.text, json.dumps(dict(reply.extra), sort_keys=True)) for reply in completions]
    if len(set(replies)) < len(replies):
        raise AssentError("identical replies")
    if len({(visible_lines(text), extra) for text, extra in replies}) < len(replies):
        raise AssentError("replies that differ in white space only")


def visible_lines(text: str) -> tuple[str, ...]:
    """Return the lines of a text without the white space that nobody sees."""
    lines = (line.rstrip() for line in text.strip().split("\n"))
    return tuple(re.sub(r"(?<=\S)\s+", " ", line) for line in lines)


# Examples


def read_preference(row: Row, prompt: Prompt, chosen: Completion, rejected: Completion) -> Preference:
    """Return a preference with the probability, margin and weight of its row."""
    require_distinct((chosen, rejected))
    p_chosen = read_number(row, "p_chosen", 1.0)
    if not 0 <= p_chosen <= 1:
        raise AssentError(f"'p_chosen' is {p_chosen}, not a probability: {ignore_hint('p_chosen')}")
    return Preference(prompt, chosen, rejected, p_chosen, read_number(row, "margin", 0.0), read_weight(row))


def read_example(row: Row, prompt: Prompt, replies: Mapping[str, tuple[Message, ...]]) -> Example:
    """Return the example of a row with one reply, or with two of which the first is the better.

    Args:
        replies: the messages of each reply by its key.
    """
    completions = [last_completion(messages, key, 1) for key, messages in replies.items()]
    if len(completions) == 2:
        return read_preference(row, require_prompt_text(prompt), *completions)
    if row.get("kto_tag") is None:
        return SFTExample(prompt, completions[0], read_weight(row))
    if row["kto_tag"] not in (0, 1):
        raise AssentError(f"'kto_tag' is {row['kto_tag']!r}, not true or false: {ignore_hint('kto_tag')}")
    return ScoredCompletion(require_prompt_text(prompt), completions[0], float(row["kto_tag"]), read_weight(row))


def weight_field(example: Example) -> dict[str, float]:
    """Return the weight of an example as a field, unless it is 1."""
    return {"weight": example.weight} if example.weight != 1 else {}


def preference_fields(preference: Preference) -> Row:
    """Return the probability, margin and weight of a preference as fields, unless they have their defaults."""
    if preference.p_chosen == 0.5:
        raise AssentError("a tie, which this format would turn into a random choice")
    fields: dict[str, float] = {}
    if preference.p_chosen != 1:
        fields["p_chosen"] = preference.p_chosen
    if preference.margin:
        fields["margin"] = preference.margin
    return fields | weight_field(preference)
