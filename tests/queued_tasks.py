"""Tasks, assignments and judgements for the tests of the task queue."""

from itertools import product
from math import sqrt
from typing import Any

from assent.feedback.comparison import Comparison
from assent.labelling.assignments import Assignment
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.store.database import Store

AT = "2026-11-20T10:00:00.000+00:00"
RANKS = [ranks for ranks in product(range(3), repeat=3) if set(ranks) == set(range(max(ranks) + 1))]
"""Every ranking of three places of a screen, with ties: 13."""


def comparisons(store: Store, number: int, purpose: Purpose = "train", words: str = "question") -> list[Task]:
    prompts = [Prompt.ask(f"{words} {n}") for n in range(number)]
    pairs = [(Response(prompt.id, "Yes.", "sft"), Response(prompt.id, "No.", "sft")) for prompt in prompts]
    store.add_prompts(prompts)
    store.add_responses(item for pair in pairs for item in pair)
    return [Task("comparison", p.id, (a.id, b.id), purpose) for p, (a, b) in zip(prompts, pairs, strict=True)]


def make_task(store: Store, kind: str, items: int, words: str = "ask") -> Task:
    prompt = Prompt.ask(words)
    responses = [Response(prompt.id, f"Answer {n}.", "sft") for n in range(items)]
    store.add_prompts([prompt])
    store.add_responses(responses)
    return Task(kind, prompt.id, tuple(item.id for item in responses))


def enqueue_comparisons(queue: TaskQueue, number: int, required: int = 1) -> list[Task]:
    tasks = comparisons(queue.store, number)
    queue.enqueue([TaskRequest(task, required) for task in tasks], "label")
    return tasks


def judge_once(queue: TaskQueue, *annotators: str) -> None:
    """Let each annotator judge a task: the required votes are limited by the number of annotators."""
    (task,) = comparisons(queue.store, 1, words="hello")
    queue.enqueue([TaskRequest(task, len(annotators))], "hello")
    for annotator in annotators:
        queue.submit(make_feedback(queue.assignments.assign(annotator, task), annotator))


def make_feedback(
    assignment: Assignment, annotator: str, id: str = "", preferred: int = 0, strength: int = 2, **fields: Any
) -> Feedback:
    """Return the feedback of an annotator who prefers the item at this place of the screen."""
    judgement = Comparison(assignment.display_order[preferred], strength)
    return Feedback(assignment.task.id, annotator, judgement, AT, 3.5, assignment.display_order, id=id, **fields)


def assigned_ids(assignment: list[Assignment]) -> list[str]:
    return [entry.task.id for entry in assignment]


def ids_of(tasks: list[Task]) -> list[str]:
    return [task.id for task in tasks]


def is_in_interval(num_draws: int, share: float, observed: int, deviations: float = 3.29) -> bool:
    """Return whether a count lies in its interval: by default the one that contains it 999 times in 1000."""
    return abs(observed - num_draws * share) <= deviations * sqrt(num_draws * share * (1 - share)) + 0.5


def tiers(display_order: tuple[str, ...], ranks: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(display_order[i] for i in range(3) if ranks[i] == tier) for tier in sorted(set(ranks)))
