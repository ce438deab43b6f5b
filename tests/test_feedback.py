"""What people say, and what becomes of it."""

import dataclasses
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
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
    independent_pairs,
)
from assent.registry import name_of
from assent.split import split

PROMPT = Prompt.ask("Which is the largest planet?")
ITEMS = tuple(Response(PROMPT.id, text, "sft") for text in ("Jupiter.", "Saturn.", "Mars.", "The Moon."))
A, B, C, D = (item.id for item in ITEMS)
ANSWERS: dict[str, Judgement] = {
    "comparison": Comparison(A, 2),
    "ranking": Ranking(((A,), (B, C))),
    "rating": Rating((("helpful", 6), ("honest", 3.5))),
    "approval": Approval(True),
    "critique": Critique("It is a satellite.", "The Moon"),
    "correction": Correction("Jupiter, by far."),
    "demonstration": Demonstration("Jupiter."),
}


def say(answer: Judgement, *items: str, weight: float = 1.0) -> tuple[Example, ...]:
    query = Task(name_of(answer), PROMPT.id, items)
    return feedback.check(answer, query).examples(query, PROMPT, {item.id: item for item in ITEMS}, "f1", weight)


def pairs(examples: tuple[Example, ...]) -> list[tuple[str, str]]:
    return [(each.chosen.text, each.rejected.text) for each in examples if isinstance(each, Preference)]


@pytest.mark.parametrize("kind", registry.names("feedback"))
def test_every_file_is_a_frozen_kind_that_goes_through_json_unchanged(kind: str) -> None:
    answer: Any = ANSWERS[kind]
    assert type(answer) is registry.resolve("feedback", kind)
    assert list(inspect.signature(answer.examples).parameters) == [
        "query",
        "prompt",
        "responses",
        "feedback_id",
        "weight",
    ]
    assert feedback.parse(kind, json.loads(json.dumps(feedback.body(answer)))) == answer
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(answer, dataclasses.fields(answer)[0].name, None)


def test_what_people_say_loads_without_torch_or_transformers() -> None:
    modules = ", ".join(
        [
            "assent.preferences.convert",
            "assent.formats.files.exchange",
            *(f"assent.feedback.{kind}" for kind in ANSWERS),
        ]
    )
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'transformers', 'alembic'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_comparison_prefers_one_item_whichever_side_it_stood_on() -> None:
    expected = (Preference(PROMPT, Completion("Saturn."), Completion("Jupiter."), feedback_ids=("f1",)),)
    assert say(Comparison(B), A, B) == say(Comparison(B), B, A) == expected


def test_the_strength_of_a_comparison_gives_no_margin_unless_asked_for() -> None:
    assert say(Comparison(A, 3), A, B) == say(Comparison(A, 1), A, B)
    query = Task("comparison", PROMPT.id, (A, B))
    events = [Feedback(query.id, who, answer, "") for who, answer in (("x", Comparison(A, 3)), ("y", TIE))]
    made = convert.examples(events, [query], [PROMPT], ITEMS, margin=0.5)
    assert [each.margin for each in made if isinstance(each, Preference)] == [1.5, 0.0]


TIE = Comparison(verdict="tie")


def test_a_tie_is_half_a_win_for_each() -> None:
    assert say(TIE, A, B) == (
        Preference(PROMPT, Completion("Jupiter."), Completion("Saturn."), p_chosen=0.5, feedback_ids=("f1",)),
    )


def test_both_bad_is_two_labels_of_nought_and_no_preference() -> None:
    texts = ("Mars.", "The Moon.")
    assert say(Comparison(verdict="both bad"), C, D, weight=0.5) == tuple(
        ScoredCompletion(PROMPT, Completion(text), 0.0, 0.5, ("f1",)) for text in texts
    )


def test_who_cannot_tell_trains_nobody() -> None:
    assert say(Comparison(verdict="cannot tell"), A, B) == ()


def test_a_ranking_with_a_tie_makes_pairs_across_tiers_only() -> None:
    (ranked,) = say(Ranking(((A,), (B, C))), A, B, C)
    assert isinstance(ranked, RankedCompletions) and [len(tier) for tier in ranked.tiers] == [1, 2]
    made = ranked.preferences
    assert pairs(made) == [("Jupiter.", "Saturn."), ("Jupiter.", "Mars.")]
    assert [each.weight for each in made] == pytest.approx([7 / 9, 7 / 9])  # 2.333 pairs of information over 3 pairs


@pytest.mark.parametrize(("k", "worth"), [(2, 1.0), (3, 2.33), (4, 3.83), (5, 5.43), (6, 7.10)])
def test_a_full_ranking_is_worth_fewer_pairs_than_it_makes(k: int, worth: float) -> None:
    assert independent_pairs(k) == pytest.approx(worth, abs=0.005)


def test_the_weights_of_a_full_ranking_add_up_to_what_it_tells() -> None:
    (ranked,) = say(Ranking(((D,), (C,), (B,), (A,))), A, B, C, D, weight=0.5)
    assert isinstance(ranked, RankedCompletions)
    made = ranked.preferences
    assert len(made) == 6
    assert sum(each.weight for each in made) == pytest.approx(0.5 * 2 * (1 / 2 + 2 / 3 + 3 / 4))


def test_an_item_left_out_of_a_ranking_was_not_judged() -> None:
    (ranked,) = say(Ranking(((A,), (B,))), A, B, C)
    assert isinstance(ranked, RankedCompletions)
    made = ranked.preferences
    assert pairs(made) == [("Jupiter.", "Saturn.")]
    assert made[0].weight == 1.0


def test_a_rating_is_the_mean_of_its_axes_in_any_order() -> None:
    assert say(Rating((("honest", 3), ("helpful", 6))), A) == (
        ScoredCompletion(PROMPT, Completion("Jupiter."), 3.5 / 6, 1.0, ("f1",)),
    )
    assert Rating((("honest", 3), ("helpful", 6))) == Rating((("helpful", 6), ("honest", 3)))
    assert feedback.parse("rating", {"axes": {"helpful": 6}}) == Rating((("helpful", 6),))


def test_an_approval_is_a_label_of_one_or_nought() -> None:
    values = [each.value for up in (True, False) for each in say(Approval(up), A) if isinstance(each, ScoredCompletion)]
    assert values == [1.0, 0.0]


def test_a_correction_is_imitated_and_preferred_to_the_original() -> None:
    assert say(Correction("Jupiter."), D) == (
        SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),
        Preference(PROMPT, Completion("Jupiter."), Completion("The Moon."), feedback_ids=("f1",)),
    )


def test_a_correction_that_changes_nothing_is_no_preference() -> None:
    assert say(Correction("Jupiter."), A) == (SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),)


def test_a_correction_keeps_the_thoughts_and_calls_of_the_original() -> None:
    called = Response(PROMPT.id, "Mars.", "sft", extra={"reasoning_content": "A big one.", "tool_calls": [{"a": 1}]})
    query = Task("correction", PROMPT.id, (called.id,))

    def examples(text: str) -> tuple[Example, ...]:
        return Correction(text).examples(query, PROMPT, {called.id: called}, "f1", 1.0)

    mended = Completion("Jupiter.", extra=called.extra)
    assert examples("Jupiter.") == (
        SFTExample(PROMPT, mended, 1.0, ("f1",)),
        Preference(PROMPT, mended, called.completion, feedback_ids=("f1",)),
    )
    assert examples("Mars.") == (SFTExample(PROMPT, called.completion, 1.0, ("f1",)),)


def test_a_demonstration_is_imitated_and_a_critique_trains_nobody() -> None:
    assert say(Demonstration("Jupiter.")) == (SFTExample(PROMPT, Completion("Jupiter."), 1.0, ("f1",)),)
    assert say(Critique("Too short."), A) == ()


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
    ("critique", {"text": " "}, "says something"),
    ("critique", {"text": "Yes", "quote": 3}, "is text, not 3"),
    ("correction", {"text": ""}, "is a text"),
    ("demonstration", {"text": None}, "is a text"),
)


@pytest.mark.parametrize(("kind", "values", "message"), BROKEN)
def test_an_answer_that_makes_no_sense_is_refused_with_the_reason(kind: str, values: Any, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        feedback.parse(kind, values)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Task("ranking", PROMPT.id, (A, B)), "asks for a ranking, not for a comparison"),
        (Task("comparison", PROMPT.id, (A, B, C)), "shows 3 items"),
        (Task("comparison", PROMPT.id, (A, A)), "shows 2 items, which no comparison can answer"),
        (Task("comparison", PROMPT.id, (B, C)), f"did not show item '{A}'"),
    ],
)
def test_an_answer_to_another_question_is_refused(query: Task, message: str) -> None:
    with pytest.raises(AssentError, match=message):
        feedback.check(Comparison(A), query)


def made(events: list[Feedback], *queries: Task, **options: Any) -> list[Example]:
    return convert.examples(events, queries, [PROMPT], ITEMS, **options)


ASKED = Task("comparison", PROMPT.id, (A, B))
FIRST = Feedback(ASKED.id, "ann", Comparison(A), "2026-11-20T10:00:00Z")


def test_an_answer_that_was_superseded_is_left_out() -> None:
    second = Feedback(ASKED.id, "ann", Comparison(B), "2026-11-20T10:01:00Z", supersedes=FIRST.id)
    third = Feedback(ASKED.id, "ann", TIE, "2026-11-20T10:02:00Z", supersedes=second.id)
    assert [each.feedback_ids for each in made([FIRST, second, third], ASKED)] == [(third.id,)]


def test_each_annotator_makes_a_row_with_the_weight_of_their_reliability() -> None:
    events = [Feedback(ASKED.id, who, Comparison(A), "") for who in ("ann", "bob", "cat")]
    assert [each.weight for each in made(events, ASKED, weights={"ann": 0.25, "bob": 0.0})] == [0.25, 1.0]
    with pytest.raises(AssentError, match="weight of annotator 'ann' is -1"):
        made(events, ASKED, weights={"ann": -1})


def test_nobody_trains_on_gold_items_or_on_evaluation() -> None:
    gold = Task("comparison", PROMPT.id, (A, B), purpose="gold")
    events = [Feedback(gold.id, "ann", Comparison(A), ""), FIRST]
    assert [each.feedback_ids for each in made(events, gold, ASKED)] == [(FIRST.id,)]
    assert [each.feedback_ids for each in made(events, gold, ASKED, purpose="gold")] == [(events[0].id,)]


def test_an_answer_without_its_question_or_items_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(AssentError, match=f"about query '{ASKED.id}'"):
        made([FIRST])
    with pytest.raises(AssentError, match=f"about item '{B}'"):
        convert.examples([FIRST], [ASKED], [PROMPT], ITEMS[:1])
    with pytest.raises(AssentError, match=f"about prompt '{PROMPT.id}'"):
        convert.examples([FIRST], [ASKED], [], ITEMS)


def some(count: int) -> Iterator[Prompt]:
    return (Prompt.ask(f"question {number}") for number in range(count))


def test_the_split_is_the_sha256_of_the_prompts_id() -> None:
    train, held_out = split(some(2000), 0.1)
    assert len(train) + len(held_out) == 2000
    assert 160 <= len(held_out) <= 240  # 200 +- 3 standard deviations
    share = 0.1 * 2**64
    assert all(int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) < share for name in held_out)


@given(st.sets(st.text(max_size=20), max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_the_side_of_a_prompt_never_depends_on_the_others(texts: set[str], one: float, other: float) -> None:
    prompts = [Prompt.ask(text) for text in sorted(texts)]
    small, large = sorted((one, other))
    whole = split([*some(50), *prompts, *prompts], small)
    alone = [split([prompt], small) for prompt in prompts]
    assert all(
        (prompt.id in whole.held_out) == (prompt.id in each.held_out)
        for prompt, each in zip(prompts, alone, strict=True)
    )
    assert whole.held_out <= split([*prompts, *some(50)], large).held_out


def test_a_share_outside_nought_and_one_is_refused() -> None:
    with pytest.raises(AssentError, match="between 0 and 1"):
        split([], 10)
