"""Several completions of a prompt and their ranks: the lowest is the best, equal ranks are ties.

Also the columns of Nectar (hf.co/datasets/berkeley-nest/Nectar) and of RewardBench 2 (arXiv:2506.01937,
hf.co/datasets/allenai/reward-bench-2).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.fields import (
    EXAMPLE_KEYS,
    chat_prompt,
    completion_value,
    count_keys,
    prompt_value,
    read_completion,
    read_number,
    read_prompt,
    read_text,
    read_weight,
    require,
    require_distinct,
    require_prompt_text,
    user_turn,
    weight_field,
)
from assent.formats.files.layout import Reply, lay_out, rank_replies
from assent.formats.files.sides import AS_CHAT, BENCHMARK
from assent.formats.files.transcripts import read_open_transcript
from assent.records import Completion, RankedCompletions

NECTAR_KEYS = frozenset(("prompt", "answers", "num_responses", "good_natured"))
NECTAR_JUDGE = "ai:gpt-4"
JUDGED_BY = f"the columns are those of Nectar, judged by {NECTAR_JUDGE}; --annotator names another"
EQUAL_ANSWERS = "equal answers of several models count as one, with their best rank"


@dataclass(frozen=True)
class Ranking(Format):
    """Ranks are in the order of the completions; `answers` have theirs beside them; `chosen` may be a list of texts."""

    record_types: ClassVar[tuple[type, ...]] = (RankedCompletions,)
    known_keys: ClassVar[frozenset[str]] = EXAMPLE_KEYS | {"completions", "ranks"}
    assumed_annotators: ClassVar[frozenset[str]] = frozenset((NECTAR_JUDGE,))

    def match_score(self, row: Row) -> int:
        is_other = _has_answers(row) or _has_text_lists(row)
        return 4 if is_other else count_keys(row, "prompt", "completions", "ranks")

    def unread_fields(self, row: Row) -> Row:
        sides = {"answers"} if _has_answers(row) else {"chosen", "rejected"} if _has_text_lists(row) else set()
        read_keys = {*self.known_keys, *sides}
        return {key: value for key, value in row.items() if key not in read_keys} if self.match_score(row) else {}

    def decode(self, row: Row, source: str) -> Iterable[RankedCompletions | TaskWithJudgements | Remark]:
        if _has_answers(row):
            return _of_answers(row, source)
        if _has_text_lists(row):
            return _of_text_lists(row, source)
        prompt = require_prompt_text(read_prompt(row))
        completions = require(row, "completions")
        ranks = require(row, "ranks")
        is_list = isinstance(completions, list) and isinstance(ranks, list)
        if not is_list or not len(completions) == len(ranks) > 1:
            raise AssentError("'completions' and 'ranks' are not two lists of the same length, at least two")
        if not all(type(rank) in (int, float) and math.isfinite(rank) for rank in ranks):
            raise AssentError(f"'ranks' is {ranks!r}, not a list of numbers")
        replies = [read_completion({"completions": value}, "completions", prompt) for value in completions]
        require_distinct(replies)
        tiers: dict[float, list[Completion]] = {rank: [] for rank in sorted(set(ranks))}
        for reply, rank in zip(replies, ranks, strict=True):
            tiers[rank].append(reply)
        return (RankedCompletions(prompt, tuple(map(tuple, tiers.values())), read_weight(row)),)

    def encode(self, record: RankedCompletions) -> Iterable[Row]:
        completions = [completion_value(record.prompt, completion) for tier in record.tiers for completion in tier]
        ranks = [rank for rank, tier in enumerate(record.tiers, 1) for _ in tier]
        sides = {"completions": completions, "ranks": ranks}
        return ({"prompt": prompt_value(record.prompt), **sides, **weight_field(record)},)


def _has_answers(row: Row) -> bool:
    """Return whether a row is one of Nectar: answers, each with its model and its rank."""
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not isinstance(row.get("prompt"), str):
        return False
    return all(isinstance(entry, dict) and {"answer", "rank"} <= entry.keys() for entry in answers)


def _has_text_lists(row: Row) -> bool:
    """Return whether a row is one of RewardBench 2: good and bad completions, each in a list."""
    return isinstance(row.get("prompt"), str) and all(map(_is_text_list, (row.get("chosen"), row.get("rejected"))))


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)


def _of_answers(row: Row, source: str) -> Iterator[TaskWithJudgements | Remark]:
    turns = read_open_transcript(read_text(row, "prompt"))
    prompt = chat_prompt(row, turns) if turns else read_prompt(row)
    ranked = [
        (
            read_number(entry, "rank", math.inf),
            Reply(Completion(read_text(entry, "answer")), str(entry.get("model") or f"imported:{source}")),
        )
        for entry in row["answers"]
    ]
    replies, tiers = rank_replies(ranked)
    if len(replies) < len(ranked):
        yield Remark(EQUAL_ANSWERS)
    is_nectar = row.keys() >= NECTAR_KEYS
    yield from [Remark(JUDGED_BY)] if is_nectar else []
    annotation = Annotation(tiers=tiers, weight=float(read_weight(row)))
    provenance = Provenance(NECTAR_JUDGE if is_nectar else f"imported:{source}")
    yield from to_feedback(lay_out(prompt, replies), annotation, provenance)


def _of_text_lists(row: Row, source: str) -> Iterator[TaskWithJudgements | Remark]:
    is_benchmark = "num_correct" in row and "subset" in row
    ranked = [
        (float(rank), Reply(Completion(read_text({key: text}, key)), f"imported:{source}"))
        for rank, key in enumerate(("chosen", "rejected"))
        for text in row[key]
    ]
    replies, tiers = rank_replies(ranked)
    prompt = chat_prompt(row, user_turn(read_text(row, "prompt")))
    yield Remark(AS_CHAT)
    yield from [Remark(BENCHMARK)] if is_benchmark else []
    layout = lay_out(prompt, replies, purpose="evaluate" if is_benchmark else "train")
    yield from to_feedback(layout, Annotation(tiers=tiers), Provenance(f"imported:{source}"))
