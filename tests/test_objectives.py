"""Supervised and preference objectives by hand; their properties; the required contents of their files."""

import ast
import importlib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from assent.batch import LogprobPairs, Loss, RankedScores, RatedScores, ScorePairs, TokenLogprobsBatch, UnpairedLogprobs
from assent.errors import AssentError
from assent.objectives.bradley_terry import BradleyTerry
from assent.objectives.cdpo import CDPO
from assent.objectives.cross_entropy import CrossEntropy
from assent.objectives.dpo import DPO
from assent.objectives.ipo import IPO
from assent.objectives.kto import KTO
from assent.objectives.kway import KWay
from assent.objectives.orpo import ORPO
from assent.objectives.plackett_luce import PlackettLuce
from assent.objectives.regression import Regression
from assent.objectives.robust_dpo import RobustDPO
from assent.objectives.simpo import SimPO
from assent.registry import names, resolve

Batch = Any
Objective = Callable[[Batch], Loss]

PAIRED: list[Objective] = [DPO(), CDPO(), RobustDPO(), IPO(), IPO(per_token=True), ORPO(), SimPO()]
SCORED: list[Objective] = [
    BradleyTerry(),
    BradleyTerry(error_rate=0.1, center_rewards_coefficient=0.01),
    BradleyTerry(ties="davidson"),
    BradleyTerry(ties="rao_kupper", error_rate=0.1),
]


def pairs(margins: list[float], p: float | list[float] = 1.0, dtype: torch.dtype = torch.float32) -> LogprobPairs:
    """Return pairs of four tokens each, with these margins between the log-ratios of chosen and rejected."""
    chosen = tensor(margins, dtype=dtype)
    ones = torch.ones_like(chosen)
    return LogprobPairs(
        chosen / 2, -chosen / 2, 0 * ones, 0 * ones, 4 * ones, 4 * ones, ones * tensor(p).to(dtype), ones
    )


def scores(chosen: list[float], rejected: list[float], margin: float | list[float] = 0.0, p: float = 1.0) -> ScorePairs:
    ones = torch.ones(len(chosen))
    return ScorePairs(tensor(chosen), tensor(rejected), p * ones, ones * tensor(margin), ones)


def golden_pairs() -> LogprobPairs:
    chosen, rejected = tensor([-0.5, -10, -1]), tensor([-0.1, -30, -21])
    ones = torch.ones(3)
    return LogprobPairs(
        chosen, rejected, tensor([-0.5, -10.1, -0.1]), tensor([-0.1, -20.1, -0.1]), ones, ones, ones, ones
    )


def row_losses(losses: Objective, batch: Batch) -> list[float]:
    """Return the loss of each row."""
    n = len(batch.weight)
    return [losses(select_rows(batch, slice(i, i + 1))).value.item() for i in range(n)]


def select_rows(batch: Batch, index: Any) -> Batch:
    """Return some rows of a batch."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{k: v[index] for k, v in tensors.items() if isinstance(v, Tensor)})


# Golden numbers


def test_cross_entropy_is_one_mean_over_the_tokens_of_the_step() -> None:
    # (1 + 3) / 8 for a step of eight tokens, (1 + 3) / 2 for the batch alone.
    batch = TokenLogprobsBatch(tensor([-1.0, -3.0]), torch.ones(2), total=8.0)
    assert CrossEntropy()(batch).value == 0.5
    assert CrossEntropy()(replace(batch, total=0.0)).value == 2.0


def test_cross_entropy_does_not_read_an_untrained_token() -> None:
    logprobs = tensor([-1.0, -math.inf, math.nan], requires_grad=True)
    loss = CrossEntropy()(TokenLogprobsBatch(logprobs, tensor([1.0, 0.0, 0.0])))
    loss.value.backward()
    assert loss.value == 1 and logprobs.grad is not None and logprobs.grad.tolist() == [-1, 0, 0]


def test_bradley_terry_by_hand() -> None:
    # d = 1, 0, -3: the mean of log(1 + e^-d) is (0.313262 + 0.693147 + 3.048587) / 3 = 1.351665.
    # Less the margins d = 1, -1, -3.5: (0.313262 + 1.313262 + 3.529750) / 3 = 1.718758.
    batch = scores([1, 0, -2], [0, 0, 1])
    assert BradleyTerry()(batch).value.item() == pytest.approx(1.351665, abs=1e-6)
    assert BradleyTerry()(replace(batch, margin=tensor([0, 1, 0.5]))).value.item() == pytest.approx(1.718758, abs=1e-6)


def test_error_rate_bounds_the_loss_of_a_wrong_label() -> None:
    # P = (1 - e) s(d) + e / 2.
    loss = BradleyTerry(error_rate=0.1)
    assert loss(scores([2], [0])).value.item() == pytest.approx(-math.log(0.9 / (1 + math.exp(-2)) + 0.05))
    assert loss(scores([-1000], [0])).value.item() == pytest.approx(-math.log(0.05))


def test_center_rewards_coef_adds_the_squared_sum_of_scores() -> None:
    # 0.1 * ((3 + 1)^2 + (1 - 1)^2) / 2 = 0.8.
    batch = scores([3, 1], [1, -1])
    assert (
        BradleyTerry(center_rewards_coefficient=0.1)(batch).value - BradleyTerry()(batch).value
    ).item() == pytest.approx(0.8)


@pytest.mark.parametrize("error_rate", [0.0, 0.1])
@pytest.mark.parametrize("objective", [BradleyTerry(ties="davidson", nu=0.5), BradleyTerry(ties="rao_kupper", eta=1.5)])
@given(d=st.floats(-6, 6))
def test_probabilities_of_win_tie_loss_sum_to_one(objective: BradleyTerry, error_rate: float, d: float) -> None:
    objective = replace(objective, error_rate=error_rate)
    probabilities = [math.exp(-objective(scores([d], [0.0], p=p)).value.item()) for p in (1.0, 0.5, 0.0)]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("d", [0.0, 1.0])
def test_models_of_ties_agree_with_their_formulas(d: float) -> None:
    davidson = BradleyTerry(ties="davidson", nu=0.7)
    rao_kupper = BradleyTerry(ties="rao_kupper", eta=1.7)
    tie = 0.7 / (math.exp(d / 2) + math.exp(-d / 2) + 0.7)
    assert davidson(scores([d], [0], p=0.5)).value.item() == pytest.approx(-math.log(tie))
    win = 1 / (1 + math.exp(math.log(1.7) - d))
    assert rao_kupper(scores([d], [0])).value.item() == pytest.approx(-math.log(win))


def test_tie_probability_of_equal_scores_is_the_setting() -> None:
    # At d = 0 the tie has nu / (2 + nu) with nu = 1, and (eta - 1) / (eta + 1) with eta = 2: 1/3.
    for objective in (BradleyTerry(ties="davidson"), BradleyTerry(ties="rao_kupper")):
        assert objective(scores([1], [1], p=0.5)).value.item() == pytest.approx(math.log(3))


def test_tie_pulls_unequal_scores_together() -> None:
    for objective in SCORED:
        chosen = tensor([1.0], requires_grad=True)
        objective(replace(scores([1], [-1], p=0.5), chosen=chosen)).value.backward()
        assert chosen.grad is not None and chosen.grad.item() > 0


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    # The scores of test_bradley_terry_by_hand.
    order = tensor([[0, 1]]).expand(3, 2)
    both = torch.ones(3, 2, dtype=torch.bool)
    batch = RankedScores(tensor([[1.0, 0], [0, 0], [-2, 1]]), order, both, torch.ones(3))
    for objective in (PlackettLuce(), KWay()):
        loss = objective(batch)
        assert loss.value.item() == pytest.approx(1.351665, abs=1e-6)
        assert loss.metrics["accuracy"].item() == pytest.approx(0.5)


def test_kway_weights_long_and_short_rankings_equally() -> None:
    scores = tensor([[2.0, 1, 0, -1], [0, 0, 0, 0]])
    tiers = tensor([[0, 1, 2, 3], [0, 1, 0, 0]])
    mask = tensor([[True] * 4, [True, True, False, False]])
    # 0.207038 is derived in test_functional.py, test_kway_loss_of_four_by_hand; the second row has one pair, d = 0.
    loss = KWay()(RankedScores(scores, tiers, mask, tensor([1.0, 3.0])))
    assert loss.value.item() == pytest.approx((0.207038 + 3 * math.log(2)) / 4, abs=1e-6)
    assert loss.metrics["accuracy"].item() == pytest.approx((1 + 3 * 0.5) / 4)


def test_regression_is_the_mean_squared_error() -> None:
    loss = Regression()(RatedScores(tensor([1.0, 0.0]), tensor([0.0, 3.0]), tensor([1.0, 3.0])))
    # (1 * 1^2 + 3 * 3^2) / 4 and (1 * 1 + 3 * 3) / 4.
    assert loss.value == 7 and loss.metrics["mae"] == 2.5


def test_dpo_cdpo_and_ipo_by_hand() -> None:
    # Margins of log-ratios 0, 10, 20, so h = 0.1 margin = 0, 1, 2. DPO: log(1 + e^-h). cDPO: DPO + 0.1 h.
    # IPO: (margin - 1 / (2 * 0.1))^2 = (0 - 5)^2, (10 - 5)^2, (20 - 5)^2.
    assert row_losses(DPO(), golden_pairs()) == pytest.approx([0.693147, 0.313262, 0.126928], abs=1e-6)
    assert DPO()(golden_pairs()).value.item() == pytest.approx(0.377779, abs=1e-6)
    assert row_losses(CDPO(), golden_pairs()) == pytest.approx([0.693147, 0.413262, 0.326928], abs=1e-6)
    assert row_losses(IPO(), golden_pairs()) == pytest.approx([25, 25, 225], abs=1e-4)


def test_dpo_reports_its_implicit_rewards() -> None:
    # Log-ratios of the chosen 0, 0.1, -0.9 and of the rejected 0, -9.9, -20.9, times beta = 0.1, over three pairs.
    metrics = {name: value.item() for name, value in DPO()(golden_pairs()).metrics.items()}
    expected = {"chosen": (0 + 0.1 - 0.9) / 30, "rejected": (0 - 9.9 - 20.9) / 30, "margin": 1.0, "accuracy": 2.5 / 3}
    assert metrics == pytest.approx(expected | {"loss": 0.377779}, abs=1e-6)


@pytest.mark.parametrize("objective", [DPO(), DPO(beta=0.5), CDPO(), RobustDPO()])
@pytest.mark.parametrize("p", [1.0, 0.5, 0.2])
def test_first_loss_of_dpo_is_ln_2(objective: Objective, p: float) -> None:
    assert objective(pairs([0.0, 0.0], p)).value.item() == pytest.approx(math.log(2), abs=1e-6)


def test_robust_dpo_is_unbiased_under_known_label_flips() -> None:
    # h = 0.1 * 3: log(1 + e^-0.3) = 0.554355, log(1 + e^0.3) = 0.854355; 1 - 2 * 0.2 = 0.6.
    truth, flipped = pairs([3.0]), pairs([3.0], p=0.0)
    loss = RobustDPO(label_smoothing=0.2)
    assert loss(truth).value.item() == pytest.approx((0.8 * 0.554355 - 0.2 * 0.854355) / 0.6, abs=1e-6)
    expected = 0.8 * loss(truth).value + 0.2 * loss(flipped).value
    assert expected.item() == pytest.approx(DPO()(truth).value.item(), abs=1e-6)


def test_robust_dpo_refuses_an_error_rate_of_one_half() -> None:
    with pytest.raises(AssentError, match=r"label_smoothing is 0\.5"):
        RobustDPO(label_smoothing=0.5)


@pytest.mark.parametrize(("margin", "loss"), [(5.0, 0.0), (4.0, 1.0), (7.0, 4.0)])
def test_ipo_loss_is_the_squared_distance_from_the_gap(margin: float, loss: float) -> None:
    # (margin - 1 / (2 * 0.1))^2.
    assert IPO(beta=0.1)(pairs([margin])).value.item() == pytest.approx(loss, abs=1e-6)


def test_ipo_has_no_gap_for_ties_and_can_divide_by_length() -> None:
    # (2 - 0)^2; four tokens each: (10 / 4 + 10 / 4 - 5)^2.
    assert IPO()(pairs([2.0], p=0.5)).value.item() == pytest.approx(4)
    assert IPO(per_token=True)(pairs([20.0])).value.item() == pytest.approx(0)


def test_orpo_adds_an_odds_ratio_to_the_sft_loss() -> None:
    ones = torch.ones(1)
    batch = LogprobPairs(tensor([-1.0]), tensor([-3.0]), 0 * ones, 0 * ones, 2 * ones, 3 * ones, ones, ones)
    # Means over tokens -1/2 and -3/3; L = -mean + 0.3 log(1 + 1 / odds ratio).
    chosen, rejected = math.exp(-0.5), math.exp(-1)
    odds = chosen / (1 - chosen) / (rejected / (1 - rejected))
    expected = 0.5 + 0.3 * math.log1p(1 / odds)
    assert ORPO(orpo_lambda=0.3)(batch).value.item() == pytest.approx(expected, abs=1e-6)


def test_simpo_compares_means_over_tokens_with_a_margin() -> None:
    ones = torch.ones(1)
    batch = LogprobPairs(tensor([-1.0]), tensor([-3.0]), 0 * ones, 0 * ones, 2 * ones, 3 * ones, ones, ones)
    # h - gamma = 2 (-1/2 + 3/3) - 0.5 = 0.5.
    assert SimPO(beta=2, gamma=0.5)(batch).value.item() == pytest.approx(math.log1p(math.exp(-0.5)), abs=1e-6)


def unpaired(gains: list[float], desirable: list[bool], mismatched: float | list[float] = 0.0) -> UnpairedLogprobs:
    logprobs = tensor(gains)
    ones = torch.ones_like(logprobs)
    return UnpairedLogprobs(logprobs, 0 * ones, tensor(desirable), ones, ones * tensor(mismatched))


def test_kto_measures_gains_from_the_reference_point() -> None:
    loss = KTO(beta=0.1, desirable_weight=1.0, undesirable_weight=2.0)(
        unpaired([30.0, 10.0], [True, False], [14.0, 6.0])
    )
    # Reference point (14 + 6) / 2 = 10; gains 0.1 (30 - 10) = 2 and 0.1 (10 - 10) = 0; losses s(-2) and 2 s(0).
    good, bad = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(0))
    assert loss.value.item() == pytest.approx((good + 2 * bad) / 2, abs=1e-6)
    assert loss.metrics["kl"] == 10 and loss.metrics["accuracy"] == 0.75


def test_kto_starts_at_half_with_a_reference_point_at_least_0() -> None:
    assert KTO()(unpaired([0.0, 0.0], [True, False])).value == 0.5
    assert KTO()(unpaired([0.0, 0.0], [True, True], -50.0)).value == 0.5


def test_kto_sends_no_gradient_through_its_reference_point() -> None:
    mismatched = tensor([3.0, 5.0], requires_grad=True)
    logprobs = tensor([1.0, 2.0], requires_grad=True)
    KTO()(replace(unpaired([1, 2], [True, False]), logprobs=logprobs, mismatched=mismatched)).value.backward()
    assert mismatched.grad is None and logprobs.grad is not None
    assert logprobs.grad[0] < 0 < logprobs.grad[1]


# Properties


def with_gradients(batch: Batch) -> Batch:
    """Return the batch with gradients for the outputs of the model."""
    names = ("logprobs", "scores", "chosen", "rejected")
    leaves = {name: getattr(batch, name) for name in names if hasattr(batch, name)}
    return replace(batch, **{name: value.clone().requires_grad_() for name, value in leaves.items()})


def gradients(objective: Objective, batch: Batch) -> list[Tensor]:
    batch = with_gradients(batch)
    objective(batch).value.backward()
    return [v.grad for f in fields(batch) if isinstance(v := getattr(batch, f.name), Tensor) and v.grad is not None]


def all_cases() -> list[tuple[Objective, Batch]]:
    """Return each objective with a batch of four different rows."""
    torch.manual_seed(0)
    weight = tensor([1.0, 2.0, 0.5, 1.5]).double()

    def sample(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    p = tensor([1.0, 0.5, 0.3, 0.0]).double()
    lengths = tensor([3.0, 5.0, 2.0, 7.0]).double()
    two = LogprobPairs(sample(4) - 9, sample(4) - 9, sample(4) - 9, sample(4) - 9, lengths, lengths.flip(0), p, weight)
    scored = ScorePairs(sample(4), sample(4), p, sample(4).abs(), weight)
    alone = UnpairedLogprobs(
        sample(4), sample(4), tensor([True, False, True, True]), weight, tensor(0.3).double().expand(4)
    )
    mask = tensor([[True, True, True], [True, True, False], [True, True, True], [True, True, False]])
    tiers = tensor([[0, 1, 2], [1, 0, 0], [2, 2, 1], [0, 1, 1]])
    return [
        (CrossEntropy(), TokenLogprobsBatch(sample(4), weight)),
        (Regression(), RatedScores(sample(4), sample(4), weight)),
        (PlackettLuce(), RankedScores(sample(4, 3), tiers, mask, weight)),
        (KWay(), RankedScores(sample(4, 3), tiers, mask, weight)),
        (KTO(undesirable_weight=1.3), alone),
        *((objective, two) for objective in PAIRED),
        *((objective, scored) for objective in SCORED),
    ]


CASES = pytest.mark.parametrize(("objective", "batch"), all_cases(), ids=lambda x: repr(x) if is_objective(x) else "")


def is_objective(value: object) -> bool:
    return callable(value)


@CASES
def test_microbatch_losses_add_up_to_the_step(objective: Objective, batch: Batch) -> None:
    whole = objective(batch)
    total = float(batch.weight.sum())
    parts = [replace(select_rows(batch, index), total=total) for index in (slice(0, 1), slice(1, 4))]
    losses = [objective(part) for part in parts]
    assert torch.allclose(losses[0].value + losses[1].value, whole.value)
    for name, value in whole.metrics.items():
        assert torch.allclose(losses[0].metrics[name] + losses[1].metrics[name], value), name
    halves = zip(*(gradients(objective, part) for part in parts), strict=True)
    for (first, second), grad in zip(halves, gradients(objective, batch), strict=True):
        assert torch.allclose(torch.cat([first, second]), grad)


@CASES
def test_repeated_row_with_half_weight_changes_no_loss(objective: Objective, batch: Batch) -> None:
    doubled = select_rows(batch, tensor([0, 1, 1, 2, 3, 3]))
    doubled = replace(doubled, weight=doubled.weight * tensor([1, 0.5, 0.5, 1, 0.5, 0.5]).double())
    assert torch.allclose(objective(doubled).value, objective(batch).value)
    for grad, twice in zip(gradients(objective, batch), gradients(objective, doubled), strict=True):
        assert torch.allclose(twice[1] + twice[2], grad[1])


@CASES
def test_row_without_weight_has_no_gradient(objective: Objective, batch: Batch) -> None:
    weightless = replace(batch, weight=batch.weight * tensor([1.0, 0, 1, 1]).double())
    for grad in gradients(objective, weightless):
        assert (grad[1] == 0).all() and (grad[0] != 0).any()


@CASES
@pytest.mark.parametrize("rows", [4, 0])
def test_step_without_weight_has_loss_and_gradient_0(objective: Objective, batch: Batch, rows: int) -> None:
    weightless = select_rows(replace(batch, weight=0 * batch.weight), slice(0, rows))
    loss = objective(weightless)
    assert loss.value == 0 and {value.item() for value in loss.metrics.values()} == {0.0}
    assert all((grad == 0).all() for grad in gradients(objective, weightless))


@pytest.mark.parametrize("objective", [IPO(per_token=True), ORPO(), SimPO()], ids=repr)
def test_completion_without_tokens_has_a_mean_of_0(objective: Objective) -> None:
    none, ones = torch.zeros(1), torch.ones(1)
    empty = LogprobPairs(none, -2 * ones, none, -2 * ones, none, 2 * ones, ones, ones)  # cut before its first token
    counted = replace(empty, chosen_tokens=ones)
    assert objective(empty).value.isfinite() and objective(empty).value == objective(counted).value
    assert all(grad.isfinite().all() for grad in gradients(objective, empty))


@CASES
def test_metrics_carry_no_gradient_and_are_single_numbers(objective: Objective, batch: Batch) -> None:
    loss = objective(with_gradients(batch))
    assert loss.value.requires_grad and loss.value.shape == ()
    assert all(not value.requires_grad and value.shape == () for value in loss.metrics.values())
    assert torch.equal(loss.metrics["loss"], loss.value.detach())


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
@given(
    a=st.floats(-20, -0.1), b=st.floats(-20, -0.1), c=st.floats(-20, -0.1), d=st.floats(-20, -0.1), p=st.floats(0, 1)
)
def test_swapping_both_sides_and_the_target_changes_nothing(
    objective: Objective, a: float, b: float, c: float, d: float, p: float
) -> None:
    x, y, ref_x, ref_y, target = (tensor([value], dtype=torch.float64) for value in (a, b, c, d, p))
    ones = torch.ones_like(x)
    pair = LogprobPairs(x, y, ref_x, ref_y, 3 * ones, 5 * ones, target, ones)
    swapped = LogprobPairs(y, x, ref_y, ref_x, 5 * ones, 3 * ones, 1 - target, ones)
    result, back = objective(pair), objective(swapped)
    assert torch.allclose(result.value, back.value)
    assert torch.allclose(result.metrics["margin"], -back.metrics["margin"])
    assert torch.allclose(result.metrics["accuracy"], back.metrics["accuracy"])


@pytest.mark.parametrize("objective", SCORED, ids=repr)
@given(a=st.floats(-9, 9), b=st.floats(-9, 9), p=st.floats(0, 1))
def test_swapping_scores_and_the_target_changes_nothing(objective: Objective, a: float, b: float, p: float) -> None:
    w, r, target = (tensor([x], dtype=torch.float64) for x in (a, b, p))
    ones = torch.ones_like(w)
    result = objective(ScorePairs(w, r, target, 0 * ones, ones)).value
    assert torch.allclose(result, objective(ScorePairs(r, w, 1 - target, 0 * ones, ones)).value)


@pytest.mark.parametrize("objective", [DPO(), RobustDPO(), ORPO(), SimPO()], ids=repr)
@given(margin=st.floats(-20, -0.5))
def test_certain_preference_always_raises_the_chosen_completion(objective: Objective, margin: float) -> None:
    ones = torch.ones(1)
    batch = LogprobPairs(margin - ones, -ones, 0 * ones - 5, 0 * ones - 5, 4 * ones, 4 * ones, ones, ones)
    chosen, rejected = gradients(objective, batch)
    assert chosen.item() < 0 < rejected.item()


@pytest.mark.parametrize("objective", [CDPO(), IPO()], ids=repr)
def test_margin_beyond_the_target_is_reduced(objective: Objective) -> None:
    for margin, sign in ((1.0, -1), (60.0, 1)):
        chosen, rejected = gradients(objective, pairs([margin]))
        assert math.copysign(1, chosen.item()) == sign == -math.copysign(1, rejected.item())


EXTREMES = st.sampled_from([-1e4, -300.0, -1.0, -1e-6, 0.0])


@pytest.mark.parametrize("objective", PAIRED, ids=repr)
@given(chosen=EXTREMES, rejected=EXTREMES, reference=EXTREMES, p=st.sampled_from([0.0, 0.5, 1.0]))
def test_pairs_stay_finite_at_the_extremes_in_bfloat16(
    objective: Objective, chosen: float, rejected: float, reference: float, p: float
) -> None:
    w, r, ref, target = (tensor([x], dtype=torch.bfloat16) for x in (chosen, rejected, reference, p))
    ones = torch.ones_like(w)
    batch = LogprobPairs(w, r, ref, ref, ones, ones, target, ones)
    loss = objective(batch)
    assert loss.value.isfinite() and all(value.isfinite() for value in loss.metrics.values())
    assert all(grad.isfinite().all() for grad in gradients(objective, batch))


@pytest.mark.parametrize("objective", SCORED, ids=repr)
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("d", [-1e4, 0.0, 1e4])
def test_scores_stay_finite_at_the_extremes_in_bfloat16(objective: Objective, d: float, p: float) -> None:
    chosen, rejected, target, ones = (tensor([x], dtype=torch.bfloat16) for x in (d, 0.0, p, 1.0))
    batch = ScorePairs(chosen, rejected, target, 0 * ones, ones)
    assert objective(batch).value.isfinite()
    assert all(grad.isfinite().all() for grad in gradients(objective, batch))


@pytest.mark.parametrize("d", [-1e4, 0.0, 1e4])
def test_other_objectives_stay_finite_at_extremes_in_bfloat16(d: float) -> None:
    x = tensor([d], dtype=torch.bfloat16)
    ones = torch.ones(1, dtype=torch.bfloat16)
    yes = tensor([True])
    ranked = RankedScores(torch.stack([x, ones, x], 1), tensor([[0, 1, 2]]), tensor([[True, True, False]]), ones)
    cases: list[tuple[Objective, Batch]] = [
        (PlackettLuce(), ranked),
        (KWay(), ranked),
        (Regression(), RatedScores(x, 0 * ones, ones)),
        (KTO(), UnpairedLogprobs(x, 0 * ones, yes, ones, -x)),
        (CrossEntropy(), TokenLogprobsBatch(-x.abs(), ones)),
    ]
    for objective, batch in cases:
        assert objective(batch).value.isfinite()
        assert all(grad.isfinite().all() for grad in gradients(objective, batch))


# Files of objectives


@pytest.mark.parametrize("name", names("objectives"))
def test_objective_file_has_equation_source_and_settings(name: str) -> None:
    objective = resolve("objectives", name)
    assert objective.__dataclass_params__.frozen
    assert isinstance(objective(), objective), "every setting has a default"
    docstring = inspect.getmodule(objective).__doc__ or ""
    assert re.match(r"[\w. -]+: .+[.;:]", docstring), "a name and a sentence"
    assert re.search(r"arXiv:\d{4}\.\d{5}|doi:10\.\d+/|\(\S+\.ai/\S+\.pdf\)", docstring), "a source"
    assert re.search(r"^    .*=.*$", docstring, re.MULTILINE), "an equation"
    returns = inspect.signature(objective.__call__).return_annotation
    assert returns is Loss
    described = set().union(*(documented(cls) for cls in objective.__mro__[:-1]))
    assert {f.name for f in fields(objective)} <= described


@pytest.mark.parametrize("name", [n for n in names("objectives") if hasattr(resolve("objectives", n), "advantages")])
def test_online_objectives_declare_needs_values(name: str) -> None:
    assert resolve("objectives", name).needs_values is (name == "ppo")


def documented(cls: type) -> set[str]:
    """Return the settings that are followed by a docstring."""
    tree = ast.parse(inspect.getsource(importlib.import_module(cls.__module__)))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    return {
        field.target.id
        for field, after in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    }


@dataclass
class Bare:
    """An objective with an undocumented setting: the test of settings can fail."""

    setting: int = 0
    """A documented setting."""
    undocumented: int = 0


def test_undocumented_setting_is_detected() -> None:
    assert documented(Bare) == {"setting"}
