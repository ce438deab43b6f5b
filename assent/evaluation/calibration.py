"""Is a policy as often right as it is sure? Measured on choices and on its own answers, and compared between policies.

A confidence is the greatest of the probabilities of a choice's options, or the exponential of the mean log-probability
of an own answer. All figures of a result can be computed again from its `confidences` and `correct`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from assent.evaluation.confidence import Choice, mean_logprobs, option_logprobs
from assent.functional.calibration import (
    Floats,
    auroc,
    brier_score,
    measure_calibration,
    negative_log_likelihood,
    paired_difference,
    reliability_bins,
    solve_temperature,
)
from assent.functional.statistics import wilson
from assent.models.load import LoadedModel
from assent.records import Prompt, Response
from assent.rewards.truthful import grade_response

NUM_BINS = 10
DIGITS = 6
"""Decimal places of a confidence, as many as `functional.calibration.CLIP` has."""


def measure_choices(model: LoadedModel, choices: Sequence[Choice]) -> dict[str, Any]:
    """Return how often the policy's choice is right, and how well its probability says so.

    Returns: the keys of `functional.calibration.Calibration`; `low` and `high`, Wilson's limits of the accuracy;
        `bins`, as in `functional.calibration.Bin`; and lists in the order of the questions: `prompts` (ids),
        `confidences`, `correct` (1 or 0). The temperature is that of all options: see `fit_choice_temperature`.
    """
    logits = option_logprobs(model, [choice.prompt for choice in choices], [choice.options for choice in choices])
    answers = [choice.correct for choice in choices]
    confidences = [float(row.softmax(-1).max()) for row in logits]
    correct = [int(row.argmax()) == answer for row, answer in zip(logits, answers, strict=True)]
    result = calibration_result([choice.prompt for choice in choices], confidences, correct)
    return result | {"temperature": fit_choice_temperature(logits, answers)}


def measure_answers(model: LoadedModel, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, Any]:
    """Return how often the policy's own answers are right, and how well exp(mean log-probability) says so.

    Args: prompts: with accepted answers in their `meta`; responses: one to each.
    Returns: the keys of `measure_choices` for the answered questions, and `refused`, the number of the others.
    """
    grades = [grade_response(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    answered = [i for i, grade in enumerate(grades) if grade != "refused"]
    questions = [prompts[i] for i in answered]
    confidences = mean_logprobs(model, questions, [responses[i] for i in answered]).exp().tolist()
    measured = [
        (prompt, confidence, grades[i] == "right")
        for prompt, confidence, i in zip(questions, confidences, answered, strict=True)
        if not math.isnan(confidence)  # a response without tokens
    ]
    kept, sure, correct = zip(*measured, strict=True) if measured else ((), (), ())
    result = calibration_result(kept, sure, correct)
    return result | {"refused": len(grades) - len(answered)}


def compare_calibration(baseline: Mapping[str, Any], policy: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return the differences, policy minus baseline, of two results on the questions that both answered.

    Brier score and negative log-likelihood decide which is calibrated better, as proper scores. The calibration error
    is not among them: see `functional.calibration.paired_difference`.

    Returns: `n`, the questions; `brier`, `nll`, `accuracy` and `auroc`, each with `value`, `low` and `high`.
    """
    rows = [
        dict(zip(result["prompts"], zip(result["confidences"], result["correct"], strict=True), strict=True))
        for result in (policy, baseline)
    ]
    shared = [prompt for prompt in rows[0] if prompt in rows[1]]
    first, second = (([row[prompt][0] for prompt in shared], [row[prompt][1] for prompt in shared]) for row in rows)
    statistics = {"brier": brier_score, "nll": negative_log_likelihood, "accuracy": _accuracy, "auroc": auroc}
    differences = {
        name: paired_difference(statistic, first, second, seed=seed)._asdict() for name, statistic in statistics.items()
    }
    return {"n": len(shared), **differences}


def fit_choice_temperature(logits: Sequence[Tensor], correct: Sequence[int]) -> float:
    """Return the T that makes the right options most likely under softmax(logits / T).

    Guo et al. 2017, section 4.2 (arXiv:1706.04599). Above 1 the probabilities are too extreme. It is limited as
    in `solve_temperature`: to the lowest where the right option always has the greatest logit, to the highest where
    right options have no greater logits than others on average; 1 if all logits are equal, NaN without questions.

    Args: logits: (K,) for each question, finite. correct: index of the right option of each.
    """
    if not logits:
        return math.nan
    rows = [row.double() - row.double()[answer] for row, answer in zip(logits, correct, strict=True)]
    padded = pad_sequence(rows, batch_first=True, padding_value=-math.inf)  # (N, K)
    gaps = padded.masked_fill(padded.isinf(), 0.0)
    if not gaps.any():
        return 1.0

    def slope(inverse_temperature: float) -> float:
        """Return the derivative of the negative log-likelihood, which rises with the inverse temperature."""
        return float(((padded * inverse_temperature).softmax(-1) * gaps).sum())

    return solve_temperature(slope)


def calibration_result(
    prompts: Sequence[Prompt], confidences: Sequence[float], correct: Sequence[bool]
) -> dict[str, Any]:
    """Return the keys of `measure_choices` for any confidences, from 0 to 1."""
    rounded = [min(round(confidence, DIGITS), 1.0) for confidence in confidences]
    accuracy = wilson(sum(correct), len(correct))
    return {
        **measure_calibration(rounded, correct, NUM_BINS)._asdict(),
        "low": accuracy.low,
        "high": accuracy.high,
        "bins": [point._asdict() for point in reliability_bins(rounded, correct, NUM_BINS)],
        "prompts": [prompt.id for prompt in prompts],
        "confidences": rounded,
        "correct": [int(outcome) for outcome in correct],
    }


def _accuracy(_: Floats, correct: Floats) -> float:
    return float(correct.mean()) if len(correct) else math.nan
