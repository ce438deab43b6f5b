"""Changes of style that a win rate does not show: length, openings, variety, copies."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

from assent.report.comparisons import Comparisons
from assent.report.data import ReportData
from assent.report.formatting import display_name, percent
from assent.report.rounds import Round


class Style(NamedTuple):
    """Measures of a policy's responses that do not depend on the judge."""

    mean_words: float
    opening: str
    """The three words with which most responses begin."""
    opening_share: float
    """Share of the responses that begin with them."""
    distinct_2: float
    """Different pairs of neighbouring words, as a share of all pairs (Li et al. 2016, arXiv:1510.03055)."""
    duplicate_share: float
    """Share of responses that are word for word the response to another prompt too."""


class RoundStyles(NamedTuple):
    """The styles of one round's policies."""

    number: int
    warnings: list[str]
    styles: Mapping[str, Style]


class Drift:
    """Table of styles, with a warning for each large change from the baseline."""

    order: ClassVar[int] = 50
    title: ClassVar[str] = "Drift"

    def __call__(self, data: ReportData) -> dict[str, Any] | None:
        if not data.comparisons:
            return None
        rounds: list[RoundStyles] = []
        for item in data.compared_rounds:
            if item.number in data.comparisons:
                styles = measure_styles(data.comparisons[item.number])
                rounds.append(RoundStyles(item.number, warnings(item, styles), styles))
        return {
            "rounds": rounds,
            "has_several_rounds": len(data.compared_rounds) > 1,
            "criteria": _criteria(next(iter(data.comparisons.values()))),
        }


def measure_style(texts: Sequence[str]) -> Style:
    """Measure the responses of one policy, one to each prompt."""
    words_of_texts = [re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower()) for text in texts]
    bigrams = [bigram for words in words_of_texts for bigram in pairwise(words)]
    opening, count = Counter(" ".join(words[:3]) for words in words_of_texts).most_common(1)[0]
    copies = Counter(text.strip() for text in texts)
    return Style(
        mean_words=sum(len(text.split()) for text in texts) / len(texts),
        opening=opening,
        opening_share=count / len(texts),
        distinct_2=len(set(bigrams)) / max(1, len(bigrams)),
        duplicate_share=sum(count for count in copies.values() if count > 1) / len(texts),
    )


def measure_styles(comparisons: Comparisons) -> dict[str, Style]:
    """Measure every policy."""
    return {
        policy: measure_style([response.text for response in responses.values()])
        for policy, responses in comparisons.by_policy.items()
    }


def warnings(round_: Round, styles: Mapping[str, Style]) -> list[str]:
    """Return one sentence for each change that a reader should check before trusting the win rate."""
    sentences: list[str] = []
    baseline = round_.evaluation["baseline"]
    before = styles[baseline]
    for policy, result in round_.compared.items():
        after, name = styles[policy], display_name(policy)
        if not 0.8 <= after.mean_words / max(before.mean_words, 1e-9) <= 1.25:
            change = "longer" if after.mean_words > before.mean_words else "shorter"
            sentences.append(
                f"{name}'s responses are {change} than the baseline's: "
                f"{after.mean_words:.1f} words instead of {before.mean_words:.1f}."
            )
        if after.opening_share >= before.opening_share + 0.1:
            sentences.append(
                f"{percent(after.opening_share)} of {name}'s responses begin with “{after.opening}”; "
                f"the baseline's commonest opening has {percent(before.opening_share)}."
            )
        if after.distinct_2 <= 0.9 * before.distinct_2:
            sentences.append(
                f"{name}'s words vary less: distinct-2 is {after.distinct_2:.2f} instead of {before.distinct_2:.2f}."
            )
        if after.duplicate_share >= before.duplicate_share + 0.02:
            share = percent(after.duplicate_share)
            sentences.append(f"{share} of {name}'s responses are word for word the response to another prompt too.")
        if result["eos_rate"] <= round_.policies[baseline]["eos_rate"] - 0.05:
            sentences.append(f"{name}'s responses are cut at the length limit more often than the baseline's.")
        if (result["kl"] or 0) < 0:
            sentences.append(f"{name}'s KL is negative, which a divergence cannot be: too few responses, or a bug.")
    return sentences


def _criteria(comparisons: Comparisons) -> list[str]:
    """Return the names of the judge's criteria."""
    responses = comparisons.by_policy[comparisons.baseline].values()
    return list(next(iter(responses)).criteria)
