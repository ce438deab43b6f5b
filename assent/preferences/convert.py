"""Training examples from feedback: judgements of every kind become preferences, rankings, scores or demonstrations."""

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from statistics import fmean, pstdev
from typing import TypeVar

from assent.errors import AssentError
from assent.feedback import check
from assent.feedback.comparison import Comparison
from assent.records import Example, Feedback, Preference, Prompt, Purpose, Response, ScoredCompletion, SFTExample, Task
from assent.store.database import Store

Record = TypeVar("Record")


def load_examples(
    store: Store, weights: Mapping[str, float] | None = None, *, purpose: Purpose = "train", margin: float = 0.0
) -> list[Example]:
    """Return the training examples of a store's feedback; arguments and errors as in `to_examples`."""
    records = store.feedback(), store.tasks(), store.prompts(), store.responses()
    return to_examples(*records, weights, purpose=purpose, margin=margin)


def to_examples(
    feedback: Iterable[Feedback],
    tasks: Iterable[Task],
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    weights: Mapping[str, float] | None = None,
    *,
    purpose: Purpose = "train",
    margin: float = 0.0,
) -> list[Example]:
    """Convert feedback into training examples, in the order of the feedback.

    Superseded feedback gives no example. Neither does feedback on tasks of another purpose: training on gold items
    would make them useless as a test. Simulated feedback counts only on tasks that no human has judged.

    Args:
        weights: reliability of each annotator; 1 for annotators without an entry, and 0 excludes an annotator.
        margin: added to a preference's margin for each step of its comparison's strength.

    Raises:
        AssentError: feedback whose task, prompt or items are missing, or that does not fit its task.
    """
    trust = _checked_weights(weights or {})
    events = list(feedback)
    superseded = {event.supersedes for event in events}
    judged_by_humans = {event.task for event in events if event.is_human and trust.get(event.annotator, 1.0) > 0}
    tasks_by_id = {task.id: task for task in tasks}
    prompts_by_id = {prompt.id: prompt for prompt in prompts}
    # A store may hold a million responses: keep those that a task shows.
    item_ids = {item for task in tasks_by_id.values() for item in task.items}
    responses_by_id = {response.id: response for response in responses if response.id in item_ids}
    examples: list[Example] = []
    for event in events:
        task = _look_up(tasks_by_id, event.task, f"feedback {event.id}", "task")
        weight = trust.get(event.annotator, 1.0)
        is_replaced = event.source == "simulated" and event.task in judged_by_humans
        if event.id in superseded or is_replaced or task.purpose != purpose or weight == 0:
            continue
        judgement = check(event.judgement, task)
        prompt = _look_up(prompts_by_id, task.prompt, f"task {task.id}", "prompt")
        items = {item: _look_up(responses_by_id, item, f"task {task.id}", "item") for item in task.items}
        extra_margin = margin * judgement.strength if isinstance(judgement, Comparison) else 0.0
        for example in judgement.examples(task, prompt, items, event, weight):
            if extra_margin and isinstance(example, Preference) and example.p_chosen != 0.5:
                example = replace(example, margin=example.margin + extra_margin)
            if example.weight:
                examples.append(example)
    return examples


def standardise(
    ratings: Iterable[ScoredCompletion], feedback: Iterable[Feedback], train: AbstractSet[str]
) -> list[ScoredCompletion]:
    """Return ratings as z-scores of their annotator, so that strict and lenient annotators use one scale.

    Mean and standard deviation are those of the annotator's ratings of the prompts in `train`. An annotator whose
    ratings there are all equal, or who rated none, is left out.
    """
    annotators = {event.id: event.annotator for event in feedback}
    ratings = list(ratings)
    train_values: dict[str, list[float]] = {}
    for rating in ratings:
        if rating.prompt.id in train:
            train_values.setdefault(annotators[rating.feedback_ids[0]], []).append(rating.value)
    scales = {annotator: (fmean(values), pstdev(values)) for annotator, values in train_values.items()}
    z_scores: list[ScoredCompletion] = []
    for rating in ratings:
        mean, std = scales.get(annotators[rating.feedback_ids[0]], (0.0, 0.0))
        if std > 0:
            z_scores.append(replace(rating, value=(rating.value - mean) / std))
    return z_scores


def prompt_for_split(example: Example) -> Prompt:
    """Return the prompt whose id decides between training and held-out; a text without a prompt stands for itself."""
    if isinstance(example, SFTExample) and not any(message.content for message in example.prompt.messages):
        return Prompt.plain(example.completion.text)
    return example.prompt


def _checked_weights(weights: Mapping[str, float]) -> Mapping[str, float]:
    for annotator, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise AssentError(f"the weight of annotator '{annotator}' is {weight}; it must be 0 or more")
    return weights


def _look_up(records: Mapping[str, Record], name: str, holder: str, noun: str) -> Record:
    if name not in records:
        raise AssentError(f"{holder} is about {noun} '{name}', which is missing; pass every {noun} of the store")
    return records[name]
