"""Losses against those of TRL, where it is installed.

Each test runs TRL's own code on random inputs and asserts equal results. Where assent differs on purpose, the test
names the difference, corrects for exactly that, and asserts equality.

    pip install trl==1.16.0

TRL 1.12 was the last release with PPO: its tests need trl==1.12.0, and the other tests are then skipped.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, tensor
from transformers import LlamaConfig, LlamaForCausalLM
from trl_trainers import (
    LENGTHS,
    PROMPT,
    PairData,
    PolicyData,
    PPOStep,
    bare_trainer,
    completion_mask,
    fused_output,
    our_logprobs,
    randn,
    random_logprobs,
    random_policy_data,
    same,
    same_with_gradients,
    trl,
    trl_dpo,
    trl_grpo,
    trl_ppo_step,
    trl_rollout,
    trl_with_ppo,
)

from assent.batch import (
    Loss,
    PolicyBatch,
    Rollout,
    ScorePairs,
    TokenLogprobsBatch,
    UnpairedLogprobs,
)
from assent.functional.advantages import gae, group_relative, token_rewards
from assent.functional.kl import k1, k2, k3, sequence_kl
from assent.functional.logprobs import token_logprobs
from assent.functional.whitening import moments, whiten
from assent.objectives.bradley_terry import BradleyTerry
from assent.objectives.cdpo import CDPO
from assent.objectives.cross_entropy import CrossEntropy
from assent.objectives.dapo import DAPO
from assent.objectives.dpo import DPO
from assent.objectives.dr_grpo import DrGRPO
from assent.objectives.grpo import GRPO
from assent.objectives.gspo import GSPO
from assent.objectives.ipo import IPO
from assent.objectives.kto import KTO
from assent.objectives.orpo import ORPO
from assent.objectives.ppo import PPO
from assent.objectives.rloo import RLOO
from assent.objectives.robust_dpo import RobustDPO
from assent.objectives.simpo import SimPO

pytestmark = pytest.mark.conformance


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5])
def test_dpo_agrees_with_trl(beta: float) -> None:
    data = PairData.random()
    same_with_gradients(DPO(beta)(data.pairs).value, trl_dpo("sigmoid", data, beta), data.policy)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 0.3])
def test_robust_dpo_agrees_with_trl(error_rate: float) -> None:
    data = PairData.random()
    result = RobustDPO(0.5, error_rate)(data.pairs).value
    same_with_gradients(result, trl_dpo("robust", data, 0.5, error_rate), data.policy)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_ipo_per_token_agrees_with_trl(beta: float) -> None:
    data = PairData.random()
    result = IPO(beta, per_token=True)(data.pairs).value
    same_with_gradients(result, trl_dpo("ipo", data, beta), data.policy, 1e-11)


def test_ipo_of_the_paper_agrees_with_trl_on_single_tokens() -> None:
    # TRL always divides by the length, as our per_token does; the paper's equation, our default, has no lengths.
    data = PairData.random(torch.ones_like(LENGTHS))
    same_with_gradients(IPO()(data.pairs).value, trl_dpo("ipo", data), data.policy, 1e-11)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 0.3])
def test_cdpo_agrees_with_the_smoothed_loss_of_trl(error_rate: float) -> None:
    # TRL 1.16 smooths labels in its CPO, not in its DPO; CPO on log-ratios in place of log-probabilities is cDPO.
    data = PairData.random()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare_trainer(kind, alpha=0.0, beta=0.5, loss_type="sigmoid", label_smoothing=error_rate)
    chosen, rejected = (data.policy - data.reference).sum(1).chunk(2)
    losses, *_ = trainer.cpo_loss(chosen, rejected)
    same_with_gradients(CDPO(0.5, error_rate)(data.pairs).value, losses.mean(), data.policy)


@pytest.mark.parametrize("error_rate", [0.1, 0.3])
def test_cdpo_of_one_pair_agrees_with_optimal_transport_in_trl(error_rate: float) -> None:
    # TRL's "aot" is smoothed DPO on sorted log-ratios: a single pair needs no sorting.
    data = PairData.random(LENGTHS[:2])
    result = CDPO(0.5, error_rate)(data.pairs).value
    same_with_gradients(result, trl_dpo("aot", data, 0.5, error_rate), data.policy)


def test_dpo_of_trl_does_not_smooth_its_labels() -> None:
    # Its "sigmoid" does not read label_smoothing, so with it set TRL's loss is our plain DPO and not our cDPO.
    data = PairData.random()
    expected = trl_dpo("sigmoid", data, 0.1, label_smoothing=0.3)
    same(DPO(0.1)(data.pairs).value, expected)
    assert abs(CDPO(0.1, 0.3)(data.pairs).value - expected).item() > 1e-3


def test_cross_entropy_of_chosen_completions_agrees_with_trl() -> None:
    data = PairData.random()
    logprobs = data.policy.chunk(2)[0]
    mask = data.mask[:, 1:].chunk(2)[0]
    result = CrossEntropy()(TokenLogprobsBatch(logprobs.flatten(), mask.flatten().double())).value
    same_with_gradients(result, trl_dpo("sft", data), data.policy)


def test_simpo_without_margin_agrees_with_trl_sigmoid_norm() -> None:
    # TRL's "sigmoid_norm" is SimPO of log-ratios: with a reference of 0 these are log-probabilities.
    data = PairData.random()
    data = replace(data, reference=torch.zeros_like(data.reference))
    same_with_gradients(SimPO(2.5, 0.0)(data.pairs).value, trl_dpo("sigmoid_norm", data, 2.5), data.policy)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.0), (2.0, 1.0), (10.0, 3.0)])
def test_simpo_agrees_with_trl(beta: float, gamma: float) -> None:
    data = PairData.random()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare_trainer(kind, alpha=0.0, beta=beta, simpo_gamma=gamma, loss_type="simpo")
    losses, *_ = trainer.cpo_loss(*(data.policy.sum(1) / LENGTHS).chunk(2))
    same_with_gradients(SimPO(beta, gamma)(data.pairs).value, losses.mean(), data.policy)


def test_simpo_of_uncertain_pairs_agrees_with_smoothed_trl() -> None:
    # With a margin they differ: TRL subtracts it before it flips a pair; our flipped pair has to lead by it too.
    data = PairData.random()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare_trainer(kind, alpha=0.0, beta=2.0, simpo_gamma=0.0, loss_type="simpo", label_smoothing=0.2)
    losses, *_ = trainer.cpo_loss(*(data.policy.sum(1) / LENGTHS).chunk(2))
    uncertain = replace(data.pairs, p_chosen=torch.full((4,), 0.8, dtype=torch.float64))
    same_with_gradients(SimPO(2.0, 0.0)(uncertain).value, losses.mean(), data.policy)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_odds_ratio_of_orpo_agrees_with_trl(weight: float) -> None:
    data = PairData.random()
    trainer = bare_trainer(trl("experimental.orpo.orpo_trainer").ORPOTrainer, beta=weight)
    losses, *_ = trainer.odds_ratio_loss(*(data.policy.sum(1) / LENGTHS).chunk(2))
    result = ORPO(weight)(data.pairs).value - ORPO(0.0)(data.pairs).value
    same_with_gradients(result, -losses.mean(), data.policy, 1e-6)  # TRL computes it in single precision


def test_orpo_with_prompt_loss_agrees_with_trl() -> None:
    # TRL's SFT loss is one mean over all tokens, prompts included; ours is a mean for each completion.
    module = trl("experimental.orpo.orpo_trainer")
    vocabulary = 11
    mask = completion_mask()
    ids = torch.randint(vocabulary, mask.shape)
    attended = torch.arange(mask.shape[1]) < PROMPT + LENGTHS[:, None]
    logits = randn(*mask.shape, vocabulary).requires_grad_()
    labels = torch.where(mask, ids, -100)
    batch: dict[str, Tensor] = {}
    for side, rows in (("chosen", slice(0, 4)), ("rejected", slice(4, 8))):
        batch |= {f"{side}_input_ids": ids[rows], f"{side}_labels": labels[rows]}
        batch[f"{side}_attention_mask"] = attended[rows].long()
    trainer = bare_trainer(module.ORPOTrainer, beta=0.3, padding_value=0)
    expected, _ = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), batch)

    logprobs = our_logprobs(logits[:, :-1], ids[:, 1:]).logprobs.double().view(8, -1)
    data = PairData(mask, torch.where(mask[:, 1:], logprobs, 0.0), torch.zeros_like(logprobs))
    odds_ratio = ORPO(0.3)(data.pairs).value - ORPO(0.0)(data.pairs).value
    cross_entropy = CrossEntropy()(
        TokenLogprobsBatch(logprobs[:4].flatten(), attended[:4, 1:].flatten().double())
    ).value
    same_with_gradients(cross_entropy + odds_ratio, expected, logits, 1e-6)


# Single completions, scores


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["the point is positive", "the point is held at 0"])
@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (1.25, 0.75)])
def test_kto_agrees_with_trl(desirable: float, undesirable: float, sign: float) -> None:
    data = PairData.random()
    labels = tensor([True, False, True, True, False, False, True, False])
    kl_logprobs = random_logprobs(data.mask)
    mismatched = sign * randn(8).abs()  # log-ratios of mismatched completions
    trainer = bare_trainer(
        trl("trainer.kto_trainer").KTOTrainer,
        beta=0.3,
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )
    mask = data.mask.long()
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask, label=labels)
    inputs |= dict(KL_input_ids=mask + 1, KL_attention_mask=mask, KL_completion_mask=mask)
    inputs |= dict(ref_logps=data.reference.sum(1), ref_KL_logps=kl_logprobs.sum(1) - mismatched)

    def model(input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return fused_output(kl_logprobs if input_ids.max() == 2 else data.policy)

    ones = torch.ones(8).double()
    result = KTO(0.3, desirable, undesirable)(
        UnpairedLogprobs(data.policy.sum(1), data.reference.sum(1), labels, ones, mismatched)
    )
    same_with_gradients(result.value, trainer._compute_loss(model, inputs, False), data.policy)
    same(result.metrics["kl"], trainer._metrics["eval"]["kl"][0])


def test_kto_without_a_reference_point_agrees_with_trl() -> None:
    data = PairData.random()
    labels = tensor([True, False] * 4)
    kind = trl("trainer.kto_trainer").KTOTrainer
    settings = dict(beta=0.3, calculate_KL=False, precompute_ref_logps=True, loss_type="apo_zero_unpaired")
    trainer = bare_trainer(kind, **settings, desirable_weight=1.0, undesirable_weight=1.5)
    mask = data.mask.long()
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask, label=labels)
    expected = trainer._compute_loss(
        lambda **_: fused_output(data.policy), inputs | dict(ref_logps=data.reference.sum(1)), False
    )
    batch = UnpairedLogprobs(
        data.policy.sum(1), data.reference.sum(1), labels, torch.ones(8).double(), torch.zeros(8).double()
    )
    same_with_gradients(KTO(0.3, 1.0, 1.5)(batch).value, expected, data.policy)


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("centering", [0.0, 0.01])
def test_bradley_terry_agrees_with_the_reward_trainer_of_trl(margin: bool, centering: float) -> None:
    scores = (3 * randn(12, 1)).requires_grad_()
    margins = randn(6).abs() if margin else torch.zeros(6).double()
    kind = trl("trainer.reward_trainer").RewardTrainer
    trainer = bare_trainer(kind, args=SimpleNamespace(center_rewards_coefficient=centering or None))
    inputs = {"margin": margins} if margin else {}
    expected = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs)
    chosen, rejected = scores[:, 0].chunk(2)
    ones = torch.ones(6).double()
    result = BradleyTerry(center_rewards_coefficient=centering)(ScorePairs(chosen, rejected, ones, margins, ones))
    same_with_gradients(result.value, expected, scores)
    same(result.metrics["accuracy"], trainer._metrics["eval"]["accuracy"][0], 1e-7)
    same(result.metrics["margin"], trainer._metrics["eval"]["margin"][0])


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_log_probabilities_and_entropies_agree_with_trl(temperature: float) -> None:
    logits = (4 * torch.randn(3, 9, 50)).requires_grad_()
    tokens = torch.randint(50, (3, 9))
    expected = trl("trainer.utils").selective_log_softmax_and_entropy(logits, tokens, temperature=temperature)
    result = our_logprobs(logits, tokens, temperature)
    weights = torch.randn(3, 9)
    loss = (result.logprobs.view(3, 9) * weights).sum()
    same_with_gradients(loss, (expected[0] * weights).sum(), logits, 1e-4)
    same(result.logprobs.view(3, 9), expected[0], 1e-5)
    assert result.entropy is not None
    same(result.entropy.view(3, 9), expected[1], 1e-5)


def test_logprobs_agree_with_trl_selective_log_softmax() -> None:
    logits = 4 * torch.randn(3, 9, 50)
    tokens = torch.randint(50, (3, 9))
    expected = trl("trainer.utils").selective_log_softmax(logits, tokens)
    same(our_logprobs(logits, tokens).logprobs.view(3, 9), expected, 1e-5)


def test_entropies_agree_with_trl() -> None:
    logits = 4 * torch.randn(3, 9, 50)
    result = our_logprobs(logits, torch.zeros(3, 9, dtype=torch.long)).entropy
    assert result is not None
    same(result.view(3, 9), trl("trainer.utils").entropy_from_logits(logits), 1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_sums_and_means_over_completions_agree_with_trl(average: bool) -> None:
    mask = completion_mask()
    logits = torch.randn(*mask.shape, 50)
    tokens = torch.randint(50, mask.shape)
    kind = trl("experimental.orpo.orpo_trainer").ORPOTrainer
    expected = kind.get_batch_logps(logits, torch.where(mask, tokens, -100), average_log_prob=average)
    result = (our_logprobs(logits[:, :-1], tokens[:, 1:]).logprobs.view(8, -1) * mask[:, 1:]).sum(1)
    same(result / LENGTHS if average else result, expected, 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_model_logprobs_agree_with_the_fused_head_of_trl(temperature: float) -> None:
    utils = trl("trainer.utils")
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model: Any = LlamaForCausalLM(config)
    ids = torch.randint(40, (2, 12))
    hidden = model.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
    result = token_logprobs(hidden, ids[:, 1:].flatten(), lambda x: 20 * model.lm_head(x), temperature, True, 5)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # a random head is nearly uniform; both sides sharpen it
    utils.add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy"))
    expected = model(ids, labels=ids, fused_lm_head=True)
    assert result.entropy is not None
    same(result.logprobs, expected.log_probs.flatten(), 1e-4)
    same(result.entropy, expected.entropy.flatten(), 1e-4)


@pytest.mark.parametrize("gaps", [False, True], ids=["whole completions", "gaps of a tool"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (GRPO(beta=0.0), dict(loss_type="grpo")),
        (GRPO(beta=0.04), dict(loss_type="grpo", beta=0.04)),
        (GRPO(beta=0.5, epsilon_high=0.28), dict(loss_type="grpo", beta=0.5, epsilon_high=0.28)),
        (GRPO(beta=0.04, loss_type="dapo"), dict(loss_type="bnpo", beta=0.04)),
        (DAPO(), dict(loss_type="dapo", epsilon_high=0.28)),
        (DrGRPO(max_completion_length=64), dict(loss_type="dr_grpo", max_completion_length=64)),
        (DrGRPO(beta=0.04), dict(loss_type="dr_grpo", beta=0.04)),
        (GSPO(), dict(importance_sampling_level="sequence", epsilon_low=3e-4, epsilon_high=4e-4)),
        (
            GSPO(beta=0.1, epsilon_low=0.1, epsilon_high=0.1),
            dict(importance_sampling_level="sequence", epsilon_low=0.1, epsilon_high=0.1, beta=0.1),
        ),
        (PPO(), dict(loss_type="bnpo")),
        (PPO(dual_clip=1.5), dict(loss_type="bnpo", delta=1.5)),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, dict) else " ".join(f"{k}={v}" for k, v in x.items()),
)
def test_group_losses_agree_with_trl(objective: Any, settings: dict[str, Any], training: bool, gaps: bool) -> None:
    data = random_policy_data(gaps)
    expected, _ = trl_grpo(data, training=training, **settings)
    same_with_gradients(objective(data.batch).value, expected, data.batch.logprobs)


def test_grpo_metrics_equal_trl() -> None:
    data = random_policy_data()
    _, expected = trl_grpo(data, beta=0.04)
    result = GRPO()(data.batch).metrics
    same(result["clip_fraction"], expected["clip_ratio/region_mean"][0], 1e-7)
    same(data.batch.token_mean(k3(data.batch.logprobs, data.batch.reference_logprobs)), expected["kl"][0], 1e-7)


def test_grpo_in_equal_microbatches_agrees_with_trl() -> None:
    # TRL divides each part's mean by the number of parts; ours divides by the totals of the step.
    parts = [random_policy_data(), random_policy_data()]
    expected = sum(trl_grpo(part, training=True, current_gradient_accumulation_steps=2)[0] for part in parts)
    result = sum(GRPO(beta=0.0)(replace(part.batch, sequences=16.0)).value for part in parts)
    same(result, expected)


def test_dapo_step_in_microbatches_agrees_with_trl() -> None:
    parts = [random_policy_data(), random_policy_data(gaps=True)]
    tokens = torch.stack([part.batch.mask.sum() for part in parts]).sum()
    expected = sum(
        trl_grpo(PolicyData(p.batch, p.inputs | {"num_items_in_batch": tokens}), loss_type="dapo")[0] for p in parts
    )
    result = sum(DAPO(epsilon_high=0.2)(replace(part.batch, tokens=float(tokens))).value for part in parts)
    same(result, expected)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_group_advantages_agree_with_trl(scale: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = trl("trainer.grpo_trainer")
    mask = completion_mask()[:, PROMPT:]
    monkeypatch.setattr(module, "gather_object", lambda x: x)
    rewards = randn(8)
    nothing = torch.zeros(mask.shape).double()
    rewards[:size] = 1.0  # a group of equals
    expected = trl_rollout(module.GRPOTrainer, rewards, size, nothing, nothing, beta=0.0, scale_rewards=scale)
    groups = torch.arange(8) // size
    same(
        group_relative(rewards, groups, scale == "group"), expected["advantages"], 1e-7
    )  # TRL has n / (n - 1) in single precision
    objective = GRPO() if scale == "group" else DrGRPO()
    result = objective.advantages(Rollout(mask, nothing, nothing, rewards, groups)).advantages
    same(result, expected["advantages"][:, None] * expected["completion_mask"], 1e-7)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_rloo_advantages_agree_with_trl(beta: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = trl("trainer.rloo_trainer")
    mask = completion_mask()[:, PROMPT:]
    monkeypatch.setattr(module, "gather_object", lambda x: x)
    monkeypatch.setattr(module, "gather", lambda x: x)
    rewards = randn(8)
    policy = randn(*mask.shape)
    reference = randn(*mask.shape)
    expected = trl_rollout(module.RLOOTrainer, rewards, size, policy, reference, beta=beta)
    result = RLOO(beta).advantages(Rollout(mask, policy, reference, rewards, torch.arange(8) // size))
    same(result.advantages, expected["advantages"][:, None] * expected["completion_mask"])


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.5)])
def test_rloo_loss_agrees_with_trl(low: float, high: float) -> None:
    data = random_policy_data()
    kind = trl("trainer.rloo_trainer").RLOOTrainer
    output = (data.batch.logprobs, data.batch.logprobs, None)
    trainer = bare_trainer(
        kind, epsilon_low=low, epsilon_high=high, _get_per_token_logps_and_entropies=lambda *_, **__: output
    )
    result = RLOO(0.05, low, high)(data.batch)
    same_with_gradients(result.value, trainer._compute_loss(None, data.inputs), data.batch.logprobs)
    same(result.metrics["clip_fraction"], trainer._metrics["eval"]["clip_ratio/region_mean"][0], 1e-7)


# PPO


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_agrees_with_trl(shift_mean: bool) -> None:
    # With shift_mean=False TRL adds the mean back; our whitening never does.
    values = 3 * randn(6, 9) + 1
    mask = torch.rand(6, 9) < 0.6
    expected = trl_with_ppo().masked_whiten(values, mask, shift_mean=shift_mean)
    added_mean = 0.0 if shift_mean else moments(values, mask).mean
    same((whiten(values, mask) + added_mean) * mask, expected * mask, 1e-6)  # its n / (n - 1) is in single precision


def test_masked_moments_agree_with_trl() -> None:
    values = 3 * randn(6, 9) + 1
    mask = torch.rand(6, 9) < 0.6
    module = trl_with_ppo()
    result = moments(values, mask)
    same(result.mean, module.masked_mean(values, mask))
    same(result.variance, module.masked_var(values, mask), 1e-6)


FULL, RAGGED = tensor([7, 7, 7, 7, 7]), tensor([7, 3, 1, 5, 6])


@pytest.mark.parametrize(("gamma", "gae_lambda", "beta"), [(1.0, 0.95, 0.05), (0.9, 0.8, 0.0), (1.0, 1.0, 0.5)])
def test_ppo_advantages_agree_with_trl(
    gamma: float, gae_lambda: float, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = trl_ppo_step(monkeypatch, FULL, gamma=gamma, lam=gae_lambda, kl_coef=beta)
    rollout = Rollout(data.mask, data.old, data.reference, data.scores, torch.arange(5), data.values)
    result = PPO(beta=beta, gamma=gamma, gae_lambda=gae_lambda).advantages(rollout)
    assert result.returns is not None
    same(result.returns, data.advantages + data.values, 1e-5)  # our log-probabilities are in single precision
    same(result.advantages, trl_with_ppo().masked_whiten(data.advantages, data.mask), 1e-5)
    same(sequence_kl(data.old, data.reference, data.mask).k1.mean(), data.metrics["objective/kl"], 1e-5)
    same(result.metrics["reward"], data.metrics["objective/rlhf_reward"], 1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_padded_ppo_advantages_agree_with_trl_one_token_longer(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL adds the score one step after the last token and reads the value there; ours ends at the last token.
    data = trl_ppo_step(monkeypatch, RAGGED, kl_estimator=estimator, gamma=0.9)
    kl = torch.where(data.mask, (k1 if estimator == "k1" else k3)(data.old, data.reference), 0.0)
    rewards = token_rewards(data.scores, kl, data.longer, 0.05)
    result = gae(rewards, data.values, data.longer, 0.9, 0.95)
    same(result.advantages * data.mask, data.advantages * data.mask, 1e-5)
    same(kl.sum(1).mean(), data.metrics["objective/kl"], 1e-5)
    summed = sequence_kl(data.old, data.reference, data.mask)
    same(getattr(summed, estimator).mean(), data.metrics["objective/kl"], 1e-5)


@pytest.mark.parametrize(("clip", "value_clip", "coefficient"), [(0.2, 0.2, 0.1), (0.1, 0.05, 1.0), (0.5, 10.0, 0.5)])
def test_ppo_losses_agree_with_trl(
    clip: float, value_clip: float, coefficient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = trl_ppo_step(monkeypatch, FULL, cliprange=clip, cliprange_value=value_clip, vf_coef=coefficient)
    objective = PPO(epsilon_low=clip, epsilon_high=clip, vf_clip=value_clip, vf_coef=coefficient)
    result = ppo_loss(objective, data, data.mask)
    for leaf in data.leaves:
        same_with_gradients(result.value, data.loss, leaf, 1e-6)
    same(result.metrics["policy_loss"], data.metrics["loss/policy_avg"], 1e-5)
    same(result.metrics["value_loss"], data.metrics["loss/value_avg"], 1e-5)
    same(result.metrics["clip_fraction"], data.metrics["policy/clipfrac_avg"], 1e-6)
    same(result.metrics["ratio"], data.metrics["val/ratio"], 1e-5)
    same(data.entropy.mean(), data.metrics["policy/entropy_avg"], 1e-5)
    same(k2(data.new, data.old).mean(), data.metrics["policy/approxkl_avg"], 1e-5)


def test_padded_ppo_losses_agree_with_trl_one_token_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TRL trains the value of the step after the last token too; the policy's loss is over the completion only.
    data = trl_ppo_step(monkeypatch, RAGGED)
    same(ppo_loss(PPO(), data, data.mask).metrics["policy_loss"], data.metrics["loss/policy_avg"], 1e-5)
    longer = ppo_loss(PPO(), data, data.longer)
    same(longer.metrics["value_loss"], data.metrics["loss/value_avg"], 1e-5)
    same(k2(data.new, data.old)[data.mask].sum() / 35, data.metrics["policy/approxkl_avg"], 1e-5)


def ppo_loss(objective: PPO, data: PPOStep, mask: Tensor) -> Loss:
    """Return our loss over the tokens of a mask, with TRL's advantages."""
    returns = torch.where(data.longer, data.advantages + data.values, 0.0)
    advantages = trl_with_ppo().masked_whiten(data.advantages, data.mask)
    return objective(
        PolicyBatch(mask, data.new, data.old, data.reference, advantages, data.new_values, data.values, returns)
    )
