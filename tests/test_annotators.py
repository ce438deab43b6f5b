"""Simulated annotators: number of votes, noise, and judgements that depend only on the seed and the task."""

from datetime import UTC, datetime

import pytest

from assent.annotators.simulated import DEMO_PROFILES, Simulated
from assent.records import Feedback, Prompt, Response, Task

PROMPTS = [Prompt.ask(f"In one sentence, why is the sea salty in place {n}?") for n in range(40)]
GOOD = [Response(p.id, "The sea is salty because rivers carry minerals from the rocks into it.", "a") for p in PROMPTS]
BAD = [Response(p.id, "No no no no no", "a", finished=False) for p in PROMPTS]
TASKS = [Task("comparison", p.id, (g.id, b.id)) for p, g, b in zip(PROMPTS, GOOD, BAD, strict=True)]


def annotate(annotator: Simulated, tasks: list[Task] = TASKS, seed: int = 0) -> list[Feedback]:
    prompts = {prompt.id: prompt for prompt in PROMPTS}
    responses = {response.id: response for response in (*GOOD, *BAD)}
    return list(annotator.annotate(tasks, prompts, responses, seed, datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(("votes", "per_task"), [(1, 1), (2, 2), (3, 3), (9, 3)])
def test_votes_are_by_different_annotators(votes: int, per_task: int) -> None:
    feedback = annotate(Simulated(votes=votes))
    for task in TASKS:
        annotators = [event.annotator for event in feedback if event.task == task.id]
        assert len(annotators) == len(set(annotators)) == per_task
    counts = {name: sum(event.annotator == f"simulated:{name}" for event in feedback) for name in DEMO_PROFILES}
    assert all(count >= len(TASKS) * per_task / 3 / 2 for count in counts.values())


def test_more_votes_do_not_change_the_first() -> None:
    first_votes = {event.task: event for event in annotate(Simulated())}
    three_votes = annotate(Simulated(votes=3))
    assert all(event in three_votes for event in first_votes.values())
    assert len(first_votes) == len(TASKS)


def test_judgements_do_not_depend_on_earlier_tasks() -> None:
    assert annotate(Simulated(votes=2), TASKS[20:]) == annotate(Simulated(votes=2))[40:]
    assert annotate(Simulated(), seed=1) != annotate(Simulated())


def test_noise_profiles_are_ordered_and_random_labels_are_chance() -> None:
    def accuracy(feedback: list[Feedback]) -> float:
        good = {response.id for response in GOOD}
        return sum(event.judgement.items[0] in good for event in feedback if event.judgement.items) / len(feedback)

    assert accuracy(annotate(Simulated(profiles=("low_noise",)))) > accuracy(
        annotate(Simulated(profiles=("high_noise",)))
    )
    assert abs(accuracy(annotate(Simulated(random_labels=True))) - 0.5) < 0.25
