"""Simulated annotators of known accuracy, with tasks whose better item is known."""

import random
from collections.abc import Sequence
from math import sqrt
from pathlib import Path

from assent.feedback.comparison import Comparison
from assent.labelling.gold import Use
from assent.labelling.queue import TaskQueue
from assent.labelling.settings import change_setting
from assent.records import Prompt, Purpose, Response, Task
from assent.store.database import Store

AT = "2026-11-20T10:00:00.000+00:00"
SALT = "known here, so that every run of these tests is the same"
RIGHT = {"good": 0.95, "noisy": 0.75, "random": 0.5, "adversarial": 0.0}
"""The accuracy of each kind of annotator; one more kind, `left`, prefers the item that is shown first."""


def is_in_interval(num_draws: float, share: float, result: float, deviations: float = 4.5) -> bool:
    """Return whether a binomial count lies in the interval that contains all but one in 100,000."""
    return abs(result - num_draws * share) <= deviations * sqrt(num_draws * share * (1 - share)) + 0.5


def add_tasks(store: Store, number: int, purpose: Purpose = "train", words: str = "question") -> dict[Task, str]:
    """Add comparisons, and return the id of the better item of each; it comes first in half of them."""
    rng = random.Random(words)
    tasks_made = dict[Task, str]()
    prompts = list[Prompt]()
    responses = list[Response]()
    for n in range(number):
        prompt = Prompt.ask(f"{words} {n}")
        pair = [Response(prompt.id, f"This is right, and number {n}.", "sft"), Response(prompt.id, "No idea!", "sft")]
        prompts.append(prompt)
        responses += pair
        items = tuple(entry.id for entry in rng.sample(pair, 2))
        tasks_made[Task("comparison", prompt.id, items, purpose)] = pair[0].id
    store.add_prompts(prompts)
    store.add_responses(responses)
    return tasks_made


def add_gold(queue: TaskQueue, number: int, use: Use) -> dict[Task, str]:
    """Add gold items, and return the better item of each."""
    tasks_made = add_tasks(queue.store, number, "gold", f"{use} item")
    for task, better_item in tasks_made.items():
        queue.gold.add(task, Comparison(better_item), use, "because it is right")
    return tasks_made


def kind_of(annotator: str) -> str:
    return annotator.split("-")[0]


def choose(annotator: str, display_order: Sequence[str], better_item: str, rng: random.Random) -> str:
    """Return the item that an annotator prefers; the name gives their kind."""
    if kind_of(annotator) == "left":
        return display_order[0]
    (worse,) = (item for item in display_order if item != better_item)
    return better_item if rng.random() < RIGHT[kind_of(annotator)] else worse


def open_queue(path: Path) -> TaskQueue:
    """Return a new queue with the same random numbers in every run."""
    store = Store.open(path)
    change_setting(store, "salt", SALT, "server", AT)
    return TaskQueue(store)
