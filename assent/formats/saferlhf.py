"""PKU-SafeRLHF: two responses, which of them helps more and which is safer (two judgements that may differ).

Ji et al. 2024 (arXiv:2406.15513); card: https://huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF. The set of a single
dimension has one preference.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_text, user_turn
from assent.formats.files.layout import Reply, lay_out
from assent.formats.files.sides import AS_CHAT
from assent.records import Completion

BETTER = "better_response_id"
SAFER = "safer_response_id"
HELPFULNESS = "Which answer is more helpful?"
HARMLESSNESS = "Which answer is safer?"
CONFLICT = f"the more helpful answer is not the safer one, and both are kept: --ignore {SAFER} or {BETTER} keeps one"
RESPONSES = ("response_0", "response_1")


@dataclass(frozen=True)
class SafeRLHF(Format):
    """The instruction of a task says which of the two judgements it holds; the flag `harm` marks unsafe responses."""

    known_keys: ClassVar[frozenset[str]] = frozenset(
        (
            *("prompt", BETTER, SAFER, *RESPONSES, "response_0_source", "response_1_source"),
            *("is_response_0_safe", "is_response_1_safe"),
        )
    )

    def match_score(self, row: Row) -> int:
        return 2 * (count_keys(row, "prompt", *RESPONSES, BETTER) or count_keys(row, "prompt", *RESPONSES, SAFER))

    def discarded_keys(self, row: Row) -> Collection[str]:
        return [f"{side}_{key}" for side in RESPONSES for key in ("harm_category", "severity_level", "sha256")]

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        keys = [key for key in (BETTER, SAFER) if key in row]
        if not keys:
            raise AssentError(f"no '{BETTER}'")
        if len(keys) == 2 and row[BETTER] != row[SAFER]:
            yield Remark(CONFLICT)
        for key in keys:
            yield Remark(AS_CHAT)
            yield from _compare(row, key, source)


def _compare(row: Row, key: str, source: str) -> Iterator[TaskWithJudgements]:
    preferred = row[key]
    if isinstance(preferred, bool) or preferred not in (0, 1):
        raise AssentError(f"'{key}' is {preferred!r}, not 0 or 1")
    instruction = ""
    if key == SAFER or SAFER in row:
        instruction = HARMLESSNESS if key == SAFER else HELPFULNESS
    replies = {
        side: Reply(Completion(read_text(row, side)), str(row.get(f"{side}_source") or f"imported:{source}"))
        for side in RESPONSES
    }
    layout = lay_out(chat_prompt({}, user_turn(read_text(row, "prompt"))), replies, instruction)
    is_unsafe = any(row.get(f"is_{side}_safe") is False for side in RESPONSES)
    flags = ("harm",) if is_unsafe and instruction != HELPFULNESS else ()
    yield from to_feedback(layout, Annotation(preferred=int(preferred), flags=flags), Provenance(f"imported:{source}"))
