"""A completion of a prompt, and whether it is good: https://huggingface.co/docs/trl/dataset_formats

Also the columns of hf.co/datasets/argilla/kto-mix-15k: `prompt` is text, `completion` the whole conversation, and
`rating` the number from which `label` was made.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    chat_prompt,
    completion_value,
    count_keys,
    ignore_hint,
    last_completion,
    prompt_value,
    read_completion,
    read_messages,
    read_prompt,
    read_text,
    read_weight,
    require,
    require_prompt_text,
    weight_field,
)
from assent.records import Completion, Prompt, ScoredCompletion

OTHER_PROMPT = "'prompt' is not part of the conversation in 'completion': the conversation counts"


@dataclass(frozen=True)
class Unpaired(Format):
    """The label is true, false, 1 or 0."""

    record_types: ClassVar[tuple[type, ...]] = (ScoredCompletion,)
    is_tabular: ClassVar[bool] = True
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completion", "label"}

    def match_score(self, row: Row) -> int:
        has_rating = "rating" in row and isinstance(row.get("label"), bool)
        return count_keys(row, "prompt", "completion", "label") and 3 + has_rating

    def discarded_keys(self, row: Row) -> Collection[str]:
        return {"rating"} if isinstance(row.get("label"), bool) else ()

    def decode(self, row: Row, source: str) -> Iterable[ScoredCompletion | Remark]:
        label = require(row, "label")
        if not isinstance(label, bool | int | float) or label not in (0, 1):
            raise AssentError(f"'label' is {label!r}, not true or false: {ignore_hint('label')}")
        prompt, completion, remarks = _read_sides(row)
        yield from remarks
        yield ScoredCompletion(require_prompt_text(prompt), completion, float(label), read_weight(row))

    def encode(self, record: ScoredCompletion) -> Iterable[Row]:
        if record.value not in (0, 1):
            raise AssentError(f"a score of {record.value:g}, which is neither true nor false")
        sides = {
            "prompt": prompt_value(record.prompt),
            "completion": completion_value(record.prompt, record.completion),
        }
        return ({**sides, "label": bool(record.value), **weight_field(record)},)


def _read_sides(row: Row) -> tuple[Prompt, Completion, Iterable[Remark]]:
    """Return prompt and completion; of a whole conversation beside a text, the conversation counts."""
    if not (isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), list)):
        prompt = read_prompt(row)
        return prompt, read_completion(row, "completion", prompt), ()
    messages = read_messages(row, "completion")
    prompt_messages = messages[:-1]
    has_text = read_text(row, "prompt") in [message.content for message in prompt_messages]
    if not prompt_messages:
        raise AssentError("'prompt' and 'completion' must both be text or both be messages")
    completion = last_completion(messages, "completion", len(messages))
    return chat_prompt(row, prompt_messages), completion, () if has_text else (Remark(OTHER_PROMPT),)
