"""Functions of assent/functional: by hand and against other implementations."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, tensor

from assent.functional.advantages import (
    frac_reward_zero_std,
    gae,
    group_relative,
    leave_one_out,
    token_rewards,
)
from assent.functional.finite import replace_nonfinite
from assent.functional.kl import KLEstimator, adapt_beta, k1, k2, k3, kl_loss, sequence_kl
from assent.functional.losses import kway_loss, pair_loss, pair_metrics, plackett_luce_loss
from assent.functional.statistics import accuracy, bootstrap, clustered_win_rate, wilson, win_rate
from assent.functional.surrogate import clipped_surrogate, clipped_value_loss, importance_ratio, log_ratio
from assent.functional.whitening import explained_variance, moments, whiten

NAN, INF = math.nan, math.inf
scalars = st.floats(-8, 8, allow_nan=False)
Rows = Sequence[float] | Sequence[Sequence[float]]


def close(actual: Tensor, expected: Rows | float, digits: float = 1e-6) -> bool:
    return torch.allclose(actual.double(), tensor(expected, dtype=torch.float64), rtol=0, atol=digits)


# KL


def test_kl_estimators_by_hand() -> None:
    # l = log pi - log ref = -1, 14, 29: k1 = l, k2 = l^2 / 2, k3 = e^-l - 1 + l.
    # k3: e - 2 = 0.718282, e^-14 + 13 = 13.000001, e^-29 + 28 = 28.
    logprobs, reference = tensor([-1.0, -1.0, -1.0]), tensor([0.0, -15.0, -30.0])
    assert close(k1(logprobs, reference), [-1, 14, 29])
    assert close(k2(logprobs, reference), [0.5, 98, 420.5])
    assert close(k3(logprobs.double(), reference.double()), [0.718282, 13.000001, 28])


@given(scalars, scalars)
def test_k3_is_positive_except_for_equal_logprobs(a: float, b: float) -> None:
    value = k3(tensor(a, dtype=torch.float64), tensor(b, dtype=torch.float64)).item()
    assert value >= -1e-15
    assert (value > 0) == (a != b) or abs(a - b) < 1e-6


def test_k1_and_k3_are_unbiased_on_a_small_vocabulary() -> None:
    policy, reference = tensor([0.7, 0.2, 0.1]).log(), tensor([0.2, 0.3, 0.5]).log()
    exact = (policy.exp() * (policy - reference)).sum()
    assert torch.allclose((policy.exp() * k1(policy, reference)).sum(), exact)
    assert torch.allclose((policy.exp() * k3(policy, reference)).sum(), exact)


def gradients_of_a_kl() -> dict[str, Tensor]:
    """Return exact gradients with respect to three logits: of both KLs, and of each estimator used as a loss."""
    logits = tensor([1.2, -0.3, 0.4], dtype=torch.float64, requires_grad=True)
    policy = logits.log_softmax(0)
    reference = tensor([0.2, 0.3, 0.5]).double().log()
    probabilities = policy.detach().exp()
    ratio = policy - reference
    losses = {
        "forward": (reference.exp() * (reference - policy)).sum(),
        "reverse": (policy.exp() * ratio).sum(),
        "k1": (probabilities * k1(policy, reference)).sum(),
        "k2": (probabilities * kl_loss(ratio, "k2")).sum(),
        "k3": (probabilities * kl_loss(ratio, "k3")).sum(),
        "away": logits.softmax(0).detach() @ logits - reference.exp() @ logits,  # its gradient is pi - ref
    }
    return {name: torch.autograd.grad(loss, logits, retain_graph=True)[0] for name, loss in losses.items()}


def test_kl_loss_k3_has_the_forward_gradient_and_k2_the_reverse() -> None:
    result = gradients_of_a_kl()
    assert torch.allclose(result["forward"], result["away"])
    assert torch.allclose(result["k3"], result["forward"])
    assert torch.allclose(result["k2"], result["reverse"])
    assert not torch.allclose(result["forward"], result["reverse"], rtol=0, atol=0.02)
    assert close(result["k1"], [0, 0, 0])


# At l = -30, k3 is that of the clamped -20, e^20 - 1 - 20, without a slope; k2 = 30^2 / 2 with the slope l.
@pytest.mark.parametrize(("estimator", "value", "slope"), [("k3", math.exp(20) - 21, 0.0), ("k2", 450.0, -30.0)])
def test_kl_loss_stays_finite_far_from_the_reference(estimator: KLEstimator, value: float, slope: float) -> None:
    away = tensor(-30.0, dtype=torch.float64, requires_grad=True)
    loss = kl_loss(away, estimator)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert away.grad is not None and away.grad.item() == slope


def test_completion_kl_sums_its_own_tokens_only() -> None:
    mask = tensor([[True, True, False], [True, False, False]])
    kl = sequence_kl(tensor([[1.0, 2.0, NAN], [0.5, INF, NAN]]), torch.zeros(2, 3), mask)
    # l = 1 and 2, and 0.5; k3 = e^-l - 1 + l.
    assert close(kl.k1, [3.0, 0.5])
    assert close(kl.k3, [math.exp(-1) + math.exp(-2) + 1, math.exp(-0.5) - 0.5])


@pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.1), (6.6, 0.102), (60.0, 0.104), (5.7, 0.099), (0.0, 0.096)])
def test_beta_changes_by_at_most_a_fifth_of_n_over_horizon(kl: float, expected: float) -> None:
    # 0.1 (1 + e * 512 / 2560), where e = kl / 6 - 1 is clipped to +-0.2.
    assert adapt_beta(0.1, kl, target=6, n=512, horizon=2560) == pytest.approx(expected, abs=1e-12)


# JSON


def test_non_finite_number_becomes_null_in_json() -> None:
    measured = {"loss": NAN, "win": {"rate": -INF, "n": 0}, "rows": [(INF, 1.5), "NaN"], "policy": None, "done": True}
    expected = {"loss": None, "win": {"rate": None, "n": 0}, "rows": [[None, 1.5], "NaN"], "policy": None, "done": True}
    assert replace_nonfinite(measured) == expected


# Advantages


# Deltas r_t + V_t+1 - V_t: 1, 1, 5 - 3 = 2. A_t = delta_t + lambda A_t+1: 1 + 0.95 * 2 = 2.9, 1 + 0.95 * 2.9 = 3.755.
@pytest.mark.parametrize(("gae_lambda", "expected"), [(0.0, [1, 1, 2]), (0.95, [3.755, 2.9, 2]), (1.0, [4, 3, 2])])
def test_gae_by_hand(gae_lambda: float, expected: list[float]) -> None:
    estimate = gae(tensor([[0.0, 0, 5]]), tensor([[1.0, 2, 3]]), torch.ones(1, 3, dtype=torch.bool), 1.0, gae_lambda)
    assert close(estimate.advantages, [expected])
    assert close(estimate.returns, [[e + v for e, v in zip(expected, [1, 2, 3], strict=True)]])


@pytest.mark.parametrize("hole", [None, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("garbage", [999.0, NAN, INF])
def test_gap_in_the_mask_changes_no_advantage(hole: int | None, garbage: float) -> None:
    # Deltas r_t + 0.99 V_t+1 - V_t: 0.098, 0.196, 0.095, 1 - 0.5. A_t = delta_t + 0.99 * 0.95 A_t+1 from the end:
    # 0.095 + 0.9405 * 0.5 = 0.56525, 0.196 + 0.9405 * 0.56525 = 0.727618, 0.098 + 0.9405 * 0.727618 = 0.782324.
    values = [0.1, 0.2, 0.4, 0.5]
    rewards = [0.0, 0.0, 0.0, 1.0]
    expected = [0.782324, 0.727618, 0.565250, 0.5]
    mask = [True] * 4
    if hole is not None:
        values.insert(hole, garbage)
        rewards.insert(hole, garbage)
        mask.insert(hole, False)
        expected.insert(hole, 0)
    estimate = gae(tensor([rewards]), tensor([values]), tensor([mask]), 0.99, 0.95)
    assert close(estimate.advantages, [expected])
    assert close(estimate.returns, [[e + v if m else 0 for e, v, m in zip(expected, values, mask, strict=True)]])


@given(st.lists(st.tuples(scalars, scalars, st.booleans()), min_size=1, max_size=8), st.integers(0, 3))
def test_gae_equals_the_sum_of_future_deltas_with_any_padding(
    steps: list[tuple[float, float, bool]], padding: int
) -> None:
    gamma, gae_lambda = 0.9, 0.8
    inside = [(r, v) for r, v, m in steps if m]
    follow = [v for _, v in inside[1:]] + [0.0]
    deltas = [r + gamma * after - v for (r, v), after in zip(inside, follow, strict=True)] if inside else []
    expected = [
        sum((gamma * gae_lambda) ** (j - i) * deltas[j] for j in range(i, len(deltas))) for i in range(len(deltas))
    ]
    r, v, m = (
        tensor([[s[i] for s in steps] + [fill] * padding], dtype=dtype)
        for i, fill, dtype in ((0, NAN, torch.float64), (1, NAN, torch.float64), (2, False, torch.bool))
    )
    estimate = gae(r, v, m, gamma, gae_lambda)
    assert close(estimate.advantages[m], expected, 1e-9)
    assert (estimate.advantages[~m] == 0).all() and (estimate.returns[~m] == 0).all()


def test_score_is_added_to_the_last_token_of_the_mask() -> None:
    mask = tensor([[True, True, False, False], [True, False, True, False], [False, False, False, False]])
    # Each token inside the mask costs beta * kl = 0.5 * 1; the last one also has the score.
    rewards = token_rewards(tensor([10.0, 20.0, 30.0]), torch.where(mask, 1.0, NAN), mask, beta=0.5)
    assert close(rewards, [[-0.5, 9.5, 0, 0], [-0.5, 0, 19.5, 0], [0.0] * 4])


def test_leave_one_out_by_hand() -> None:
    # 1 - (2 + 3 + 4) / 3 = -2, 2 - (1 + 3 + 4) / 3 = -2/3, and so on.
    assert close(leave_one_out(tensor([1.0, 2, 3, 4]), torch.zeros(4).long()), [-2, -2 / 3, 2 / 3, 2])


@given(st.lists(st.tuples(scalars, st.integers(0, 3)), min_size=1, max_size=12))
def test_leave_one_out_is_the_score_minus_the_mean_of_the_others(rows: list[tuple[float, int]]) -> None:
    result = leave_one_out(tensor([s for s, _ in rows], dtype=torch.float64), tensor([g for _, g in rows]))
    for i, (score, group) in enumerate(rows):
        others = [s for j, (s, g) in enumerate(rows) if g == group and j != i]
        assert result[i].item() == pytest.approx(score - sum(others) / len(others) if others else 0.0, abs=1e-9)


def test_group_relative_scores_ignore_other_groups() -> None:
    # Group 7 has 1 and 3: mean 2, unbiased deviation sqrt(2). Group 2 has 5 and 9: mean 7, deviation sqrt(8).
    scores = tensor([1.0, 5.0, 3.0, 9.0])
    groups = tensor([7, 2, 7, 2])
    assert close(group_relative(scores, groups, scale=False), [-1, -2, 1, 2])
    low, high = 1 / (math.sqrt(2) + 1e-4), 2 / (math.sqrt(8) + 1e-4)
    assert close(group_relative(scores, groups), [-low, -high, low, high])


@pytest.mark.parametrize("scale", [True, False])
def test_group_of_one_or_of_equals_has_zero_advantage(scale: bool) -> None:
    scores = tensor([4.0, 2.0, 2.0])
    groups = tensor([0, 1, 1])
    assert close(group_relative(scores, groups, scale), [0, 0, 0])
    assert close(leave_one_out(scores, groups), [0, 0, 0])
    assert frac_reward_zero_std(scores, groups) == 1
    assert frac_reward_zero_std(tensor([4.0, 2.0, 3.0]), groups) == 0.5


# Whitening


def test_whitening_by_hand() -> None:
    # Mean 2.5, unbiased variance 5/3: 1.5 / sqrt(5/3) = 1.1619, 0.5 / sqrt(5/3) = 0.3873.
    row = tensor([[1.0, 2, 3, 4]])
    assert close(whiten(row, torch.ones(1, 4, dtype=torch.bool)), [[-1.1619, -0.3873, 0.3873, 1.1619]], 5e-5)
    # Inside the mask 1, 2, 3, 4, 10: mean 4, unbiased variance (9 + 4 + 1 + 0 + 36) / 4 = 12.5; 3 / sqrt(12.5) = 0.849.
    ragged = tensor([[1.0, 2, 3, 4], [10, NAN, INF, -INF]])
    mask = tensor([[True] * 4, [True, False, False, False]])
    expected = [[x / math.sqrt(12.5) for x in (-3, -2, -1, 0)], [6 / math.sqrt(12.5), 0, 0, 0]]
    assert close(whiten(ragged, mask), expected)
    assert close(whiten(ragged, mask)[0], [-0.849, -0.566, -0.283, 0], 5e-4)


def test_whitening_removes_the_mean_and_leaves_unit_variance() -> None:
    torch.manual_seed(0)
    mask = torch.rand(8, 9) > 0.4
    mean, variance = moments(whiten(3 + 5 * torch.randn(8, 9), mask), mask)
    assert close(mean, 0.0) and close(variance, 1.0)


def test_whitening_is_finite_for_equal_single_and_no_values() -> None:
    for values, mask in (([2.0, 2.0], [True, True]), ([2.0, 3.0], [True, False]), ([2.0, 3.0], [False, False])):
        assert close(whiten(tensor(values), tensor(mask)), [0, 0])


def test_explained_variance_of_perfect_and_constant_critics() -> None:
    returns, mask = tensor([1.0, 2, 3, NAN]), tensor([True, True, True, False])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(tensor([7.0, 7, 7, NAN]), returns, mask) == 0
    # The returns have variance 1, and the errors -2, 0, 2 have variance 4: 1 - 4 / 1.
    assert explained_variance(tensor([3.0, 2, 1, 0]), returns, mask) == -3
    assert explained_variance(returns, tensor([2.0, 2, 2, 0]), mask) == 0


# Surrogate


@pytest.mark.parametrize(
    # max(-A ratio, -A clip(ratio, 0.8, 1.2)): for ratio 1.5 and A = 2, max(-3, -2.4) = -2.4.
    ("ratio", "advantage", "loss", "clipped"),
    [(1.0, 2, -2.0, 0), (1.5, 2, -2.4, 1), (0.5, 2, -1.0, 0), (1.5, -2, 3.0, 0), (0.5, -2, 1.6, 1), (1.1, -2, 2.2, 0)],
)
def test_clip_removes_gains_and_keeps_losses(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    surrogate = clipped_surrogate(tensor([ratio]), tensor([float(advantage)]), 0.2, 0.2)
    assert close(surrogate.loss, [loss]) and close(surrogate.clipped, [clipped])


def test_asymmetric_clip_has_a_higher_limit_for_good_actions() -> None:
    # max(-1.5, -(1 + 0.28)), and for A = -1 max(0.5, 1 - 0.2).
    assert close(clipped_surrogate(tensor([1.5]), tensor([1.0]), 0.2, 0.28).loss, [-1.28])
    assert close(clipped_surrogate(tensor([0.5]), tensor([-1.0]), 0.2, 0.28).loss, [0.8])


def test_dual_clip_bounds_the_loss_of_a_bad_action_only() -> None:
    # A = -1: min(5, 3) and min(2, 3); A = 1: -(1 + 0.2).
    ratio, advantages = tensor([5.0, 2.0, 5.0]), tensor([-1.0, -1.0, 1.0])
    assert close(clipped_surrogate(ratio, advantages, 0.2, 0.2, dual=3.0).loss, [3, 2, -1.2])


def test_value_loss_clips_values_near_the_old_ones() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    arguments = tensor([[1.0, 0.1, -1.0]]), torch.zeros(1, 3), tensor([[1.0, 1.0, 1.0]]), mask
    # Half of (0.2 - 1)^2, (0.1 - 1)^2 and (-1 - 1)^2; without the clip the first is (1 - 1)^2.
    assert close(clipped_value_loss(*arguments, clip=0.2), [[0.32, 0.405, 2.0]])
    assert close(clipped_value_loss(*arguments, clip=0.0), [[0.0, 0.405, 2.0]])


@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
def test_values_outside_the_mask_have_zero_gradient(garbage: float) -> None:
    mask = tensor([[True, False]])
    new = tensor([[-1.0, garbage]], requires_grad=True)
    values = tensor([[1.0, garbage]], requires_grad=True)
    junk = tensor([[0.5, garbage]])
    ratio = importance_ratio(log_ratio(new, junk, mask))
    (ratio.sum() + clipped_value_loss(values, junk, junk, mask, 0.2).sum()).backward()
    assert new.grad is not None and values.grad is not None
    assert new.grad[0, 1] == 0 and values.grad[0, 1] == 0
    # The ratio e^(-1 - 0.5) is its own derivative; that of (V - R)^2 / 2 is 1 - 0.5.
    assert new.grad[0, 0] == pytest.approx(math.exp(-1.5)) and values.grad[0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("shift", [1e4, -1e4, 300.0])
def test_ratio_is_finite_far_from_the_old_policy(shift: float) -> None:
    shifts = tensor([shift], requires_grad=True)
    surrogate = clipped_surrogate(importance_ratio(shifts), tensor([1.0]), 0.2, 0.2)
    surrogate.loss.sum().backward()
    assert surrogate.loss.isfinite().all() and shifts.grad is not None and shifts.grad.isfinite().all()


# Rankings


def test_kway_loss_of_four_by_hand() -> None:
    # Pairs with d = 1, 1, 1, 2, 2, 3, each log(1 + e^-d): (3 * 0.313262 + 2 * 0.126928 + 0.048587) / 6 = 0.207038.
    scores = tensor([[2.0, 1, 0, -1], [3, 3, 3, 3]])
    order = tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    assert close(kway_loss(scores, order), [0.207038, math.log(2)])


def test_completions_of_one_tier_are_not_compared() -> None:
    scores = tensor([[2.0, 1, 0, -1], [5, 1, 0, 0]])
    losses = kway_loss(scores, tensor([[0, 0, 1, 1], [2, 2, 2, 2]]))
    expected = sum(math.log1p(math.exp(-d)) for d in (2, 3, 1, 2)) / 4
    assert close(losses, [expected, 0.0])


def test_ranking_losses_ignore_padding() -> None:
    scores = tensor([[2.0, 1.0, NAN]], requires_grad=True)
    mask = tensor([[True, True, False]])
    loss = kway_loss(scores, tensor([[0, 1, 2]]), mask) + plackett_luce_loss(scores, tensor([[0, 1, 2]]), mask)
    loss.sum().backward()
    assert close(loss, [2 * math.log1p(math.exp(-1))])
    assert scores.grad is not None and scores.grad[0, 2] == 0 and scores.grad.isfinite().all()


@given(st.lists(scalars, min_size=2, max_size=5))
def test_plackett_luce_is_a_product_of_sequential_choices(scores: list[float]) -> None:
    losses = plackett_luce_loss(tensor([scores], dtype=torch.float64), torch.arange(len(scores))[None])
    chance = math.prod(math.exp(s) / sum(map(math.exp, scores[m:])) for m, s in enumerate(scores))
    assert losses.item() == pytest.approx(-math.log(chance), abs=1e-9)


def test_plackett_luce_of_ties_chooses_from_the_whole_tier() -> None:
    s = [1.0, 0.5, -2.0]
    single, another = (math.log(sum(map(math.exp, s))) - x for x in s[:2])
    assert close(plackett_luce_loss(tensor([s]), tensor([[4, 4, 9]])), [single + another])
    d = 0.7  # a tie of two: the loss of a half-win for both sides
    both = pair_loss(tensor([d]), tensor([0.5])) * 2
    assert close(plackett_luce_loss(tensor([[d, 0.0]]), tensor([[0, 0]])), both.tolist())


@given(st.permutations(range(5)))
def test_ranking_losses_do_not_depend_on_column_order(order: list[int]) -> None:
    scores = tensor([[2.0, 1, 0, -1, 3]], dtype=torch.float64)
    tiers = tensor([[0, 1, 1, 3, 2]])
    for loss in (kway_loss, plackett_luce_loss):
        assert torch.allclose(loss(scores, tiers), loss(scores[:, order], tiers[:, order]))


@given(scalars, st.floats(0, 1))
def test_pair_loss_is_symmetric_under_swapping(d: float, p: float) -> None:
    logits, target = tensor(d, dtype=torch.float64), tensor(p, dtype=torch.float64)
    assert torch.allclose(pair_loss(logits, target), pair_loss(-logits, 1 - target))


def test_pair_accuracy_counts_half_for_a_tie_on_either_side() -> None:
    chosen = tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    rejected = tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    metrics = pair_metrics(chosen, rejected, tensor([1.0, 1.0, 1.0, 0.5, 0.2]))
    assert close(metrics["accuracy"], [1, 0, 0.5, 0.5, 0])
    assert close(metrics["margin"], [1, -1, 0, 1, 1])


# Statistics


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (0, 10), (5, 10), (10, 10), (7, 9), (330, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(wins: int, n: int, confidence: float) -> None:
    peer = binomtest(wins, n).proportion_ci(confidence, method="wilson")
    interval = wilson(wins, n, confidence)
    assert interval[:3] == pytest.approx((wins / n, peer.low, peer.high), abs=1e-12)


def test_wilson_interval_without_data_is_0_to_1() -> None:
    interval = wilson(0, 0)
    assert math.isnan(interval.rate) and (interval.low, interval.high, interval.n) == (0, 1, 0)


def test_win_rate_counts_a_tie_for_half() -> None:
    rate = win_rate(wins=6, ties=2, losses=2)
    assert (rate.rate, rate.n, rate.wins, rate.ties, rate.losses) == (0.7, 10, 6, 2, 2)
    peer = binomtest(7, 10).proportion_ci(method="wilson")
    assert (rate.low, rate.high) == pytest.approx((peer.low, peer.high))
    mirrored = win_rate(wins=2, ties=2, losses=6)
    assert mirrored[:3] == pytest.approx((1 - rate.rate, 1 - rate.high, 1 - rate.low))


def test_pair_accuracy_has_an_interval() -> None:
    assert accuracy([1, 1, 0, 0.5]) == accuracy([1, 1, 0, 0.5], list("abcd")) == wilson(2.5, 4)


def test_accuracy_interval_counts_prompts_not_pairs() -> None:
    rows = [1.0, 1.0, 1.0, 0.0] * 20
    prompts = [f"prompt {n // 2}" for n in range(80)]
    assert accuracy(rows, prompts) == wilson(30, 40)._replace(n=80)
    assert accuracy([1.0] * 10, [n // 2 for n in range(10)]).low == wilson(5, 5).low


def test_correlated_clusters_widen_the_interval() -> None:
    random = np.random.default_rng(1)
    prompts = np.repeat(np.arange(100), 10)
    votes = np.repeat(random.random(100) < 0.6, 10).astype(float)
    clustered, independent = bootstrap(votes, prompts), bootstrap(votes, np.arange(1000))
    assert clustered.rate == independent.rate == votes.mean()
    widening = (clustered.high - clustered.low) / (independent.high - independent.low)
    # Ten equal votes of a prompt are one observation: the variance is ten times that of independent votes.
    assert widening == pytest.approx(math.sqrt(10), rel=0.15)


def test_bootstrap_interval_of_a_mean_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(2).normal(size=400)
    interval = bootstrap(values, np.arange(400), resamples=2000)
    # z s / sqrt(n) with z = 1.96 and n = 400.
    half = 1.96 * values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.015)


def test_bootstrap_repeats_with_its_seed_only() -> None:
    values = np.arange(50.0)
    clusters = np.arange(50) // 5
    assert bootstrap(values, clusters, seed=3) == bootstrap(values, clusters, seed=3)
    assert bootstrap(values, clusters, seed=3) != bootstrap(values, clusters, seed=4)


def test_bootstrap_of_one_cluster_has_no_limits() -> None:
    interval = bootstrap([1.0, 0.0], ["a", "a"])
    assert interval.rate == 0.5 and interval.n == 2 and math.isnan(interval.low) and math.isnan(interval.high)


def test_clustered_win_rate_counts_its_votes() -> None:
    rate = clustered_win_rate([1, 1, 0.5, 0], ["a", "a", "b", "b"])
    assert (rate.rate, rate.n, rate.wins, rate.ties, rate.losses) == (0.625, 4, 2, 1, 1)
    # Resamples of the two prompts have means (0.25 + 0.25) / 2, (1 + 0.25) / 2 and (1 + 1) / 2.
    assert (rate.low, rate.high) == (0.25, 1.0)
