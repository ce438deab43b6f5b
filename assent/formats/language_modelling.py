"""Text, or a conversation, to imitate: https://huggingface.co/docs/trl/dataset_formats"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Row
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    chat_prompt,
    completion_value,
    last_completion,
    prompt_value,
    read_messages,
    read_text,
    read_weight,
    require_reply_text,
    text_prompt,
    weight_field,
)
from assent.records import Completion, SFTExample


@dataclass(frozen=True)
class LanguageModelling(Format):
    """Text is the completion of an empty prompt; of a conversation the last message is the completion."""

    record_types: ClassVar[tuple[type, ...]] = (SFTExample,)
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS - {"prompt"} | {"text", "messages"}

    def match_score(self, row: Row) -> int:
        return int("text" in row or "messages" in row)

    def keeps_judgement(self, row: Row) -> bool:
        return False

    def decode(self, row: Row, source: str) -> Iterable[SFTExample]:
        weight = read_weight(row)
        if "messages" not in row:
            completion = Completion(require_reply_text(read_text(row, "text"), "text"))
            return (SFTExample(text_prompt(row, ""), completion, weight),)
        messages = read_messages(row, "messages")
        if len(messages) < 2:
            raise AssentError("'messages' holds no message before the reply")
        completion = last_completion(messages, "messages", len(messages))
        return (SFTExample(chat_prompt(row, messages[:-1]), completion, weight),)

    def encode(self, record: SFTExample) -> Iterable[Row]:
        prompt = prompt_value(record.prompt)
        whole = prompt + completion_value(record.prompt, record.completion)  # type: ignore[operator]  # of one type
        return ({"text" if record.prompt.is_plain else "messages": whole, **weight_field(record)},)
