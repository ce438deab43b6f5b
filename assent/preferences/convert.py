"""Testimony becomes training data: answers of any kind flow in, three currencies flow out, each with its sources."""

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from statistics import fmean, pstdev
from typing import TypeVar

from assent.errors import AssentError
from assent.feedback import check
from assent.records import Example, Feedback, Preference, Prompt, Purpose, Response, ScoredCompletion, SFTExample, Task

Noun = TypeVar("Noun")


def examples(
    feedback: Iterable[Feedback],
    queries: Iterable[Task],
    prompts: Iterable[Prompt],
    responses: Iterable[Response],
    weights: Mapping[str, float] | None = None,
    *,
    purpose: Purpose = "train",
    margin: float = 0.0,
) -> list[Example]:
    """Turn stored answers into training examples, in the order of the answers.

    Answers that a later one supersedes are left out, and so are those to queries of another purpose: who trained on
    the gold items could not be measured by them. A simulated annotator stands in for people: where a person answered
    the query, its answer is left out.

    Args:
        weights: reliability of each annotator; who is not named counts 1, who has 0 is left out.
        margin: what a step of a comparison's strength adds to the margin of its preference.

    Raises:
        AssentError: an answer whose query, prompt or item is not given, or that its query did not ask for.
    """
    trust = weights or {}
    for annotator, weight in trust.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise AssentError(f"the weight of annotator '{annotator}' is {weight}: it must be 0 or more")
    events = list(feedback)
    superseded = {event.supersedes for event in events}
    by_people = {event.task for event in events if event.by_person and trust.get(event.annotator, 1.0) > 0}
    asked = {query.id: query for query in queries}
    about = {prompt.id: prompt for prompt in prompts}
    # A store may hold a million answers: keep those that somebody was asked about.
    shown = {item for query in asked.values() for item in query.items}
    texts = {response.id: response for response in responses if response.id in shown}
    made: list[Example] = []
    for event in events:
        query = _known(asked, event.task, f"feedback {event.id}", "query")
        weight = trust.get(event.annotator, 1.0)
        rehearsal = event.task in by_people and event.annotator.startswith("simulated:")
        if event.id in superseded or rehearsal or query.purpose != purpose or weight == 0:
            continue
        answer = check(event.judgement, query)
        prompt = _known(about, query.prompt, f"query {query.id}", "prompt")
        items = {item: _known(texts, item, f"query {query.id}", "item") for item in query.items}
        step = margin * getattr(answer, "strength", 0)
        for example in answer.examples(query, prompt, items, event.id, weight):
            if step and isinstance(example, Preference) and example.p_chosen != 0.5:
                example = replace(example, margin=example.margin + step)
            if example.weight:  # what counts nothing is no example
                made.append(example)
    return made


def standardised(
    labels: Iterable[ScoredCompletion], feedback: Iterable[Feedback], train: AbstractSet[str]
) -> list[ScoredCompletion]:
    """Labels in deviations from their annotator's mean, so that severe and mild annotators speak alike.

    Mean and deviation are those of what the annotator said about the prompts of `train`; who said the same of all of
    them told nothing, and is left out.
    """
    who = {event.id: event.annotator for event in feedback}
    found = list(labels)
    said: dict[str, list[float]] = {}
    for label in found:
        if label.prompt.id in train:
            said.setdefault(who[label.feedback_ids[0]], []).append(label.value)
    scales = {by: (fmean(values), pstdev(values)) for by, values in said.items()}
    made: list[ScoredCompletion] = []
    for label in found:
        mean, deviation = scales.get(who[label.feedback_ids[0]], (0.0, 0.0))
        if deviation > 0:
            made.append(replace(label, value=(label.value - mean) / deviation))
    return made


def about(example: Example) -> Prompt:
    """The prompt that decides on which side of the split an example falls; bare text to imitate decides for itself."""
    if isinstance(example, SFTExample) and not any(message.content for message in example.prompt.messages):
        return Prompt.plain(example.completion.text)
    return example.prompt


def _known(nouns: Mapping[str, Noun], name: str, holder: str, noun: str) -> Noun:
    if name not in nouns:
        raise AssentError(f"{holder} is about {noun} '{name}', which is not given: pass every {noun} of the store")
    return nouns[name]
