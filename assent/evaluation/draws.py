"""Several responses to one prompt: best-of-n beside trained policies, and the report card on each policy's responses.

On pairs of policy and baseline, a reward model that always prefers the policy is right as often as the policy wins.
Only two responses of the same policy show whether it can still tell better from worse there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assent.evaluation.candidates import BATCH_SIZE
from assent.evaluation.judges import Judge
from assent.evaluation.report_card import MIN_CELL
from assent.functional.decisions import within_group_spearman
from assent.functional.ensemble import combine, ensemble_std
from assent.functional.finite import replace_nonfinite
from assent.functional.overoptimization import CurvePoint, Fit, best_of_n_curve, best_of_n_rewards, fit_best_of_n
from assent.functional.statistics import Interval, accuracy, bootstrap
from assent.generation.responses import GenerationJob, generate_draws, response_label
from assent.generation.sampling import Sampling
from assent.models.load import LoadedModel
from assent.records import Prompt, Response
from assent.rewards.model import Model
from assent.run import Run
from assent.scoring import THIS_ROUND, load_reward_model

Floats = NDArray[np.float64]
ScoreFunction = Callable[[Sequence[Prompt], Sequence[Response]], Sequence[float] | Tensor]
"""Scores N responses to N prompts: (N,), or (N, M) of an ensemble; `RewardJudge.score` and `Model.score` are two."""

ROUNDING = 1e-9
"""Difference of two mean scores, and coefficient of a fit, that is rounding alone."""
MIN_SIZES = 3
"""Points of a curve that its two coefficients need, the one at distance 0 included."""


class PolicyPoint(NamedTuple):
    """The scores of n responses of a policy to each of P prompts; n may differ from the baseline's."""

    kl: float | None
    """Divergence from the baseline in nats a response, if it is known."""
    gold: Floats  # (P, n)
    proxy: Floats | None = None  # (P, n), or (P, n, M)


def draw_responses(
    run: Run, key: str, policy: str, model: LoadedModel, prompts: list[Prompt], n: int, sampling: Sampling
) -> list[list[Response]]:
    """Generate n responses of a policy to each prompt, in the order of the prompts; stored ones are reused."""
    label = response_label(run, key, policy, sampling, f"{n} draws")
    return generate_draws(run, GenerationJob(model, label, sampling, BATCH_SIZE, f"{key}: {policy}, draws"), prompts, n)


def load_proxy(run: Run, judge: Judge) -> Model | None:
    """Load this round's reward model; None if there is none, or if it is the judge."""
    name = run.key(THIS_ROUND)
    if judge.name == name or not (run.folder / name / "config.json").exists():
        return None
    return load_reward_model(run, name)


def score_draws(score: ScoreFunction, prompts: list[Prompt], draws: list[list[Response]]) -> Floats:
    """Score n responses to each prompt: (P, n), or (P, n, M) if each gets M scores.

    A response that repeats is scored once, so equal responses have equal scores, whatever the rounding of a batch.
    """
    distinct = [list({response.id: response for response in responses}.values()) for responses in draws]
    texts = list(chain.from_iterable(distinct))
    aligned_prompts = [prompt for prompt, responses in zip(prompts, distinct, strict=True) for _ in responses]
    scores = torch.as_tensor(score(aligned_prompts, texts), dtype=torch.float64).cpu().numpy()
    row_of = {response.id: row for row, response in enumerate(texts)}
    table: Floats = scores[np.array([[row_of[response.id] for response in responses] for responses in draws])]
    return table


def measure_best_of_n(proxy: Floats | None, gold: Floats, points: Mapping[str, PolicyPoint]) -> dict[str, Any]:
    """Return the baseline's best-of-n curve for n = 1, 2, 4, ... and N, with the trained policies beside it, as JSON.

    All rewards are in the judge's units; `(gold - gold_mean) / gold_sd` is in deviations of the baseline's responses.

    Args:
        proxy: (P, N) or (P, N, M), the reward model's scores of the baseline's responses; None: there is no curve.
        gold: (P, N), the judge's scores of the same.
        points: the trained policies, on the same prompts. `equivalent_n` is the smallest n of the curve that reaches
            the policy's gold; None: none does. `margins` are the policy's gold minus that of each n.
    Differences are means over prompts with their standard errors, prompt by prompt, because hard prompts are hard for
    both: `fall` is the curve's peak, at `n_peak`, minus its end, and `rise` its end minus its start.

    Raises: ValueError for other shapes, and for scores that are not finite.
    """
    prompts, n = gold.shape
    sizes = sorted({2**power for power in range(n.bit_length())} | {n})
    combined = None if proxy is None else _combine(proxy)
    curve = () if combined is None else best_of_n_curve(combined, gold, sizes)
    best = np.empty((prompts, 0)) if combined is None else _best_golds(combined, gold, sizes)  # (P, S)
    fit = _fit(curve)
    result: dict[str, Any] = replace_nonfinite({
        "prompts": prompts,
        "n": n,
        "curve": [point._asdict() for point in curve],
        "fit": fit._asdict() if fit else None,
        "gold_mean": float(gold.mean()),
        "gold_sd": float(gold.std()),
        "policies": {policy: _place(point, curve, best) for policy, point in points.items()},
        **(_turn(curve, best) if curve else {}),
    })  # fmt: skip
    return result


def card_on_draws(draws: list[list[Response]], proxy: Floats, gold: Floats) -> dict[str, Any]:
    """Return how well the reward model tells a policy's own responses apart, as JSON.

    Every two responses to one prompt whose gold differs are a pair. Limits are those of the report card: a bootstrap
    over prompts, with few prompts Wilson's. Without a pair, `accuracy` and `longer_wins` are left out.

    Args: draws: P prompts, n responses each. proxy: (P, n) or (P, n, M), the reward model's scores. gold: (P, n), the
        judge's.
    """
    first, second = np.triu_indices(gold.shape[1], 1)
    order = np.sign(gold[:, first] - gold[:, second])  # (P, n (n - 1) / 2); 0: not decided
    prompts = np.nonzero(order)[0]  # of each pair

    def share_right(values: Floats) -> Interval:
        """Return how often the preferred response has the higher value, half for equal values."""
        correct = np.heaviside((order * (values[:, first] - values[:, second]))[order != 0], 0.5)
        interval = accuracy if len(set(prompts)) < MIN_CELL else bootstrap
        return interval(correct, prompts)

    scores = _combine(proxy)
    groups = np.repeat(np.arange(len(gold)), gold.shape[1])
    card: dict[str, Any] = {
        "n": len(set(prompts)),
        "pairs": len(prompts),
        "spearman": within_group_spearman(scores.ravel(), gold.ravel(), groups),
    }
    if len(prompts):
        rate, low, high, _ = share_right(scores)
        longer = share_right(np.array([[len(response.text.split()) for response in row] for row in draws], float))
        card |= {"accuracy": rate, "low": low, "high": high}
        card["longer_wins"] = {"rate": longer.rate, "low": longer.low, "high": longer.high}
    if proxy.ndim > 2 and proxy.shape[2] > 1:
        card["disagreement"] = float(ensemble_std(torch.from_numpy(proxy).flatten(0, 1)).mean())
    finite: dict[str, Any] = replace_nonfinite(card)
    return finite


def _combine(scores: Floats) -> Floats:
    """Return the mean of an ensemble's members, (P, n)."""
    combined: Floats = combine(torch.from_numpy(scores).flatten(0, 1)).numpy().reshape(scores.shape[:2])
    return combined


def _fit(curve: Sequence[CurvePoint]) -> Fit | None:
    """Fit the gain of gold over n = 1 along the distance; None where there is nothing to fit."""
    if len(curve) < MIN_SIZES:
        return None
    try:
        fit = fit_best_of_n([math.sqrt(point.kl) for point in curve], [point.gold - curve[0].gold for point in curve])
    except ValueError:
        return None
    return fit if max(abs(fit.alpha), abs(fit.beta)) > ROUNDING else None


def _best_golds(proxy: Floats, gold: Floats, sizes: Sequence[int]) -> Floats:
    """Return the gold of the best of n for each prompt, (P, S)."""
    return np.stack([best_of_n_rewards(*rewards, sizes) for rewards in zip(proxy, gold, strict=True)])


def _turn(curve: Sequence[CurvePoint], best: Floats) -> dict[str, Any]:
    """Return whether the curve falls from its peak, and whether it rises from its start."""
    peak = int(np.argmax([point.gold for point in curve]))
    fall = {"n_peak": curve[peak].n, **_difference(best[:, peak], best[:, -1])}
    return {"fall": fall, "rise": _difference(best[:, -1], best[:, 0])}


def _difference(first: Floats, second: Floats) -> dict[str, float]:
    """Return the mean of first - second over the same prompts, (P,) each, with its standard error."""
    mean = float((first - second).mean())
    return {"difference": mean if abs(mean) > ROUNDING else 0.0, "se": _standard_error(first - second)}


def _standard_error(values: Floats) -> float:
    """Return the standard error of a mean over prompts, (P,); NaN for a single prompt."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _place(point: PolicyPoint, curve: Sequence[CurvePoint], best: Floats) -> dict[str, Any]:
    """Return a trained policy's mean rewards, and its place on the curve, whose golds are `best` (P, S)."""
    by_prompt = point.gold.mean(axis=1)  # (P,)
    gold = float(by_prompt.mean())
    return {
        "kl": point.kl,
        "gold": gold,
        "gold_se": _standard_error(by_prompt),
        "proxy": None if point.proxy is None else float(point.proxy.mean()),
        "equivalent_n": next((size.n for size in curve if size.gold >= gold - ROUNDING), None),
        "margins": [{"n": size.n, **_difference(by_prompt, golds)} for size, golds in zip(curve, best.T, strict=True)],
    }
