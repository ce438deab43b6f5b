"""Stanford Human Preferences: two comments on a Reddit or StackExchange post, of which readers voted one higher.

Ethayarajh et al. 2022 (arXiv:2110.08420); card: https://huggingface.co/datasets/stanfordnlp/SHP.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_text, require, user_turn
from assent.formats.files.layout import Reply, lay_out
from assent.formats.files.sides import AS_CHAT
from assent.records import Completion

SIDES = ("human_ref_A", "human_ref_B")
POLICY = "human"
VOTES = "votes of many readers: they count as one annotator, and their ratio as no strength"


@dataclass(frozen=True)
class SHP(Format):
    """`labels` is 1 if A is the better; both comments have the policy `human`."""

    known_keys: ClassVar[frozenset[str]] = frozenset(("history", "labels", *SIDES))

    def match_score(self, row: Row) -> int:
        return 2 * count_keys(row, "history", "labels", *SIDES)

    def discarded_keys(self, row: Row) -> Collection[str]:
        numbered = [f"{key}_{side}" for key in ("c_root_id", "created_at_utc", "score") for side in "AB"]
        return (*numbered, "upvote_ratio", "seconds_difference", "score_ratio")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        label = require(row, "labels")
        if isinstance(label, bool) or label not in (0, 1):
            raise AssentError(f"'labels' is {label!r}, not 1 for A or 0 for B")
        replies = {side: Reply(Completion(read_text(row, side)), POLICY) for side in SIDES}
        layout = lay_out(chat_prompt({}, user_turn(read_text(row, "history"))), replies)
        yield Remark(AS_CHAT)
        yield Remark(VOTES)
        yield from to_feedback(layout, Annotation(preferred=int(label == 0)), Provenance(f"imported:{source}"))
