"""Online objectives: numbers by hand and properties."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar, Protocol

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from assent.batch import Advantages, Loss, PolicyBatch, Rollout
from assent.objectives.dapo import DAPO
from assent.objectives.dr_grpo import DrGRPO
from assent.objectives.grpo import GRPO
from assent.objectives.gspo import GSPO
from assent.objectives.ppo import PPO
from assent.objectives.reinforce import Reinforce
from assent.objectives.rloo import RLOO


class Objective(Protocol):
    needs_logprobs: ClassVar[bool]

    def advantages(self, rollout: Rollout) -> Advantages: ...

    def __call__(self, batch: PolicyBatch) -> Loss: ...


ALL_OBJECTIVES = pytest.mark.parametrize(
    "objective",
    [
        PPO(),
        PPO(dual_clip=3.0),
        GRPO(),
        GRPO(scale_rewards="none"),
        DrGRPO(),
        DAPO(),
        GSPO(beta=0.1),
        RLOO(),
        Reinforce(),
    ],
    ids=repr,
)
MASK = tensor([[True, True, False, True], [True, True, False, False], [True, False, False, False], [True] * 4])


def rollout(garbage: float = 0.0, dtype: torch.dtype = torch.float64) -> Rollout:
    torch.manual_seed(0)
    logprobs, reference, values = (torch.randn(4, 4, dtype=torch.float64) for _ in range(3))
    batch = [torch.where(MASK, x, garbage).to(dtype) for x in (-logprobs.abs(), -reference.abs(), values)]
    return Rollout(MASK, batch[0], batch[1], tensor([1.0, 3, -2, 0], dtype=dtype), tensor([5, 5, 1, 1]), batch[2])


def policy_batch(objective: Objective, garbage: float = 0.0, noise: float = 0.5) -> PolicyBatch:
    """Return a rollout under a changed policy, with gradients."""
    rollout_batch = rollout(garbage)
    torch.manual_seed(1)
    estimate = objective.advantages(rollout_batch)
    assert rollout_batch.values is not None
    logprobs = (rollout_batch.logprobs + noise * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    batch = PolicyBatch(
        MASK,
        logprobs,
        rollout_batch.logprobs,
        rollout_batch.reference_logprobs,
        torch.where(MASK, estimate.advantages, garbage),
    )
    if estimate.returns is None:
        return batch
    values = (rollout_batch.values + noise * torch.randn(4, 4, dtype=torch.float64)).requires_grad_()
    return replace(
        batch, values=values, old_values=rollout_batch.values, returns=torch.where(MASK, estimate.returns, garbage)
    )


def select_rows(batch: PolicyBatch, rows: slice) -> PolicyBatch:
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    parts: dict[str, Any] = {k: v[rows].detach() for k, v in tensors.items() if isinstance(v, Tensor)}
    parts["logprobs"].requires_grad_()
    if batch.values is not None:
        parts["values"].requires_grad_()
    return replace(batch, **parts)


def one_completion(
    logprobs: list[float], old: list[float], advantages: list[float], reference: float = 0.0
) -> PolicyBatch:
    """Return a batch of one completion."""
    new = tensor([logprobs])
    return PolicyBatch(
        torch.ones_like(new, dtype=torch.bool), new, tensor([old]), new - reference, tensor([advantages])
    )


# Properties of every online objective


@ALL_OBJECTIVES
def test_step_without_tokens_has_loss_and_gradient_0(objective: Objective) -> None:
    batch = replace(policy_batch(objective, math.nan), mask=torch.zeros_like(MASK))
    loss = objective(batch)
    loss.value.backward()
    assert loss.value == 0 and all(metric.isfinite() for metric in loss.metrics.values())
    assert batch.logprobs.grad is not None and (batch.logprobs.grad == 0).all()
    if batch.values is not None:
        assert batch.values.grad is not None and (batch.values.grad == 0).all()


@ALL_OBJECTIVES
@pytest.mark.parametrize("width", [0, 4])
def test_rollout_without_a_completion_token_has_no_advantages(objective: Objective, width: int) -> None:
    sample = rollout()
    assert sample.values is not None
    without_tokens = replace(
        sample,
        mask=torch.zeros_like(MASK[:, :width]),
        logprobs=sample.logprobs[:, :width],
        reference_logprobs=sample.reference_logprobs[:, :width],
        values=sample.values[:, :width],
    )
    estimate = objective.advantages(without_tokens)
    assert estimate.advantages.tolist() == [[0.0] * width] * 4
    assert all(metric.isfinite() for metric in estimate.metrics.values())


@ALL_OBJECTIVES
@pytest.mark.parametrize("garbage", [0.0, 999.0, math.nan, math.inf, -math.inf])
def test_loss_and_gradient_ignore_tokens_outside_the_mask(objective: Objective, garbage: float) -> None:
    clean, dirty = policy_batch(objective), policy_batch(objective, garbage)
    loss, expected = objective(dirty), objective(clean)
    assert torch.equal(loss.value, expected.value)
    assert {k: v.item() for k, v in loss.metrics.items()} == {k: v.item() for k, v in expected.metrics.items()}
    loss.value.backward()
    for leaf in (dirty.logprobs, dirty.values):
        if leaf is not None:
            assert leaf.grad is not None and (leaf.grad[~MASK] == 0).all() and (leaf.grad[MASK] != 0).any()


@ALL_OBJECTIVES
@pytest.mark.parametrize("garbage", [999.0, math.nan, math.inf])
def test_advantages_ignore_tokens_outside_the_mask(objective: Objective, garbage: float) -> None:
    clean, dirty = objective.advantages(rollout()), objective.advantages(rollout(garbage))
    assert torch.equal(clean.advantages, dirty.advantages) and (dirty.advantages[~MASK] == 0).all()
    assert {k: v.item() for k, v in clean.metrics.items()} == {k: v.item() for k, v in dirty.metrics.items()}


@ALL_OBJECTIVES
def test_microbatch_losses_add_up_to_the_step(objective: Objective) -> None:
    batch = policy_batch(objective)
    whole = objective(batch)
    whole.value.backward()
    halves = (select_rows(batch, rows) for rows in (slice(0, 1), slice(1, 4)))
    parts = [replace(half, tokens=float(MASK.sum()), sequences=4.0) for half in halves]
    losses = [objective(part) for part in parts]
    assert torch.allclose(losses[0].value + losses[1].value, whole.value)
    assert whole.metrics.keys() >= {"loss", "policy_loss", "ratio", "approx_kl"}
    for name, value in whole.metrics.items():
        assert torch.allclose(losses[0].metrics[name] + losses[1].metrics[name], value), name
    for loss in losses:
        loss.value.backward()
    for name in ("logprobs", "values"):
        if getattr(batch, name) is not None:
            grads = [getattr(part, name).grad for part in parts]
            assert torch.allclose(torch.cat(grads), getattr(batch, name).grad)


@ALL_OBJECTIVES
def test_more_padding_of_a_microbatch_changes_nothing(objective: Objective) -> None:
    batch = policy_batch(objective)
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch) if isinstance(getattr(batch, f.name), Tensor)}
    wider: dict[str, Any] = {k: torch.cat([v, torch.zeros_like(v)], 1) for k, v in tensors.items()}
    assert torch.allclose(objective(replace(batch, **wider)).value, objective(batch).value)


@ALL_OBJECTIVES
def test_first_minibatch_has_ratio_1_and_kl_0(objective: Objective) -> None:
    metrics = objective(policy_batch(objective, noise=0.0)).metrics
    assert metrics["ratio"] == 1 and metrics["approx_kl"] == 0 and metrics.get("clip_fraction", 0) == 0


@ALL_OBJECTIVES
def test_metrics_carry_no_gradient_and_are_single_numbers(objective: Objective) -> None:
    loss = objective(policy_batch(objective))
    assert loss.value.requires_grad and loss.value.shape == ()
    for metrics in (loss.metrics, objective.advantages(rollout()).metrics):
        assert all(not value.requires_grad and value.shape == () and value.isfinite() for value in metrics.values())


@ALL_OBJECTIVES
@given(shift=st.sampled_from([-1e4, -100.0, 0.0, 100.0, 1e4]), advantage=st.sampled_from([-10.0, 0.0, 10.0]))
def test_losses_stay_finite_at_the_extremes_in_bfloat16(objective: Objective, shift: float, advantage: float) -> None:
    zero = torch.zeros(1, 2, dtype=torch.bfloat16)
    logprobs = (zero + shift).requires_grad_()
    batch = PolicyBatch(torch.ones(1, 2, dtype=torch.bool), logprobs, zero, zero, zero + advantage)
    loss = objective(batch)
    loss.value.backward()
    assert loss.value.isfinite() and logprobs.grad is not None and logprobs.grad.isfinite().all()


@ALL_OBJECTIVES
def test_first_gradient_has_the_sign_of_the_advantage(objective: Objective) -> None:
    for advantage, sign in ((2.0, -1), (-2.0, 1)):
        batch = one_completion([-1.0, -2.0], [-1.0, -2.0], [advantage, advantage])
        batch.logprobs.requires_grad_()
        objective(batch).value.backward()
        assert batch.logprobs.grad is not None and (batch.logprobs.grad.sign() == sign).all()


@ALL_OBJECTIVES
def test_rollout_reports_its_score(objective: Objective) -> None:
    assert objective.advantages(rollout()).metrics["score"] == 0.5


@ALL_OBJECTIVES
def test_advantages_read_logprobs_only_with_needs_logprobs(objective: Objective) -> None:
    sample = rollout()
    noise = objective.advantages(replace(sample, logprobs=sample.logprobs + torch.linspace(0, 1, sample.mask.shape[1])))
    same = torch.equal(noise.advantages, objective.advantages(sample).advantages)
    assert same is not (objective.needs_logprobs and getattr(objective, "beta", 0) > 0)


# Single objectives


def one_rollout(n: int, values: list[float] | None = None) -> Rollout:
    """Return a completion of n tokens with score 5; each token is 1 nat likelier than under the reference."""
    mask = torch.ones(1, n, dtype=torch.bool)
    zero = torch.zeros(1, n)
    return Rollout(mask, zero, zero - 1, tensor([5.0]), tensor([0]), None if values is None else tensor([values]))


def test_ppo_subtracts_kl_at_each_token_and_scores_the_last() -> None:
    # Rewards -0.5, -0.5, 5 - 0.5, and their sums from each token on; whitened: mean 4, deviation 0.5.
    estimate = PPO(beta=0.5, gae_lambda=1.0).advantages(one_rollout(3, [0.0, 0.0, 0.0]))
    assert estimate.returns is not None and estimate.returns.tolist() == [[3.5, 4.0, 4.5]]
    assert estimate.advantages[0].tolist() == pytest.approx([-1, 0, 1])
    metrics = {name: value.item() for name, value in estimate.metrics.items()}
    assert metrics["reward"] == 3.5 and metrics["advantage"] == 4


def test_ppo_whitens_advantages_and_not_returns() -> None:
    estimate = PPO(beta=0.0).advantages(one_rollout(3, [1.0, 2.0, 3.0]))
    # As in test_functional.py, test_gae_by_hand with lambda 0.95.
    raw = tensor([3.755, 2.9, 2.0])
    assert estimate.returns is not None
    assert torch.allclose(estimate.returns, raw + tensor([[1.0, 2.0, 3.0]]))
    assert torch.allclose(estimate.advantages, (raw - raw.mean())[None] / raw.std(), atol=1e-6)


def test_ppo_adds_a_tenth_of_its_value_loss() -> None:
    batch = one_completion([0.0, 0.0], [0.0, 0.0], [1.0, 3.0])
    zero = torch.zeros(1, 2)
    # Policy -(1 + 3) / 2; value 1/2 (0.2 - 1)^2 = 0.32, since V = 1 is clipped to 0.2; in all -2 + 0.1 * 0.32.
    loss = PPO()(replace(batch, values=zero + 1, old_values=zero, returns=zero + 1))
    assert loss.metrics["policy_loss"] == -2 and loss.metrics["value_loss"].item() == pytest.approx(0.32)
    assert loss.value.item() == pytest.approx(-2 + 0.032)
    assert PPO()(batch).value == -2 and "value_loss" not in PPO()(batch).metrics


def test_ppo_reports_the_fraction_of_clipped_tokens() -> None:
    # Ratios 1.5, 1.5, 1, 1; losses -1.2 (clipped), 1.5, -1, 1; r - 1 - log r is 0.5 - log 1.5 twice in four.
    loss = PPO()(one_completion([math.log(1.5), math.log(1.5), 0.0, 0.0], [0.0] * 4, [1.0, -1.0, 1.0, -1.0]))
    assert loss.metrics["clip_fraction"] == 0.25 and loss.metrics["ratio"].item() == pytest.approx(1.25)
    assert loss.metrics["approx_kl"].item() == pytest.approx((0.5 - math.log(1.5)) / 2)
    assert loss.value.item() == pytest.approx((-1.2 + 1.5) / 4)


@pytest.mark.parametrize("objective", [PPO(), GRPO(), GSPO()])
def test_approx_kl_of_a_token_that_became_certain_is_finite(objective: PPO | GRPO | GSPO) -> None:
    # e^200 is no float32; the log-ratio counts as 20: e^20 - 1 - 20.
    loss = objective(one_completion([0.0], [-200.0], [1.0]))
    assert loss.metrics["approx_kl"].item() == pytest.approx(math.exp(20) - 21, rel=1e-6)


def test_dual_clip_bounds_the_loss_of_a_bad_token() -> None:
    batch = one_completion([math.log(8)], [0.0], [-1.0])
    # -A ratio = 8, and with a dual clip at most 3.
    assert PPO()(batch).value.item() == pytest.approx(8)
    assert PPO(dual_clip=3.0)(batch).value.item() == pytest.approx(3)


def two_completions(advantages: tuple[float, float] = (1.0, -1.0)) -> PolicyBatch:
    """Return a completion of one token and one of three tokens, sampled from the current policy."""
    mask = tensor([[True, False, False], [True, True, True]])
    zero = torch.zeros(2, 3)
    return PolicyBatch(mask, zero, zero, zero, torch.where(mask, tensor(advantages)[:, None], 0.0))


@pytest.mark.parametrize(
    # Token losses -1 and 1, 1, 1: the mean of the completions' means is (-1 + 1) / 2, the mean of tokens (-1 + 3) / 4,
    # and Dr. GRPO divides by two completions of four tokens, (-1 + 3) / 8.
    ("objective", "expected"),
    [
        (GRPO(), 0.0),
        (DrGRPO(max_completion_length=4), 0.25),
        (DAPO(), 0.5),
        (RLOO(), 0.0),
        (GSPO(), 0.0),
        (PPO(), 0.5),
    ],
    ids=repr,
)
def test_loss_aggregation_sets_the_weight_of_long_completions(objective: Objective, expected: float) -> None:
    assert objective(two_completions()).value.item() == pytest.approx(expected)


def test_presets_are_grpo_with_other_settings() -> None:
    batch = policy_batch(GRPO())
    assert DAPO()(batch).value == GRPO(beta=0, epsilon_high=0.28, loss_type="dapo")(batch).value
    assert DrGRPO()(batch).value == GRPO(beta=0, loss_type="dr_grpo")(batch).value
    assert torch.equal(
        DrGRPO().advantages(rollout()).advantages, GRPO(scale_rewards="none").advantages(rollout()).advantages
    )


def test_grpo_broadcasts_group_relative_scores_to_tokens() -> None:
    estimate = GRPO().advantages(rollout())
    unit = 1 / math.sqrt(2)  # two scores are -+ 1/sqrt(2) unbiased standard deviations from their mean
    assert estimate.returns is None
    for row, sign in enumerate([-1, 1, -1, 1]):
        assert estimate.advantages[row][MASK[row]].tolist() == pytest.approx(
            [sign * unit] * int(MASK[row].sum()), abs=1e-4
        )
    plain = GRPO(scale_rewards="none").advantages(rollout()).advantages
    assert plain[:, 0].tolist() == [-1, 1, -1, 1]


def test_grpo_adds_kl_to_the_loss() -> None:
    # l = -1: k3 = e - 1 - 1 = 0.718282.
    loss = GRPO(beta=0.5)(one_completion([-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], reference=-1.0))
    assert loss.metrics["kl_loss"].item() == pytest.approx(0.5 * 0.718282, abs=1e-6)
    assert loss.value == loss.metrics["kl_loss"] and loss.metrics["policy_loss"] == 0


@pytest.mark.parametrize(("estimator", "penalty"), [("k3", 0.5 * (math.e - 2)), ("k2", 0.5 * 0.5)])
@pytest.mark.parametrize("preset", [GRPO, DAPO, partial(DrGRPO, max_completion_length=2), GSPO])
def test_kl_loss_metric_uses_the_named_estimator(
    preset: Callable[..., GRPO | GSPO], estimator: str, penalty: float
) -> None:
    batch = one_completion([-1.0, -1.0], [-1.0, -1.0], [0.0, 0.0], reference=-1.0)  # the log-ratio is -1
    loss = preset(beta=0.5, kl_estimator=estimator)(batch)
    assert loss.metrics["kl_loss"].item() == pytest.approx(penalty)


def test_groups_with_equal_scores_are_counted() -> None:
    flat = replace(rollout(), scores=tensor([1.0, 1.0, 2.0, 3.0]).double())
    for objective in (GRPO(), RLOO(), GSPO()):
        assert objective.advantages(flat).metrics["frac_reward_zero_std"] == 0.5


def test_gspo_uses_the_ratio_of_the_completion_per_token() -> None:
    batch = one_completion([math.log(4), 0.0], [0.0, 0.0], [1.0, 1.0])
    # (4 * 1)^(1/2) = 2 for two tokens; clipped at 1 + 4e-4.
    assert GSPO(epsilon_high=9.0)(batch).value.item() == pytest.approx(-2)
    assert GSPO()(batch).value.item() == pytest.approx(-1.0004)


def test_rloo_uses_the_ratio_of_the_whole_completion() -> None:
    batch = one_completion([math.log(1.05), math.log(1.04)], [0.0, 0.0], [1.0, 1.0])
    # The product of the ratios is 1.092; clipped at 1 + 0.01.
    assert RLOO()(batch).value.item() == pytest.approx(-1.05 * 1.04)
    assert RLOO(epsilon_high=0.01)(batch).value.item() == pytest.approx(-1.01)


def test_rloo_subtracts_kl_and_the_mean_of_the_others() -> None:
    mask = torch.ones(4, 2, dtype=torch.bool)
    zero = torch.zeros(4, 2)
    sample = Rollout(mask, zero, zero - 1, tensor([1.0, 2, 3, 4]), torch.zeros(4).long())
    # Rewards score - 0.5 * 2 tokens * 1 nat: 0, 1, 2, 3; 0 - (1 + 2 + 3) / 3 = -2. At 3 nats: 4 - 0.5 * 6 = 1.
    estimate = RLOO(beta=0.5).advantages(sample)
    assert estimate.advantages[:, 1].tolist() == pytest.approx([-2, -2 / 3, 2 / 3, 2])
    assert estimate.metrics["reward"] == 1.5
    dearer = replace(sample, reference_logprobs=tensor([[-1.0, -1], [-1, -1], [-1, -1], [-3, -3]]))
    assert RLOO(beta=0.5).advantages(dearer).advantages[3, 0].item() == pytest.approx(0)


def test_rloo_and_reinforce_share_their_first_gradient() -> None:
    grads = []
    for objective in (RLOO(), Reinforce()):
        logprobs = torch.zeros(2, 3, requires_grad=True)
        objective(replace(two_completions(), logprobs=logprobs)).value.backward()
        grads.append(logprobs.grad)
    assert grads[0] is not None and grads[1] is not None and torch.allclose(grads[0], grads[1])
    # -A / 2 for two completions with A = 1 and -1.
    assert grads[1].tolist() == [[-0.5, 0, 0], [0.5, 0.5, 0.5]]


def test_reinforce_uses_the_mean_of_the_batch_as_baseline() -> None:
    # Scores 1, 3, -2, 0 less their mean 0.5; the loss is -A log P = 2 * (1 + 2).
    estimate = Reinforce(beta=0.0).advantages(rollout())
    assert estimate.advantages[:, 0].tolist() == [0.5, 2.5, -2.5, -0.5]
    assert Reinforce()(one_completion([-1.0, -2.0], [-1.0, -2.0], [2.0, 2.0])).value == 6
