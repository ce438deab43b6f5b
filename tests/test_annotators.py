"""Simulated annotators: how many answer, and that each answer follows from the seed and the query alone."""

from datetime import UTC, datetime

import pytest

from assent.annotators.simulated import PROFILES, Simulated
from assent.records import Feedback, Prompt, Response, Task

PROMPTS = [Prompt.ask(f"In one sentence, why is the sea salty in place {n}?") for n in range(40)]
GOOD = [Response(p.id, "The sea is salty because rivers carry minerals from the rocks into it.", "a") for p in PROMPTS]
BAD = [Response(p.id, "No no no no no", "a", finished=False) for p in PROMPTS]
QUERIES = [Task("comparison", p.id, (g.id, b.id)) for p, g, b in zip(PROMPTS, GOOD, BAD, strict=True)]


def answers(annotator: Simulated, queries: list[Task] = QUERIES, seed: int = 0) -> list[Feedback]:
    responses = {response.id: response for response in (*GOOD, *BAD)}
    return list(
        annotator.answer(queries, {p.id: p for p in PROMPTS}, responses, seed, datetime(2026, 1, 1, tzinfo=UTC))
    )


@pytest.mark.parametrize(("votes", "each"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_each_query_is_answered_by_as_many_different_annotators_as_asked_for(votes: int, each: int) -> None:
    made = answers(Simulated(votes=votes))
    for query in QUERIES:
        who = [feedback.annotator for feedback in made if feedback.task == query.id]
        assert len(who) == len(set(who)) == each
    asked = {name: sum(f.annotator == f"simulated:{name}" for f in made) for name in PROFILES}
    assert all(count >= len(QUERIES) * each / 3 / 2 for count in asked.values())


def test_more_votes_leave_the_first_one_as_it_was() -> None:
    one = {feedback.task: feedback for feedback in answers(Simulated())}
    assert all(one[feedback.task] in answers(Simulated(votes=3)) for feedback in one.values())


def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    assert answers(Simulated(votes=2), QUERIES[20:]) == answers(Simulated(votes=2))[40:]
    assert answers(Simulated(), seed=1) != answers(Simulated())


def test_the_careful_are_right_more_often_than_the_hasty_and_a_coin_half_the_time() -> None:
    def right(made: list[Feedback]) -> float:
        good = {response.id for response in GOOD}
        return sum(f.judgement.items[0] in good for f in made if f.judgement.items) / len(made)

    assert right(answers(Simulated(profiles=("careful",)))) > right(answers(Simulated(profiles=("hasty",))))
    assert abs(right(answers(Simulated(random_labels=True))) - 0.5) < 0.25
