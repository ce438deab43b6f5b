"""Comparisons of WebGPT: two answers to a question with quotations from the web, and a score of each, their sum 0.

Nakano et al. 2021 (arXiv:2112.09332); card: https://huggingface.co/datasets/openai/webgpt_comparisons.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_number, read_text, require_object, user_turn
from assent.formats.files.layout import Reply, lay_out
from assent.formats.files.sides import AS_CHAT
from assent.records import Completion

ANSWERS = ("answer_0", "answer_1")
STRENGTH = "the strength 1, 2 or 3 is the third of 0 to 1 in which the score lies; a score of 0 is a tie"


@dataclass(frozen=True)
class WebGPT(Format):
    """The answer with the higher score is the better; quotations and tokens are not kept."""

    known_keys: ClassVar[frozenset[str]] = frozenset(("question", "score_0", "score_1", *ANSWERS))

    def match_score(self, row: Row) -> int:
        is_question = isinstance(row.get("question"), dict) and "full_text" in row["question"]
        return 2 * is_question * count_keys(row, "score_0", "score_1", *ANSWERS)

    def unread_fields(self, row: Row) -> Row:
        question = row["question"] if isinstance(row.get("question"), dict) else {}
        nested = {f"question.{key}": value for key, value in question.items() if key != "full_text"}
        return {**super().unread_fields(row), **nested} if self.match_score(row) else {}

    def meta_keys(self, row: Row) -> dict[str, str]:
        return {key: key for key in self.unread_fields(row)}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("quotes_0", "quotes_1", "tokens_0", "tokens_1")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        scores = [read_number(row, key, math.nan) for key in ("score_0", "score_1")]
        difference = scores[0] - scores[1]
        if not math.isfinite(difference):
            raise AssentError("no score")
        replies = {key: Reply(Completion(read_text(row, key)), f"imported:{source}") for key in ANSWERS}
        layout = lay_out(chat_prompt({}, user_turn(read_text(require_object(row, "question"), "full_text"))), replies)
        strength = min(3, max(1, math.ceil(3 * abs(difference) / 2)))
        annotation = Annotation(preferred=int(difference < 0), strength=strength)
        yield Remark(AS_CHAT)
        yield Remark(STRENGTH)
        yield from to_feedback(
            layout, annotation if difference else Annotation(verdict="tie"), Provenance(f"imported:{source}")
        )
