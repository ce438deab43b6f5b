"""Columns about the two sides of a preference: who wrote them, their scores, who judged them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from assent.errors import AssentError
from assent.formats import Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, to_feedback
from assent.formats.files.columns import describes_side, key_words
from assent.formats.files.fields import read_text
from assent.formats.files.layout import Reply, lay_out
from assent.records import Message, Preference, Prompt, Purpose

SIDES = ("chosen", "rejected")
PROMPT_KEYS = ("prompt", "question", "query", "input", "instruction")
"""Columns that hold the prompt of two texts; the first one present does."""
POLICY_WORDS = frozenset(("model", "policy"))
SCORE_WORDS = frozenset(("score", "scores", "rating", "ratings", "avg", "average", "mean", "reward", "rewards"))
EQUAL_SCORES = "the scores of both sides are equal: stored as a tie"
LOWER_SCORE = "the chosen side has the lower score: the columns 'chosen' and 'rejected' count"
AS_CHAT = "the prompt is text without a template: read as a user's turn"
BENCHMARK = (
    "the row is of a benchmark: its purpose is 'evaluate'; keep it in a run of its own, for it is not to train on"
)
BENCHMARK_KEYS = frozenset(("id", "prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"))


class KnownSet(NamedTuple):
    """A public data set of preferences that its columns give away."""

    name: str
    keys: frozenset[str]
    annotator: str = ""
    """Who judged, by its data card; empty: a column says it."""
    copies: frozenset[str] = frozenset()
    """Columns that repeat the responses or their scores."""
    is_exact: bool = False
    """Whether it has no other columns, and whole conversations on both sides."""

    def matches(self, row: Row) -> bool:
        if self.is_exact:
            return row.keys() == self.keys and isinstance(row["chosen"], list)
        return row.keys() >= self.keys


KNOWN_SETS = (
    # hf.co/datasets/HuggingFaceH4/ultrafeedback_binarized; trl-lib/ultrafeedback_binarized
    KnownSet(
        "UltraFeedback binarized",
        frozenset(("prompt", "prompt_id", "messages", "chosen", "rejected", "score_chosen", "score_rejected")),
        "ai:gpt-4",
        frozenset(("messages",)),
    ),
    KnownSet(
        "UltraFeedback binarized",
        frozenset(("chosen", "rejected", "score_chosen", "score_rejected")),
        "ai:gpt-4",
        is_exact=True,
    ),
    # hf.co/datasets/argilla/ultrafeedback-binarized-preferences, and -cleaned
    KnownSet(
        "UltraFeedback binarized by Argilla",
        frozenset(("instruction", "chosen_response", "rejected_response", "chosen_avg_rating", "rejected_avg_rating")),
        "ai:gpt-4",
    ),
    KnownSet(
        "UltraFeedback binarized by Argilla",
        frozenset(("chosen", "rejected", "chosen-rating", "rejected-rating", "chosen-model", "rejected-model")),
        "ai:gpt-4",
    ),
    # hf.co/datasets/argilla/distilabel-capybara-dpo-7k-binarized
    KnownSet(
        "Capybara DPO",
        frozenset(("chosen", "rejected", "rating_chosen", "rating_rejected", "new_generations")),
        "ai:gpt-4",
        frozenset(
            ("conversation", "original_response", "generation_prompt", "raw_generation_responses", "new_generations")
        ),
    ),
    # hf.co/datasets/argilla/dpo-mix-7k
    KnownSet(
        "dpo-mix-7k",
        frozenset(("dataset", "chosen", "rejected", "chosen_rating", "rejected_rating")),
        "ai:gpt-4",
        is_exact=True,
    ),
    # hf.co/datasets/argilla/distilabel-intel-orca-dpo-pairs: `labelling_model` names the judge
    KnownSet(
        "Intel Orca DPO of Argilla",
        frozenset(("chosen", "rejected", "generations", "labelling_model", "status")),
        copies=frozenset(
            (
                *("generations", "order", "labelling_prompt", "raw_labelling_response", "rating", "chosen_score"),
                *("original_chosen", "original_rejected"),
            )
        ),
    ),
    # hf.co/datasets/snorkelai/Snorkel-Mistral-PairRM-DPO-Dataset
    KnownSet(
        "Snorkel's pairs of PairRM",
        frozenset(("chosen", "rejected", "all_generated_responses", "all_rm_scores")),
        "ai:pairrm",
        frozenset(("all_generated_responses", "all_rm_scores")),
    ),
)
ASSUMED_ANNOTATORS = frozenset(data_set.annotator for data_set in KNOWN_SETS if data_set.annotator)
READ_KEYS = frozenset(("system", "labelling_model", "rationale", "status", "chosen_response", "rejected_response"))
"""Keys that only some rows of preferences have: exports write meta of such a name in one object."""


def system_keys(row: Row) -> set[str]:
    """Return the column of the system's message, if it holds a text."""
    return {"system"} if isinstance(row.get("system"), str | None) else set()


def with_system(prompt: Prompt, row: Row) -> Prompt:
    """Return a conversation that begins with the system's message of its row, if that has one."""
    system = row.get("system")
    if not system or not isinstance(system, str) or prompt.is_plain or prompt.messages[0] == Message("system", system):
        return prompt
    if prompt.messages[0].role == "system":
        raise AssentError("'system' differs from the first message of the conversation")
    return replace(prompt, messages=(Message("system", read_text(row, "system")), *prompt.messages))


def known_set(row: Row) -> KnownSet | None:
    """Return the data set that a row is of, if its columns give it away."""
    return next((data_set for data_set in KNOWN_SETS if data_set.matches(row)), None)


def side_keys(row: Row) -> set[str]:
    """Return the columns about the sides that `judge_sides` keeps."""
    data_set = known_set(row)
    judge_keys = {"labelling_model", "rationale", "status"} if data_set and not data_set.annotator else set()
    return judge_keys | set(_policy_keys(row).values())


def copied_columns(row: Row) -> set[str]:
    """Return the columns that repeat the responses or their scores."""
    data_set = known_set(row)
    copies = {key for key in ("messages", "response") if key in row and row[key] == row.get("chosen")}
    return copies | (set(data_set.copies) if data_set else set())


def judge_sides(row: Row, source: str, preference: Preference) -> Iterator[Preference | TaskWithJudgements | Remark]:
    """Yield a preference; with its policies and its annotator, where columns tell them."""
    data_set = known_set(row)
    pairs = _score_pairs(row) if row.get("p_chosen") is None else []
    if _is_tie(row, data_set) or (pairs and all(chosen == rejected for chosen, rejected in pairs)):
        preference = replace(preference, p_chosen=0.5, margin=0.0)
        yield Remark(EQUAL_SCORES)
    elif any(chosen < rejected for chosen, rejected in pairs):
        yield Remark(LOWER_SCORE)
    annotator = _judge(row, data_set)
    if data_set and data_set.annotator:
        yield Remark(f"the columns are those of {data_set.name}, judged by {annotator}; --annotator names another")
    purpose: Purpose = "evaluate" if is_benchmark(row) else "train"
    if purpose != "train":
        yield Remark(BENCHMARK)
    policies = {side: read_text(row, key) for side, key in _policy_keys(row).items()}
    if not (annotator or policies):
        yield preference
        return
    default = f"imported:{source}"
    sides = {"chosen": preference.chosen, "rejected": preference.rejected}
    replies = {side: Reply(completion, policies.get(side, default)) for side, completion in sides.items()}
    layout = lay_out(preference.prompt, replies, purpose=purpose)
    has_rationale = data_set is not None and not data_set.annotator and row.get("rationale")
    annotation = replace(_to_annotation(preference), comment=read_text(row, "rationale") if has_rationale else "")
    for judged in to_feedback(layout, annotation, Provenance(annotator or default)):
        row_id = str(row.get("id") or "")
        # The id of a row may be that of its prompt: only an equal judgement under an equal id is a repetition.
        yield judged._replace(origin_id=f"{row_id} {judged.feedback[0].id}" if row_id else "")


def is_benchmark(row: Row) -> bool:
    """Return whether a row has the columns of RewardBench (arXiv:2403.13787)."""
    return row.keys() == BENCHMARK_KEYS and isinstance(row["chosen"], str)


def _to_annotation(preference: Preference) -> Annotation:
    p_chosen = float(preference.p_chosen)
    weight = float(preference.weight)
    if p_chosen == 0.5:
        return Annotation(verdict="tie", weight=weight)  # a tie has no margin
    preferred = int(p_chosen < 0.5)
    return Annotation(preferred, certainty=max(p_chosen, 1 - p_chosen), margin=float(preference.margin), weight=weight)


def _judge(row: Row, data_set: KnownSet | None) -> str:
    if data_set is None:
        return ""
    model = row.get("labelling_model")
    return data_set.annotator or (f"ai:{model}" if isinstance(model, str) and model else "")


def _is_tie(row: Row, data_set: KnownSet | None) -> bool:
    return data_set is not None and not data_set.annotator and row.get("status") == "tie"


def _policy_keys(row: Row) -> dict[str, str]:
    """Return the columns that name the model of a side, such as `chosen_model` or `rejected-policy`."""
    keys: dict[str, str] = {}
    for key, value in row.items():
        words = key_words(key)
        if isinstance(value, str) and value and describes_side(words) and words - set(SIDES) <= POLICY_WORDS:
            keys[next(side for side in SIDES if side in words)] = key
    return keys


def _score_pairs(row: Row) -> list[tuple[float, float]]:
    """Return the scores of both sides, in columns whose names differ in the side alone."""
    by_name: dict[frozenset[str], dict[str, Any]] = {}
    for key, value in row.items():
        words = key_words(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
        if is_number and describes_side(words) and words - set(SIDES) <= SCORE_WORDS:
            by_name.setdefault(words - set(SIDES), {})[next(s for s in SIDES if s in words)] = value
    return [(pair["chosen"], pair["rejected"]) for pair in by_name.values() if len(pair) == 2]
