"""The report card of a reward model: how well it predicts judgements of prompts that it was not trained on.

Accuracy with its noise ceiling, the threshold on the margin, calibration, and whether it follows length. `reward` ends
with it, and the report shows it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

from assent.evaluation.held_out import DoubleVote, HeldOutJudgements, JudgedApproval, JudgedPair, ScoredText
from assent.functional.calibration import measure_calibration, reliability_bins
from assent.functional.decisions import (
    best_of_k_accuracy,
    decision_curve,
    noise_ceiling,
    precision_recall_f1,
    within_group_spearman,
)
from assent.functional.finite import replace_nonfinite
from assent.functional.statistics import accuracy, bootstrap

MIN_CELL = 30
"""Judgements of a group below which only their number is reported: its interval would span half of all rates."""
NUM_BINS = 10
NUM_THRESHOLDS = 5
BEST_OF = 4
STRENGTHS = {1: "slightly better", 2: "clearly better", 3: "much better"}


def report_card(judgements: HeldOutJudgements, has_logits: bool = True) -> dict[str, Any]:
    """Return the card as JSON; what the judgements cannot tell is left out, and without judgements it is empty.

    Args:
        has_logits: whether differences of the model's logits are log-odds, which they are not after `regression`.
    """
    card: dict[str, Any] = {}
    if pairs := judgements.pairs:
        card |= {
            "accuracy": _accuracy(pairs, attrgetter("margin")),
            "prompts": len({pair.prompt for pair in pairs}),
            "groups": _groups(pairs),
            "longer_wins": _accuracy(pairs, attrgetter("extra_words")),
            "thresholds": _thresholds(pairs),
        }
        card |= _length_correlation(judgements.texts) | (_calibration(pairs) if has_logits else {})
    card |= _ceiling(judgements.double_votes) | _approvals(judgements.approvals) | _best_of(judgements.choices)
    finite: dict[str, Any] = replace_nonfinite(card)
    return finite


def _accuracy(pairs: Sequence[JudgedPair], difference: Callable[[JudgedPair], float]) -> dict[str, float]:
    """Return how often a difference of chosen and rejected is positive, half for 0.

    The limits are those of a bootstrap over prompts; with few prompts Wilson's, which are wider.
    """
    correct = np.heaviside([difference(pair) for pair in pairs], 0.5)
    prompts = [pair.prompt for pair in pairs]
    interval = accuracy if len(set(prompts)) < MIN_CELL else bootstrap
    return interval(correct, prompts)._asdict()


def _groups(pairs: Sequence[JudgedPair]) -> dict[str, dict[str, Any]]:
    """Return the accuracy by what an annotator said, by annotator, by category and by length."""
    divisions: dict[str, Callable[[JudgedPair], str]] = {
        "strength": lambda pair: STRENGTHS.get(pair.strength, ""),
        "annotator": lambda pair: pair.annotator,
        "category": lambda pair: pair.category,
        "length": _compare_length,
    }
    groups: dict[str, dict[str, Any]] = {}
    for division, name in divisions.items():
        members: dict[str, list[JudgedPair]] = {}
        for pair in pairs:
            if name(pair):
                members.setdefault(name(pair), []).append(pair)
        if len(members) > 1:
            by_strength = division == "strength"
            order = sorted(members, key=lambda label: (members[label][0].strength * by_strength, label))
            groups[division] = {label: _group(members[label]) for label in order}
    return groups


def _compare_length(pair: JudgedPair) -> str:
    if pair.extra_words == 0:
        return "equally long"
    return "the longer was chosen" if pair.extra_words > 0 else "the shorter was chosen"


def _group(pairs: Sequence[JudgedPair]) -> dict[str, float]:
    return _accuracy(pairs, attrgetter("margin")) if len(pairs) >= MIN_CELL else {"n": len(pairs)}


def _thresholds(pairs: Sequence[JudgedPair]) -> list[dict[str, float]]:
    """Return precision, recall and F1 of deciding the pairs whose margin is above a threshold, for several."""
    margins = np.array([pair.margin for pair in pairs])
    shares = np.arange(NUM_THRESHOLDS) / NUM_THRESHOLDS
    thresholds = [0.0, *np.quantile(np.abs(margins), shares[1:]).tolist()]
    curve = decision_curve(margins, thresholds)
    return [{"threshold": threshold, **point._asdict()} for threshold, point in zip(thresholds, curve, strict=True)]


def _calibration(pairs: Sequence[JudgedPair]) -> dict[str, Any]:
    """Return how well sigmoid(|margin|) predicts that the completion with the higher score was chosen."""
    margins = np.array([pair.logit_margin for pair in pairs if pair.logit_margin != 0])
    confidences = expit(np.abs(margins))
    measures = measure_calibration(confidences, margins > 0, NUM_BINS)._asdict()
    bins = [part._asdict() for part in reliability_bins(confidences, margins > 0, NUM_BINS)]
    return {"calibration": {**measures, "bins": bins}}


def _length_correlation(texts: Sequence[ScoredText]) -> dict[str, Any]:
    """Return Spearman's correlation of score and words: over all completions, and within prompts."""
    scores = [text.score for text in texts]
    words = [text.words for text in texts]
    is_varied = len(set(scores)) > 1 and len(set(words)) > 1
    overall = float(spearmanr(scores, words).statistic) if is_varied else math.nan
    within = within_group_spearman(scores, words, [text.prompt for text in texts])
    return {"length_correlation": {"overall": overall, "within_prompts": within, "n": len(texts)}}


def _ceiling(votes: Sequence[DoubleVote]) -> dict[str, Any]:
    """Return how often two annotators agree, and what this allows a perfect model at most."""
    if len(votes) < MIN_CELL:
        return {}
    agreement = bootstrap([float(vote.agree) for vote in votes], [vote.prompt for vote in votes])
    return {"agreement": agreement._asdict(), "ceiling": noise_ceiling(agreement.rate)._asdict()}


def _approvals(approvals: Sequence[JudgedApproval]) -> dict[str, Any]:
    """Return precision, recall and F1 of approvals: an approved completion scores above the training mean."""
    if not approvals:
        return {}
    predicted = [approval.score > 0 for approval in approvals]
    rates = precision_recall_f1(predicted, [approval.is_approved for approval in approvals])
    return {"approvals": {**rates._asdict(), "n": len(approvals)}}


def _best_of(choices: Iterable[tuple[float, ...]]) -> dict[str, Any]:
    """Return how often the best of four has the highest score, as in RewardBench 2 (arXiv:2506.01937); chance is 25 %.

    Of longer rankings the first four places count; shorter ones are left out.
    """
    rows = [scores[:BEST_OF] for scores in choices if len(scores) >= BEST_OF]
    if not rows:
        return {}
    return {"best_of_4": {"accuracy": best_of_k_accuracy(rows, np.zeros(len(rows), dtype=int)), "n": len(rows)}}
