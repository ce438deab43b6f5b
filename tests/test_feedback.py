"""Kinds of judgement, and the training examples that they become."""

import dataclasses
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assent import feedback, registry
from assent.errors import AssentError
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.preferences import convert
from assent.records import (
    Completion,
    Example,
    Feedback,
    Judgement,
    Preference,
    Prompt,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    Task,
    implied_source,
    independent_pairs,
    unit_hash,
)
from assent.registry import name_of
from assent.split import split

PROMPT = Prompt.ask("Which is the largest planet?")
ITEMS = tuple(Response(PROMPT.id, text, "sft") for text in ("Jupiter.", "Saturn.", "Mars.", "The Moon."))
A, B, C, D = (item.id for item in ITEMS)
JUDGEMENTS: dict[str, Judgement] = {
    "comparison": Comparison(A, 2),
    "ranking": Ranking(((A,), (B, C))),
    "rating": Rating((("helpful", 6), ("honest", 3.5))),
    "approval": Approval(True),
    "critique": Critique("It is a satellite.", "The Moon"),
    "correction": Correction("Jupiter, by far."),
    "demonstration": Demonstration("Jupiter."),
}


def examples_of(judgement: Judgement, *items: str, weight: float = 1.0) -> tuple[Example, ...]:
    task = Task(name_of(judgement), PROMPT.id, items)
    event = Feedback(task.id, "ann", judgement, "", id="f1")
    responses = {item.id: item for item in ITEMS}
    return feedback.check(judgement, task).examples(task, PROMPT, responses, event, weight)


def pairs(examples: tuple[Example, ...]) -> list[tuple[str, str]]:
    return [(example.chosen.text, example.rejected.text) for example in examples if isinstance(example, Preference)]


@pytest.mark.parametrize("kind", registry.names("feedback"))
def test_every_kind_is_frozen_and_round_trips_as_json(kind: str) -> None:
    judgement: Any = JUDGEMENTS[kind]
    assert type(judgement) is registry.resolve("feedback", kind)
    parameters = list(inspect.signature(judgement.examples).parameters)
    assert parameters == ["task", "prompt", "responses", "feedback", "weight"]
    assert feedback.parse(kind, json.loads(json.dumps(feedback.to_values(judgement)))) == judgement
    assert feedback.default_question(kind).endswith(("?", "."))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(judgement, dataclasses.fields(judgement)[0].name, None)


def test_feedback_imports_without_torch_or_transformers() -> None:
    modules = ", ".join(
        [
            "assent.preferences.convert",
            "assent.formats.files.exporting",
            "assent.formats.files.importing",
            *(f"assent.feedback.{kind}" for kind in JUDGEMENTS),
        ]
    )
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'transformers', 'alembic'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_comparison_ignores_the_side_of_the_screen() -> None:
    expected = (Preference(PROMPT, Completion("Saturn."), Completion("Jupiter."), feedback_ids=("f1",)),)
    assert examples_of(Comparison(B), A, B) == examples_of(Comparison(B), B, A) == expected


def test_comparison_strength_gives_a_margin_on_request() -> None:
    assert examples_of(Comparison(A, 3), A, B) == examples_of(Comparison(A, 1), A, B)
    task = Task("comparison", PROMPT.id, (A, B))
    events = [
        Feedback(task.id, annotator, judgement, "") for annotator, judgement in (("x", Comparison(A, 3)), ("y", TIE))
    ]
    examples = convert.to_examples(events, [task], [PROMPT], ITEMS, margin=0.5)
    assert [example.margin for example in examples if isinstance(example, Preference)] == [1.5, 0.0]


TIE = Comparison(verdict="tie")


def test_tie_is_half_a_win_for_each() -> None:
    assert examples_of(TIE, A, B) == (
        Preference(PROMPT, Completion("Jupiter."), Completion("Saturn."), p_chosen=0.5, feedback_ids=("f1",)),
    )


def test_both_bad_is_two_scores_of_zero() -> None:
    texts = ("Mars.", "The Moon.")
    assert examples_of(Comparison(verdict="both bad"), C, D, weight=0.5) == tuple(
        ScoredCompletion(PROMPT, Completion(text), 0.0, 0.5, ("f1",)) for text in texts
    )


def test_cannot_tell_becomes_no_example() -> None:
    assert examples_of(Comparison(verdict="cannot tell"), A, B) == ()


def test_ranking_makes_pairs_across_tiers_only() -> None:
    (ranked,) = examples_of(Ranking(((A,), (B, C))), A, B, C)
    assert isinstance(ranked, RankedCompletions) and [len(tier) for tier in ranked.tiers] == [1, 2]
    examples = ranked.preferences
    assert pairs(examples) == [("Jupiter.", "Saturn."), ("Jupiter.", "Mars.")]
    assert [example.weight for example in examples] == pytest.approx(
        [7 / 9, 7 / 9]
    )  # 2.333 pairs of information over 3 pairs


# 2 sum_{m=2..k} (1 - 1/m): 1, + 4/3, + 3/2, + 8/5, + 5/3.
@pytest.mark.parametrize(("k", "num_pairs"), [(2, 1.0), (3, 2.33), (4, 3.83), (5, 5.43), (6, 7.10)])
def test_independent_pairs_of_a_full_ranking(k: int, num_pairs: float) -> None:
    assert independent_pairs(k) == pytest.approx(num_pairs, abs=0.005)


def test_ranking_weights_sum_to_independent_pairs() -> None:
    (ranked,) = examples_of(Ranking(((D,), (C,), (B,), (A,))), A, B, C, D, weight=0.5)
    assert isinstance(ranked, RankedCompletions)
    examples = ranked.preferences
    assert len(examples) == 6
    assert sum(example.weight for example in examples) == pytest.approx(0.5 * 2 * (1 / 2 + 2 / 3 + 3 / 4))


def test_ranking_may_leave_out_items() -> None:
    (ranked,) = examples_of(Ranking(((A,), (B,))), A, B, C)
    assert isinstance(ranked, RankedCompletions)
    examples = ranked.preferences
    assert pairs(examples) == [("Jupiter.", "Saturn.")]
    assert examples[0].weight == 1.0


def test_rating_is_the_mean_of_its_axes_in_any_order() -> None:
    assert examples_of(Rating((("honest", 3), ("helpful", 6))), A) == (
        ScoredCompletion(PROMPT, Completion("Jupiter."), 3.5 / 6, 1.0, ("f1",)),
    )
    assert Rating((("honest", 3), ("helpful", 6))) == Rating((("helpful", 6), ("honest", 3)))
    assert feedback.parse("rating", {"axes": {"helpful": 6}}) == Rating((("helpful", 6),))


def test_approval_is_a_score_of_one_or_zero() -> None:
    values = [
        example.value
        for up in (True, False)
        for example in examples_of(Approval(up), A)
        if isinstance(example, ScoredCompletion)
    ]
    assert values == [1.0, 0.0]


def test_correction_is_imitated_and_preferred() -> None:
    assert examples_of(Correction("Jupiter."), D) == (
        SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),
        Preference(PROMPT, Completion("Jupiter."), Completion("The Moon."), feedback_ids=("f1",)),
    )


def test_unchanged_correction_is_no_preference() -> None:
    assert examples_of(Correction("Jupiter."), A) == (SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),)


def test_correction_keeps_reasoning_and_tool_calls() -> None:
    called = Response(PROMPT.id, "Mars.", "sft", extra={"reasoning_content": "A big one.", "tool_calls": [{"a": 1}]})
    task = Task("correction", PROMPT.id, (called.id,))

    def examples(text: str) -> tuple[Example, ...]:
        event = Feedback(task.id, "ann", Correction(text), "", id="f1")
        return Correction(text).examples(task, PROMPT, {called.id: called}, event, 1.0)

    mended = Completion("Jupiter.", extra=called.extra)
    assert examples("Jupiter.") == (
        SFTExample(PROMPT, mended, 1.0, ("f1",)),
        Preference(PROMPT, mended, called.completion, feedback_ids=("f1",)),
    )
    assert examples("Mars.") == (SFTExample(PROMPT, called.completion, 1.0, ("f1",)),)


def test_demonstration_is_imitated_critique_is_not() -> None:
    assert examples_of(Demonstration("Jupiter.")) == (SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),)
    assert examples_of(Critique("Too short."), A) == ()


BROKEN: tuple[tuple[str, Any, str], ...] = (
    ("comparison", {}, "'better' alone names an item"),
    ("comparison", {"preferred": "a", "verdict": "tie"}, "'better' alone names an item"),
    ("comparison", {"preferred": "a", "strength": 4}, "1, 2 or 3, not 4"),
    ("comparison", {"preferred": "a", "strength": True}, "1, 2 or 3, not True"),
    ("comparison", {"preferred": 1}, "is an id, not 1"),
    ("comparison", {"verdict": "ties"}, "did you mean 'tie'"),
    ("comparison", {"prefered": "a"}, "did you mean 'preferred'"),
    ("comparison", ["a"], "not list"),
    ("comparisons", {"preferred": "a"}, "did you mean 'comparison'"),
    ("ranking", {"tiers": [["a"]]}, "two items or more"),
    ("ranking", {"tiers": [["a"], ["a"]]}, "each once"),
    ("ranking", {"tiers": [["a", "b"], []]}, "none of them empty"),
    ("ranking", {"tiers": ["ab", "cd"]}, "tiers of item ids"),
    ("ranking", {"tiers": [[1], [2]]}, "by their ids"),
    ("rating", {"axes": {}}, "at least one"),
    ("rating", {"axes": {"helpful": 8}}, "from 1 to 7, not 8"),
    ("rating", {"axes": {"helpful": float("nan")}}, "from 1 to 7, not nan"),
    ("rating", {"axes": {"helpful": "5"}}, "from 1 to 7, not '5'"),
    ("rating", {"axes": [["a", 1], ["a", 2]]}, "each axis once"),
    ("approval", {"approved": 1}, "true or false, not 1"),
    ("approval", {}, "needs 'approved'"),
    ("critique", {"text": " "}, "a critique is a text"),
    ("critique", {"text": "Yes", "quote": 3}, "is text, not 3"),
    ("correction", {"text": ""}, "is a text"),
    ("demonstration", {"text": None}, "is a text"),
)


@pytest.mark.parametrize(("kind", "values", "message"), BROKEN)
def test_invalid_judgement_is_refused_with_the_reason(kind: str, values: Any, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        feedback.parse(kind, values)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task("ranking", PROMPT.id, (A, B)), "asks for a ranking, not for a comparison"),
        (Task("comparison", PROMPT.id, (A, B, C)), "shows 3 items"),
        (Task("comparison", PROMPT.id, (A, A)), "shows 2 items, which no comparison can judge"),
        (Task("comparison", PROMPT.id, (B, C)), f"did not show item '{A}'"),
    ],
)
def test_judgement_of_another_task_is_refused(task: Task, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        feedback.check(Comparison(A), task)


def convert_all(events: list[Feedback], *tasks: Task, **options: Any) -> list[Example]:
    return convert.to_examples(events, tasks, [PROMPT], ITEMS, **options)


TASK = Task("comparison", PROMPT.id, (A, B))
FIRST = Feedback(TASK.id, "ann", Comparison(A), "2026-11-20T10:00:00Z")


def test_examples_name_their_annotator() -> None:
    events = [replace(FIRST, id="", annotator=name) for name in ("ann", "bob")]
    assert [example.annotator for example in convert_all(events, TASK)] == ["ann", "bob"]
    (ranked,) = examples_of(Ranking(((A,), (B,))), A, B)
    assert isinstance(ranked, RankedCompletions) and [pair.annotator for pair in ranked.preferences] == ["ann"]
    judgements = (Comparison(A), Comparison(verdict="both bad"), Rating((("overall", 3),)), Approval(True))
    assert {
        example.annotator for judgement in judgements for example in examples_of(judgement, *item_ids(judgement))
    } == {"ann"}
    assert {example.annotator for example in examples_of(Correction("Mars."), A)} == {"ann"}
    assert {example.annotator for example in examples_of(Demonstration("Mars."))} == {"ann"}


def item_ids(judgement: Judgement) -> tuple[str, ...]:
    return (A, B) if isinstance(judgement, Comparison) else (A,)


def test_simulated_feedback_counts_if_no_human_judged() -> None:
    high = Task("comparison", PROMPT.id, (A, C))
    simulated = [Feedback(task.id, "sim", Comparison(A), "", source="simulated") for task in (TASK, high)]
    assert [example.feedback_ids for example in convert_all([*simulated, FIRST], TASK, high)] == [
        (simulated[1].id,),
        (FIRST.id,),
    ]


@pytest.mark.parametrize(
    ("annotator", "source"),
    [
        ("ann", "human"),
        ("ann: the first", "human"),
        ("ai", "human"),
        ("simulated:low_noise", "simulated"),
        ("ai:qwen", "model"),
        ("judge:conciseness_rubric", "scorer"),
    ],
)
def test_source_of_old_feedback_is_implied_by_its_prefix(annotator: str, source: str) -> None:
    assert implied_source(annotator) == source


def test_superseded_feedback_is_left_out() -> None:
    second = Feedback(TASK.id, "ann", Comparison(B), "2026-11-20T10:01:00Z", supersedes=FIRST.id)
    third = Feedback(TASK.id, "ann", TIE, "2026-11-20T10:02:00Z", supersedes=second.id)
    assert [example.feedback_ids for example in convert_all([FIRST, second, third], TASK)] == [(third.id,)]


def test_example_weights_follow_annotator_reliability() -> None:
    events = [Feedback(TASK.id, annotator, Comparison(A), "") for annotator in ("ann", "bob", "cat")]
    assert [example.weight for example in convert_all(events, TASK, weights={"ann": 0.25, "bob": 0.0})] == [0.25, 1.0]
    with pytest.raises(AssentError, match="weight of annotator 'ann' is -1"):
        convert_all(events, TASK, weights={"ann": -1})


def test_gold_and_evaluation_tasks_are_not_trained_on() -> None:
    gold = Task("comparison", PROMPT.id, (A, B), purpose="gold")
    events = [Feedback(gold.id, "ann", Comparison(A), ""), FIRST]
    assert [example.feedback_ids for example in convert_all(events, gold, TASK)] == [(FIRST.id,)]
    assert [example.feedback_ids for example in convert_all(events, gold, TASK, purpose="gold")] == [(events[0].id,)]


def test_feedback_without_its_task_or_items_is_an_error() -> None:
    with pytest.raises(AssentError, match=f"about task '{TASK.id}'"):
        convert_all([FIRST])
    with pytest.raises(AssentError, match=f"about item '{B}'"):
        convert.to_examples([FIRST], [TASK], [PROMPT], ITEMS[:1])
    with pytest.raises(AssentError, match=f"about prompt '{PROMPT.id}'"):
        convert.to_examples([FIRST], [TASK], [], ITEMS)


def make_prompts(count: int) -> Iterator[Prompt]:
    return (Prompt.ask(f"question {number}") for number in range(count))


def test_split_is_the_sha256_of_the_prompt_id() -> None:
    train, held_out = split(make_prompts(2000), 0.1)
    assert len(train) + len(held_out) == 2000
    assert 160 <= len(held_out) <= 240  # 200 +- 3 standard deviations
    share = 0.1 * 2**64
    assert all(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < share for name in held_out)


def test_unit_hash_is_the_first_bytes_of_the_sha256() -> None:
    digest = hashlib.sha256(b"a 1 b").digest()
    assert unit_hash("a", 1, "b") == int.from_bytes(digest[:8], "big") / 2**64
    assert unit_hash("a", 1, "b", num_bytes=6) == int.from_bytes(digest[:6], "big") / 2**48
    assert unit_hash("a", 1, "b") == unit_hash("a 1 b") != unit_hash("a", 1, "b", separator="\n")


@given(st.sets(st.text(max_size=20), max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_split_of_a_prompt_ignores_other_prompts(texts: set[str], low: float, high: float) -> None:
    prompts = [Prompt.ask(text) for text in sorted(texts)]
    small, large = sorted((low, high))
    whole = split([*make_prompts(50), *prompts, *prompts], small)
    alone = [split([prompt], small) for prompt in prompts]
    assert all(
        (prompt.id in whole.held_out) == (prompt.id in example.held_out)
        for prompt, example in zip(prompts, alone, strict=True)
    )
    assert whole.held_out <= split([*prompts, *make_prompts(50)], large).held_out


def test_split_refuses_a_fraction_above_one() -> None:
    with pytest.raises(AssentError, match="between 0 and 1"):
        split([], 10)
