"""HelpSteer of NVIDIA: ratings and preferences of hired annotators, in the columns of its three versions.

HelpSteer (arXiv:2311.09528) and HelpSteer2 (arXiv:2406.08673): a response and its attributes from 0 to 4; HelpSteer2's
`preference` (arXiv:2410.01257) and HelpSteer3's (arXiv:2505.11475): two responses and by how much the second is the
better, from -3 to 3. Cards: https://huggingface.co/datasets/nvidia/HelpSteer2 and nvidia/HelpSteer3.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, rescale, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_messages, read_text, require, user_turn
from assent.formats.files.layout import Reply, lay_out
from assent.formats.files.sides import AS_CHAT
from assent.records import Completion, Message, Prompt

AXES = ("helpfulness", "correctness", "coherence")
STYLE = ("complexity", "verbosity")
"""Attributes that are no merit: more of them is not better."""
PARTS = (
    "preference_statement",
    "three_most_similar_preferences",
    "all_preferences_unprocessed",
    "individual_preference",
)
"""The votes of which the overall preference is made."""
TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
OVERALL = "the overall preference is read, not the votes that it is made of"
MERITS = f"{' and '.join(STYLE)} are not read: they are no merits"


@dataclass(frozen=True)
class HelpSteer(Format):
    """A rating has the axes helpfulness, correctness and coherence; a preference its strength from 1 to 3."""

    known_keys: ClassVar[frozenset[str]] = frozenset(
        (
            *("prompt", "response", "response_1", "response_2", "preference_strength", "preference_elaboration"),
            *("context", "response1", "response2", "overall_preference", *AXES),
        )
    )

    def match_score(self, row: Row) -> int:
        return max(
            count_keys(row, "prompt", "response", *AXES, "verbosity"),
            2 * count_keys(row, "prompt", "response_1", "response_2", "preference_strength"),
            2 * count_keys(row, "context", "response1", "response2", "overall_preference"),
        )

    def discarded_keys(self, row: Row) -> Collection[str]:
        return (*STYLE, *PARTS)

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        if "overall_preference" in row:
            comments = [entry.get("reasoning") for entry in _objects(row, "individual_preference")]
            prompt = chat_prompt({}, read_messages(row, "context"))
            return _compare(row, ("response1", "response2"), "overall_preference", prompt, comments, source)
        prompt = Prompt(_split_turns(read_text(row, "prompt")))
        if "preference_strength" in row:
            comments = [row.get("preference_elaboration")]
            return _compare(row, ("response_1", "response_2"), "preference_strength", prompt, comments, source)
        return _rate(row, prompt, source)


def _compare(
    row: Row, keys: tuple[str, str], strength_key: str, prompt: Prompt, comments: Iterable[Any], source: str
) -> Iterator[TaskWithJudgements | Remark]:
    strength = require(row, strength_key)
    if isinstance(strength, bool) or strength not in range(-3, 4):
        raise AssentError(f"'{strength_key}' is {strength!r}, not a whole number from -3 to 3")
    replies = {key: Reply(Completion(read_text(row, key)), f"imported:{source}") for key in keys}
    comment = "\n\n".join(comment for comment in comments if isinstance(comment, str) and comment)
    if strength:
        annotation = Annotation(preferred=int(strength > 0), strength=abs(int(strength)), comment=comment)
    else:
        annotation = Annotation(verdict="tie", comment=comment)
    yield Remark(OVERALL)
    if "prompt" in row:
        yield Remark(AS_CHAT)
    yield from to_feedback(lay_out(prompt, replies), annotation, Provenance(f"imported:{source}"))


def _rate(row: Row, prompt: Prompt, source: str) -> Iterator[TaskWithJudgements | Remark]:
    """Yield a rating; one for each annotator, where attributes are lists of theirs."""
    layout = lay_out(prompt, {"response": Reply(Completion(read_text(row, "response")), f"imported:{source}")})
    values = [require(row, axis) for axis in AXES]
    yield Remark(AS_CHAT)
    yield Remark(MERITS)
    if not all(isinstance(value, list) for value in values):
        yield from to_feedback(layout, _rating(values), Provenance(f"imported:{source}"))
        return
    if len(set(map(len, values))) > 1:
        raise AssentError(f"{', '.join(AXES)} are lists of different lengths")
    for number, of_annotator in enumerate(zip(*values, strict=True), 1):
        yield from to_feedback(layout, _rating(of_annotator), Provenance(f"imported:{source}:{number}"))


def _rating(values: Iterable[Any]) -> Annotation:
    return Annotation(axes=tuple((axis, rescale(value, "0-4")) for axis, value in zip(AXES, values, strict=True)))


def _split_turns(text: str) -> tuple[Message, ...]:
    """Return the turns of a prompt, which `<extra_id_1>User` and `<extra_id_1>Assistant` separate."""
    first, *rest = TURN.split(text)
    later = zip(rest[::2], rest[1::2], strict=True)
    turns = (Message("user" if speaker == "User" else "assistant", content) for speaker, content in later)
    return (*(user_turn(first) if first else ()), *turns)


def _objects(row: Row, key: str) -> list[Row]:
    value = row.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
