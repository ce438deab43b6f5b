"""Candidates of active learning: pairs of responses that were not asked about before, and the model's view of them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import sqlalchemy as sa

from assent.preferences.select import Candidate, DistinctPairs, distinct
from assent.records import Prompt, Response
from assent.rewards.model import Model
from assent.store import schema
from assent.store.database import Store


def previous_pairs(store: Store, batch: str, *, humans_only: bool) -> list[Candidate]:
    """Return the pairs of training tasks that were asked about before, in the order of their tasks, each once.

    A pair was asked about if a comparison or a ranking that shows it is in the task queue or has feedback.

    Args:
        batch: the stage that asks now (`label-2`): its own tasks do not count, so a resumed stage selects them again.
        humans_only: feedback of programs does not count, because humans are to judge the same pairs.
    """
    batches = task_batches(store)
    judged = {event.task for event in store.feedback() if event.is_human or not humans_only}
    pairs: dict[frozenset[str], Candidate] = {}
    for task in store.tasks("train"):
        if task.kind not in ("comparison", "ranking") or batches.get(task.id) == batch:
            continue
        if task.id in batches or task.id in judged:
            for first, second in combinations(task.items, 2):
                pairs.setdefault(frozenset((first, second)), Candidate(task.prompt, first, second))
    return list(pairs.values())


def task_batches(store: Store) -> dict[str, str]:
    """Return the batch of each task of the queue, by task id."""
    queue = schema.queue.c
    with store.reading() as connection:
        rows = connection.execute(sa.select(queue.task, queue.batch)).all()
    return {row.task: row.batch for row in rows}


def candidate_pairs(responses: Mapping[str, Sequence[Response]], previous: Iterable[Candidate]) -> DistinctPairs:
    """Return the pairs of different responses that were not asked about before.

    Args:
        responses: by prompt id.
        previous: pairs to leave out, in either order of their items.
    """
    excluded = {frozenset((pair.first, pair.second)) for pair in previous}
    pairs = [
        Candidate(prompt, first.id, second.id)
        for prompt, completions in responses.items()
        for first, second in combinations(completions, 2)
        if frozenset((first.id, second.id)) not in excluded
    ]
    texts = {response.id: response.text for completions in responses.values() for response in completions}
    return distinct(pairs, texts)


class Signals(NamedTuple):
    """Inputs of the acquisition functions, by response id."""

    scores: dict[str, list[float]]  # (members,) logits
    features: dict[str, list[float]] | None  # (H,)


def compute_signals(
    model: Model, prompts: Mapping[str, Prompt], responses: Mapping[str, Sequence[Response]]
) -> Signals:
    """Return a reward model's logits and features of responses, which are given by prompt id."""
    rows = [(prompts[prompt], response) for prompt, completions in responses.items() for response in completions]
    inputs = [prompt for prompt, _ in rows], [response for _, response in rows]
    ids = [response.id for _, response in rows]
    logits = (model.score(*inputs) * model.stds).tolist()
    features = model.features(*inputs).tolist()
    return Signals(dict(zip(ids, logits, strict=True)), dict(zip(ids, features, strict=True)))


def add_items(
    responses: Mapping[str, Sequence[Response]], pairs: Sequence[Candidate], store: Store
) -> dict[str, list[Response]]:
    """Return responses by prompt id with those of other pairs added behind them."""
    merged = {prompt: {response.id: response for response in group} for prompt, group in responses.items()}
    items = {item for pair in pairs for item in (pair.first, pair.second)}
    for response in store.responses(ids=items):
        merged.setdefault(response.prompt, {}).setdefault(response.id, response)
    return {prompt: list(group.values()) for prompt, group in merged.items()}
