"""Win rates of a policy against a baseline: how often a judge prefers its response to the same prompt."""

from collections.abc import Sequence
from typing import NamedTuple

from assent.feedback.comparison import Comparison
from assent.functional.length_control import LengthControlled, length_controlled_win_rate
from assent.functional.statistics import WinRate, clustered_win_rate, win_rate
from assent.records import Prompt, Response, Task

WIN, TIE, LOSS = 1.0, 0.5, 0.0
INSTRUCTION = Comparison.question
"""The question to annotators; `evaluate` and `arena` ask the same, so that one judgement serves both."""


class ResponsePair(NamedTuple):
    """Two responses to one prompt."""

    prompt: Prompt
    baseline: Response
    candidate: Response

    @property
    def is_same(self) -> bool:
        """Return whether the responses are the same text: that is a tie without asking."""
        return self.baseline.id == self.candidate.id


class Outcome(NamedTuple):
    """The result of one vote on a pair."""

    prompt: Prompt
    value: float
    """1 if the candidate won, 0 if it lost, 0.5 for a tie."""


class WinRates(NamedTuple):
    """The win rate over all prompts, and over those of each category."""

    overall: WinRate
    by_category: dict[str, WinRate]


def pair_responses(
    prompts: Sequence[Prompt], baseline: Sequence[Response], candidate: Sequence[Response]
) -> list[ResponsePair]:
    """Pair the responses of two policies to the same prompts."""
    return [ResponsePair(*row) for row in zip(prompts, baseline, candidate, strict=True)]


def comparison_task(prompt: str, items: tuple[str, str], instruction: str = "") -> Task:
    """Return the task of comparing two responses (ids) to a held-out prompt (id)."""
    return Task("comparison", prompt, items, "evaluate", instruction)


def compute_win_rates(outcomes: Sequence[Outcome]) -> WinRates:
    """Count outcomes over all prompts and by the category of the prompt."""
    by_category: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.prompt.category:
            by_category.setdefault(outcome.prompt.category, []).append(outcome)
    return WinRates(_rate(outcomes), {category: _rate(group) for category, group in by_category.items()})


def control_length(
    outcomes: Sequence[Outcome], candidate: Sequence[Response], baseline: Sequence[Response]
) -> LengthControlled:
    """Return the win rate at equal length, which is measured in characters."""
    lengths, baseline_lengths = (
        {response.prompt: len(response.text) for response in side} for side in (candidate, baseline)
    )
    prompts = [outcome.prompt.id for outcome in outcomes]
    values = [outcome.value for outcome in outcomes]
    return length_controlled_win_rate(
        values, [lengths[prompt] for prompt in prompts], [baseline_lengths[prompt] for prompt in prompts], prompts
    )


def _rate(outcomes: Sequence[Outcome]) -> WinRate:
    """Return the rate with a Wilson interval; with several votes on a prompt, with a bootstrap over prompts."""
    values = [outcome.value for outcome in outcomes]
    prompts = [outcome.prompt.id for outcome in outcomes]
    if len(set(prompts)) < len(prompts):
        return clustered_win_rate(values, prompts)
    return win_rate(values.count(WIN), values.count(TIE), values.count(LOSS))
