"""Our numbers against those of independent implementations, where these are installed.

The other library's own code runs on random inputs, and its answer has to be ours. Where it differs on purpose, the
test says how, makes up for exactly that, and then wants equality all the same. A trainer is made without its
constructor and given the attributes that its loss reads; its model is a function that answers with our numbers.

    pip install trl==1.16.0 choix==0.4.1 evalica==0.4.2 sacrebleu==2.6.0

PPO left TRL after 1.12: its tests run where trl==1.12 is installed instead, and the other tests of TRL then do not.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, tensor
from transformers import LlamaConfig, LlamaForCausalLM

from assent.batch import (
    LogprobPairs,
    Loss,
    PolicyBatch,
    RankedScores,
    Rollout,
    ScorePairs,
    TokenLogprobsBatch,
    UnpairedLogprobs,
)
from assent.functional.advantages import gae, group_relative, token_rewards
from assent.functional.kl import k1, k2, k3, sequence_kl
from assent.functional.logprobs import TokenLogprobs, token_logprobs
from assent.functional.statistics import bootstrap, win_rate
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
from assent.objectives.kway import KWay
from assent.objectives.orpo import ORPO
from assent.objectives.plackett_luce import PlackettLuce
from assent.objectives.ppo import PPO
from assent.objectives.rloo import RLOO
from assent.objectives.robust_dpo import RobustDPO
from assent.objectives.simpo import SimPO

pytestmark = pytest.mark.conformance

PROMPT = 3
"""Tokens before each completion."""
LENGTHS = tensor([5, 1, 7, 3, 2, 6, 4, 5])
"""Of eight completions; of pairs, the second half is rejected."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def trl(module: str) -> Any:
    """A module of TRL 1.16: what its losses read is private, and other versions name it otherwise."""
    version = pytest.importorskip("trl", reason="needs TRL: pip install trl==1.16.0").__version__
    if not version.startswith("1.16."):
        pytest.skip(f"needs TRL 1.16, not {version}: pip install trl==1.16.0")
    return pytest.importorskip(f"trl.{module}")


def trl_with_ppo() -> Any:
    """TRL's PPO, which its later versions do not have."""
    pytest.importorskip("trl", reason="needs a TRL that still has PPO: pip install trl==1.12.0")
    reason = "this TRL has no PPO any more: pip install trl==1.12.0"
    return pytest.importorskip("trl.experimental.ppo.ppo_trainer", reason=reason)


def choix() -> Any:
    return pytest.importorskip("choix", reason="needs choix: pip install choix==0.4.1")


def evalica() -> Any:
    return pytest.importorskip("evalica", reason="needs evalica: pip install evalica==0.4.2")


def same(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    ours, theirs = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (ours, theirs))
    assert ours.shape == theirs.shape
    assert ours.isfinite().all()
    assert (ours - theirs).abs().max().item() <= tolerance


def same_with_gradients(ours: Tensor, theirs: Tensor, source: Tensor, tolerance: float = 1e-12) -> None:
    """Two losses of one source, and where each would push it."""
    same(ours, theirs, tolerance)
    mine, other = (torch.autograd.grad(loss, source, retain_graph=True)[0] for loss in (ours, theirs))
    same(mine, other, tolerance)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Alone:
    """What a trainer asks of its accelerator, where there is one process."""

    device = torch.device("cpu")
    num_processes, process_index = 1, 0
    is_main_process = sync_gradients = True
    state = SimpleNamespace(deepspeed_plugin=None)

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def gather(self, value: Any) -> Any:
        return value

    gather_for_metrics = unwrap_model = gather

    def reduce(self, value: Any, reduction: str) -> Any:
        return value

    def print(self, *words: object) -> None:
        pass

    def accumulate(self, model: object) -> nullcontext[None]:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.losses.append(loss)


def bare(kind: Any, **attributes: Any) -> Any:
    """A trainer that was never constructed, with what its loss reads; in evaluation, unless told otherwise."""
    trainer = object.__new__(kind)
    common = dict(
        accelerator=Alone(),
        model=SimpleNamespace(training=False, is_gradient_checkpointing=False),
        aux_loss_enabled=False,
        label_smoothing=0.0,
        is_encoder_decoder=False,
        _metrics={mode: defaultdict(list) for mode in ("train", "eval")},
        _total_train_tokens=0,
        _tp_size=1,
    )
    vars(trainer).update(common | attributes)
    return trainer


# Pairs


def completions(lengths: Tensor = LENGTHS) -> Tensor:
    """Which tokens of a padded batch belong to completions, (B, T) bool."""
    position = torch.arange(PROMPT + int(lengths.max()))
    return (position >= PROMPT) & (position < PROMPT + lengths[:, None])


def log_probabilities(mask: Tensor) -> Tensor:
    """Of each token but the first, (B, T - 1); 0 outside the completions."""
    return torch.where(mask[:, 1:], -draw(len(mask), mask.shape[1] - 1).abs(), 0.0)


@dataclass(frozen=True)
class Compared:
    """Chosen completions, then as many rejected ones, under a policy and a reference."""

    mask: Tensor  # (B, T) bool
    policy: Tensor  # (B, T - 1), with gradient
    reference: Tensor  # (B, T - 1)

    @classmethod
    def drawn(cls, lengths: Tensor = LENGTHS) -> "Compared":
        mask = completions(lengths)
        return cls(mask, log_probabilities(mask).requires_grad_(), log_probabilities(mask))

    @property
    def pairs(self) -> LogprobPairs:
        (chosen, rejected), (reference_chosen, reference_rejected), (chosen_tokens, rejected_tokens) = (
            x.sum(1).chunk(2) for x in (self.policy, self.reference, self.mask.double())
        )
        one = torch.ones_like(chosen)
        return LogprobPairs(
            chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens, one, one
        )


def answering(logprobs: Tensor) -> SimpleNamespace:
    """What a model with TRL's fused head returns."""
    nothing = torch.zeros_like(logprobs)
    return SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trl_dpo(kind: str, made: Compared, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    trainer = bare(
        trl("trainer.dpo_trainer").DPOTrainer,
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        precompute_ref_logps=True,
        use_weighting=False,
    )
    mask, (chosen, rejected) = made.mask.long(), made.reference.sum(1).chunk(2)
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask)
    inputs |= dict(ref_chosen_logps=chosen, ref_rejected_logps=rejected)
    loss: Tensor = trainer._compute_loss(lambda **_: answering(made.policy), inputs, False)
    return loss


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5])
def test_dpo_agrees_with_trl(beta: float) -> None:
    made = Compared.drawn()
    same_with_gradients(DPO(beta)(made.pairs).value, trl_dpo("sigmoid", made, beta), made.policy)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 0.3])
def test_robust_dpo_agrees_with_trl(error_rate: float) -> None:
    made = Compared.drawn()
    ours = RobustDPO(0.5, error_rate)(made.pairs).value
    same_with_gradients(ours, trl_dpo("robust", made, 0.5, error_rate), made.policy)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_ipo_per_token_agrees_with_trl(beta: float) -> None:
    made = Compared.drawn()
    ours = IPO(beta, per_token=True)(made.pairs).value
    same_with_gradients(ours, trl_dpo("ipo", made, beta), made.policy, 1e-11)


def test_ipo_of_the_paper_agrees_with_trl_where_completions_are_of_one_token() -> None:
    # TRL always divides by the length, as our per_token does; the paper's equation, our default, has no lengths.
    made = Compared.drawn(torch.ones_like(LENGTHS))
    same_with_gradients(IPO()(made.pairs).value, trl_dpo("ipo", made), made.policy, 1e-11)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 0.3])
def test_cdpo_agrees_with_the_smoothed_loss_of_trl(error_rate: float) -> None:
    # TRL 1.16 smooths labels in its CPO, not in its DPO; CPO on log-ratios in place of log-probabilities is cDPO.
    made = Compared.drawn()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare(kind, alpha=0.0, beta=0.5, loss_type="sigmoid", label_smoothing=error_rate)
    chosen, rejected = (made.policy - made.reference).sum(1).chunk(2)
    losses, *_ = trainer.cpo_loss(chosen, rejected)
    same_with_gradients(CDPO(0.5, error_rate)(made.pairs).value, losses.mean(), made.policy)


@pytest.mark.parametrize("error_rate", [0.1, 0.3])
def test_cdpo_of_one_pair_agrees_with_optimal_transport_in_trl(error_rate: float) -> None:
    # TRL's "aot" is smoothed DPO on sorted log-ratios: with one pair there is nothing to sort.
    made = Compared.drawn(LENGTHS[:2])
    ours = CDPO(0.5, error_rate)(made.pairs).value
    same_with_gradients(ours, trl_dpo("aot", made, 0.5, error_rate), made.policy)


def test_dpo_of_trl_does_not_smooth_its_labels() -> None:
    # Its "sigmoid" does not read label_smoothing, so with it set TRL's loss is our plain DPO and not our cDPO.
    made = Compared.drawn()
    theirs = trl_dpo("sigmoid", made, 0.1, label_smoothing=0.3)
    same(DPO(0.1)(made.pairs).value, theirs)
    assert abs(CDPO(0.1, 0.3)(made.pairs).value - theirs).item() > 1e-3


def test_cross_entropy_of_chosen_completions_agrees_with_trl() -> None:
    made = Compared.drawn()
    logprobs, mask = made.policy.chunk(2)[0], made.mask[:, 1:].chunk(2)[0]
    ours = CrossEntropy()(TokenLogprobsBatch(logprobs.flatten(), mask.flatten().double())).value
    same_with_gradients(ours, trl_dpo("sft", made), made.policy)


def test_simpo_without_a_margin_agrees_with_the_length_normalised_dpo_of_trl() -> None:
    # TRL's "sigmoid_norm" is SimPO of log-ratios: with a reference of 0 these are log-probabilities.
    made = Compared.drawn()
    made = replace(made, reference=torch.zeros_like(made.reference))
    same_with_gradients(SimPO(2.5, 0.0)(made.pairs).value, trl_dpo("sigmoid_norm", made, 2.5), made.policy)


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 0.0), (2.0, 1.0), (10.0, 3.0)])
def test_simpo_agrees_with_trl(beta: float, gamma: float) -> None:
    made = Compared.drawn()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare(kind, alpha=0.0, beta=beta, simpo_gamma=gamma, loss_type="simpo")
    losses, *_ = trainer.cpo_loss(*(made.policy.sum(1) / LENGTHS).chunk(2))
    same_with_gradients(SimPO(beta, gamma)(made.pairs).value, losses.mean(), made.policy)


def test_simpo_of_uncertain_pairs_agrees_with_the_smoothed_one_of_trl_where_there_is_no_margin() -> None:
    # With a margin they differ: TRL subtracts it before it flips a pair; our flipped pair has to lead by it too.
    made = Compared.drawn()
    kind = trl("experimental.cpo.cpo_trainer").CPOTrainer
    trainer = bare(kind, alpha=0.0, beta=2.0, simpo_gamma=0.0, loss_type="simpo", label_smoothing=0.2)
    losses, *_ = trainer.cpo_loss(*(made.policy.sum(1) / LENGTHS).chunk(2))
    uncertain = replace(made.pairs, p_chosen=torch.full((4,), 0.8, dtype=torch.float64))
    same_with_gradients(SimPO(2.0, 0.0)(uncertain).value, losses.mean(), made.policy)


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_the_odds_ratio_of_orpo_agrees_with_trl(weight: float) -> None:
    made = Compared.drawn()
    trainer = bare(trl("experimental.orpo.orpo_trainer").ORPOTrainer, beta=weight)
    losses, *_ = trainer.odds_ratio_loss(*(made.policy.sum(1) / LENGTHS).chunk(2))
    ours = ORPO(weight)(made.pairs).value - ORPO(0.0)(made.pairs).value
    same_with_gradients(ours, -losses.mean(), made.policy, 1e-6)  # TRL computes it in single precision


def test_orpo_agrees_with_trl_once_it_imitates_prompts_too() -> None:
    # TRL imitates prompt and completion with one mean over all tokens; ours takes a mean for each completion, alone.
    module, vocabulary = trl("experimental.orpo.orpo_trainer"), 11
    mask = completions()
    ids, there = torch.randint(vocabulary, mask.shape), torch.arange(mask.shape[1]) < PROMPT + LENGTHS[:, None]
    logits = draw(*mask.shape, vocabulary).requires_grad_()
    labels = torch.where(mask, ids, -100)
    batch: dict[str, Tensor] = {}
    for side, rows in (("chosen", slice(0, 4)), ("rejected", slice(4, 8))):
        batch |= {f"{side}_input_ids": ids[rows], f"{side}_labels": labels[rows]}
        batch[f"{side}_attention_mask"] = there[rows].long()
    trainer = bare(module.ORPOTrainer, beta=0.3, padding_value=0)
    theirs, _ = trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=logits), batch)

    every = ours_of(logits[:, :-1], ids[:, 1:]).logprobs.double().view(8, -1)
    made = Compared(mask, torch.where(mask[:, 1:], every, 0.0), torch.zeros_like(every))
    odds = ORPO(0.3)(made.pairs).value - ORPO(0.0)(made.pairs).value
    imitation = CrossEntropy()(TokenLogprobsBatch(every[:4].flatten(), there[:4, 1:].flatten().double())).value
    same_with_gradients(imitation + odds, theirs, logits, 1e-6)


# Single completions, scores


@pytest.mark.parametrize("towards", [1.0, -1.0], ids=["the point is positive", "the point is held at 0"])
@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (1.25, 0.75)])
def test_kto_agrees_with_trl(desirable: float, undesirable: float, towards: float) -> None:
    made, labels = Compared.drawn(), tensor([True, False, True, True, False, False, True, False])
    apart = log_probabilities(made.mask)
    drift = towards * draw(8).abs()  # log-ratios of mismatched completions
    trainer = bare(
        trl("trainer.kto_trainer").KTOTrainer,
        beta=0.3,
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )
    mask = made.mask.long()
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask, label=labels)
    inputs |= dict(KL_input_ids=mask + 1, KL_attention_mask=mask, KL_completion_mask=mask)
    inputs |= dict(ref_logps=made.reference.sum(1), ref_KL_logps=apart.sum(1) - drift)

    def model(input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return answering(apart if input_ids.max() == 2 else made.policy)

    one = torch.ones(8).double()
    ours = KTO(0.3, desirable, undesirable)(
        UnpairedLogprobs(made.policy.sum(1), made.reference.sum(1), labels, one, drift)
    )
    same_with_gradients(ours.value, trainer._compute_loss(model, inputs, False), made.policy)
    same(ours.metrics["kl"], trainer._metrics["eval"]["kl"][0])


def test_kto_without_a_reference_point_agrees_with_trl() -> None:
    made, labels = Compared.drawn(), tensor([True, False] * 4)
    kind = trl("trainer.kto_trainer").KTOTrainer
    settings = dict(beta=0.3, calculate_KL=False, precompute_ref_logps=True, loss_type="apo_zero_unpaired")
    trainer = bare(kind, **settings, desirable_weight=1.0, undesirable_weight=1.5)
    mask = made.mask.long()
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask, label=labels)
    theirs = trainer._compute_loss(
        lambda **_: answering(made.policy), inputs | dict(ref_logps=made.reference.sum(1)), False
    )
    batch = UnpairedLogprobs(
        made.policy.sum(1), made.reference.sum(1), labels, torch.ones(8).double(), torch.zeros(8).double()
    )
    same_with_gradients(KTO(0.3, 1.0, 1.5)(batch).value, theirs, made.policy)


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("centring", [0.0, 0.01])
def test_bradley_terry_agrees_with_the_reward_trainer_of_trl(margin: bool, centring: float) -> None:
    scores = (3 * draw(12, 1)).requires_grad_()
    wanted = draw(6).abs() if margin else torch.zeros(6).double()
    kind = trl("trainer.reward_trainer").RewardTrainer
    trainer = bare(kind, args=SimpleNamespace(center_rewards_coefficient=centring or None))
    inputs = {"margin": wanted} if margin else {}
    theirs = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores), inputs)
    chosen, rejected = scores[:, 0].chunk(2)
    one = torch.ones(6).double()
    ours = BradleyTerry(center_rewards_coefficient=centring)(ScorePairs(chosen, rejected, one, wanted, one))
    same_with_gradients(ours.value, theirs, scores)
    same(ours.metrics["accuracy"], trainer._metrics["eval"]["accuracy"][0], 1e-7)
    same(ours.metrics["margin"], trainer._metrics["eval"]["margin"][0])


# Tokens


def ours_of(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> TokenLogprobs:
    """Our log-probabilities and entropies, flat, of logits (..., V) and tokens (...)."""
    flat = logits.reshape(-1, logits.shape[-1])
    return token_logprobs(flat, tokens.reshape(-1), lambda x: x, temperature, entropy=True, chunk=7)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_log_probabilities_and_entropies_agree_with_trl(temperature: float) -> None:
    logits, tokens = (4 * torch.randn(3, 9, 50)).requires_grad_(), torch.randint(50, (3, 9))
    theirs = trl("trainer.utils").selective_log_softmax_and_entropy(logits, tokens, temperature=temperature)
    ours = ours_of(logits, tokens, temperature)
    weights = torch.randn(3, 9)
    loss = (ours.logprobs.view(3, 9) * weights).sum()
    same_with_gradients(loss, (theirs[0] * weights).sum(), logits, 1e-4)
    same(ours.logprobs.view(3, 9), theirs[0], 1e-5)
    assert ours.entropy is not None
    same(ours.entropy.view(3, 9), theirs[1], 1e-5)


def test_log_probabilities_agree_with_the_selective_softmax_of_trl() -> None:
    logits, tokens = 4 * torch.randn(3, 9, 50), torch.randint(50, (3, 9))
    theirs = trl("trainer.utils").selective_log_softmax(logits, tokens)
    same(ours_of(logits, tokens).logprobs.view(3, 9), theirs, 1e-5)


def test_entropies_agree_with_trl() -> None:
    logits = 4 * torch.randn(3, 9, 50)
    ours = ours_of(logits, torch.zeros(3, 9, dtype=torch.long)).entropy
    assert ours is not None
    same(ours.view(3, 9), trl("trainer.utils").entropy_from_logits(logits), 1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_sums_and_means_over_completions_agree_with_trl(average: bool) -> None:
    mask = completions()
    logits, tokens = torch.randn(*mask.shape, 50), torch.randint(50, mask.shape)
    kind = trl("experimental.orpo.orpo_trainer").ORPOTrainer
    theirs = kind.get_batch_logps(logits, torch.where(mask, tokens, -100), average_log_prob=average)
    ours = (ours_of(logits[:, :-1], tokens[:, 1:]).logprobs.view(8, -1) * mask[:, 1:]).sum(1)
    same(ours / LENGTHS if average else ours, theirs, 1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_a_model_agree_with_the_fused_head_of_trl(temperature: float) -> None:
    utils = trl("trainer.utils")
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model: Any = LlamaForCausalLM(config)
    ids = torch.randint(40, (2, 12))
    hidden = model.model(ids).last_hidden_state[:, :-1].flatten(0, 1)
    ours = token_logprobs(hidden, ids[:, 1:].flatten(), lambda x: 20 * model.lm_head(x), temperature, True, 5)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # a random head says next to nothing; both sides sharpen it
    utils.add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy"))
    theirs = model(ids, labels=ids, fused_lm_head=True)
    assert ours.entropy is not None
    same(ours.logprobs, theirs.log_probs.flatten(), 1e-4)
    same(ours.entropy, theirs.entropy.flatten(), 1e-4)


# Groups of completions


@dataclass(frozen=True)
class Moved:
    """Completions of a policy that has moved since, as each side wants them."""

    batch: PolicyBatch
    inputs: dict[str, Tensor]


def moved(holes: bool = False, step: float = 0.3) -> Moved:
    there = completions()[:, PROMPT:]
    mask = there & (torch.rand(there.shape) < 0.7) if holes else there
    mask[:, 0] = True
    policy = (-draw(*mask.shape).abs()).requires_grad_()
    old, reference = policy.detach() + step * draw(*mask.shape), policy.detach() + step * draw(*mask.shape)
    advantages, ones = draw(len(mask)), torch.ones(len(mask), PROMPT, dtype=torch.long)
    batch = PolicyBatch(mask, policy, old, reference, advantages[:, None].expand_as(policy))
    inputs = dict(prompt_ids=ones, prompt_mask=ones, completion_ids=there.long(), completion_mask=there.long())
    inputs |= dict(tool_mask=mask.long(), advantages=advantages, old_per_token_logps=old, ref_per_token_logps=reference)
    return Moved(batch, inputs | dict(num_items_in_batch=mask.sum(), old_logps=torch.where(mask, old, 0.0).sum(1)))


def trl_grpo(made: Moved, **settings: Any) -> tuple[Tensor, dict[str, list[float]]]:
    """The loss of TRL's GRPO and what it reports."""
    args = SimpleNamespace(delta=settings.pop("delta", None), use_bias_correction_kl=False, steps_per_generation=1)
    mode = "train" if settings.pop("training", False) else "eval"
    trainer = bare(
        trl("trainer.grpo_trainer").GRPOTrainer,
        args=args,
        **dict(
            model=SimpleNamespace(training=mode == "train"),
            loss_type="grpo",
            beta=0.0,
            epsilon_low=0.2,
            epsilon_high=0.2,
            importance_sampling_level="token",
            max_completion_length=256,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            use_vllm=False,
            current_gradient_accumulation_steps=1,
            _entropy_bonus_enabled=False,
            _get_per_token_logps_and_entropies=lambda *_, **__: (made.batch.logprobs, made.batch.logprobs, None),
        )
        | settings,
    )
    loss = trainer._compute_loss(None, made.inputs)
    return loss, trainer._metrics[mode]


@pytest.mark.parametrize("holes", [False, True], ids=["whole completions", "holes of a tool"])
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
def test_losses_of_groups_agree_with_trl(objective: Any, settings: dict[str, Any], training: bool, holes: bool) -> None:
    made = moved(holes)
    theirs, _ = trl_grpo(made, training=training, **settings)
    same_with_gradients(objective(made.batch).value, theirs, made.batch.logprobs)


def test_what_grpo_reports_agrees_with_trl() -> None:
    made = moved()
    _, theirs = trl_grpo(made, beta=0.04)
    ours = GRPO()(made.batch).metrics
    same(ours["clip_fraction"], theirs["clip_ratio/region_mean"][0], 1e-7)
    same(made.batch.token_mean(k3(made.batch.logprobs, made.batch.reference_logprobs)), theirs["kl"][0], 1e-7)


def test_a_step_in_parts_agrees_with_trl_where_the_parts_are_of_one_size() -> None:
    # TRL divides each part's mean by the number of parts; ours divides by the step's totals, whatever the parts are.
    parts = [moved(), moved()]
    theirs = sum(trl_grpo(part, training=True, current_gradient_accumulation_steps=2)[0] for part in parts)
    ours = sum(GRPO(beta=0.0)(replace(part.batch, sequences=16.0)).value for part in parts)
    same(ours, theirs)


def test_a_step_of_dapo_in_parts_agrees_with_trl() -> None:
    parts = [moved(), moved(holes=True)]
    tokens = torch.stack([part.batch.mask.sum() for part in parts]).sum()
    theirs = sum(
        trl_grpo(Moved(p.batch, p.inputs | {"num_items_in_batch": tokens}), loss_type="dapo")[0] for p in parts
    )
    ours = sum(DAPO(epsilon_high=0.2)(replace(part.batch, tokens=float(tokens))).value for part in parts)
    same(ours, theirs)


def trl_rollout(kind: Any, rewards: Tensor, size: int, policy: Tensor, reference: Tensor, **settings: Any) -> Any:
    """What a trainer of TRL makes of completions that it is told it generated, and of rewards."""
    n = len(rewards)
    there = [[5] * int(length) for length in LENGTHS[:n]]
    answers = iter((policy, reference))
    ids = [[1] * PROMPT for _ in there]
    texts = ["text"] * n
    generated: dict[str, tuple[Any, ...]] = {
        "GRPOTrainer": (ids, there, None, texts, None, {}, None, None),
        "RLOOTrainer": (ids, there, texts),
    }
    trainer = bare(
        kind,
        args=SimpleNamespace(
            per_device_eval_batch_size=n,
            gradient_checkpointing_kwargs=None,
            gradient_accumulation_steps=1,
            steps_per_generation=1,
        ),
        num_iterations=1,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        environment_factories=None,
        environments=None,
        tools=None,
        use_vllm=False,
        ref_model=SimpleNamespace(),
        num_generations_eval=size,
        num_generations=size,
        reward_weights=torch.ones(1).double(),
        reward_funcs=[None],
        reward_func_names=["reward"],
        reward_clip_range=None,
        normalize_advantages=False,
        multi_objective_aggregation="sum_then_normalize",
        log_multimodal=False,
        _logs=dict(prompt=[], completion=[], rewards=defaultdict(list), advantages=[], extra=defaultdict(list)),
        _pending_extra_logs={},
        _pending_metrics={},
        _generate=lambda _: generated[kind.__name__],
        _calculate_rewards=lambda *_: rewards[:, None],
        _get_per_token_logps_and_entropies=lambda *_, **__: (next(answers), None, None),
        **settings,
    )
    return trainer._generate_and_score_completions([{"prompt": "?"}] * n)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_advantages_of_groups_agree_with_trl(scale: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, mask = trl("trainer.grpo_trainer"), completions()[:, PROMPT:]
    monkeypatch.setattr(module, "gather_object", lambda x: x)
    rewards, nothing = draw(8), torch.zeros(mask.shape).double()
    rewards[:size] = 1.0  # a group of equals
    theirs = trl_rollout(module.GRPOTrainer, rewards, size, nothing, nothing, beta=0.0, scale_rewards=scale)
    groups = torch.arange(8) // size
    same(
        group_relative(rewards, groups, scale == "group"), theirs["advantages"], 1e-7
    )  # TRL has n / (n - 1) in single precision
    objective = GRPO() if scale == "group" else DrGRPO()
    ours = objective.advantages(Rollout(mask, nothing, nothing, rewards, groups)).advantages
    same(ours, theirs["advantages"][:, None] * theirs["completion_mask"], 1e-7)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_advantages_of_rloo_agree_with_trl(beta: float, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, mask = trl("trainer.rloo_trainer"), completions()[:, PROMPT:]
    monkeypatch.setattr(module, "gather_object", lambda x: x)
    monkeypatch.setattr(module, "gather", lambda x: x)
    rewards, policy, reference = draw(8), draw(*mask.shape), draw(*mask.shape)
    theirs = trl_rollout(module.RLOOTrainer, rewards, size, policy, reference, beta=beta)
    ours = RLOO(beta).advantages(Rollout(mask, policy, reference, rewards, torch.arange(8) // size))
    same(ours.advantages, theirs["advantages"][:, None] * theirs["completion_mask"])


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.1, 0.5)])
def test_the_loss_of_rloo_agrees_with_trl(low: float, high: float) -> None:
    made = moved()
    kind = trl("trainer.rloo_trainer").RLOOTrainer
    answer = (made.batch.logprobs, made.batch.logprobs, None)
    trainer = bare(kind, epsilon_low=low, epsilon_high=high, _get_per_token_logps_and_entropies=lambda *_, **__: answer)
    ours = RLOO(0.05, low, high)(made.batch)
    same_with_gradients(ours.value, trainer._compute_loss(None, made.inputs), made.batch.logprobs)
    same(ours.metrics["clip_fraction"], trainer._metrics["eval"]["clip_ratio/region_mean"][0], 1e-7)


# PPO


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_agrees_with_trl(shift_mean: bool) -> None:
    # With shift_mean=False TRL adds the mean back; our whitening never does.
    values, mask = 3 * draw(6, 9) + 1, torch.rand(6, 9) < 0.6
    theirs = trl_with_ppo().masked_whiten(values, mask, shift_mean=shift_mean)
    back = 0.0 if shift_mean else moments(values, mask).mean
    same((whiten(values, mask) + back) * mask, theirs * mask, 1e-6)  # its n / (n - 1) is in single precision


def test_masked_moments_agree_with_trl() -> None:
    values, mask = 3 * draw(6, 9) + 1, torch.rand(6, 9) < 0.6
    module, ours = trl_with_ppo(), moments(values, mask)
    same(ours.mean, module.masked_mean(values, mask))
    same(ours.variance, module.masked_var(values, mask), 1e-6)


@dataclass(frozen=True)
class Played:
    """One step of TRL's PPO that learns nothing: what went in, and what its trainer made of it."""

    mask: Tensor  # (B, T) bool, of completions
    old: Tensor  # (B, T) log-probabilities
    new: Tensor  # (B, T), with gradient
    reference: Tensor  # (B, T)
    values: Tensor  # (B, T) of the old value model
    new_values: Tensor  # (B, T), with gradient
    scores: Tensor  # (B,)
    entropy: Tensor  # (B, T)
    advantages: Tensor  # (B, T) theirs, before they are whitened
    leaves: tuple[Tensor, Tensor]  # logits and values that `new` and `new_values` are made of
    loss: Tensor  # () theirs
    metrics: dict[str, float]  # theirs

    @property
    def longer(self) -> Tensor:
        """The mask and one more token of each row that has one, (B, T) bool."""
        return self.mask | torch.nn.functional.pad(self.mask, (1, 0))[:, :-1]


class Critic:
    """A value or reward model of TRL's PPO, which looks its answers up by the row that the first token names."""

    base_model_prefix = "backbone"

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def backbone(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[self.values[input_ids[:, 0] - 1, :, None]])

    def score(self, hidden: Tensor) -> Tensor:
        return hidden


def played(monkeypatch: pytest.MonkeyPatch, lengths: Tensor, **settings: Any) -> Played:
    module = trl_with_ppo()
    n, t, vocabulary = len(lengths), 7, 12
    queries = 1 + torch.arange(n)[:, None].expand(n, PROMPT)
    mask = torch.arange(t) < lengths[:, None]
    responses = torch.where(mask, torch.randint(1, vocabulary, (n, t)), 0)
    drew, prior = draw(n, PROMPT + t, vocabulary), draw(n, PROMPT + t, vocabulary)
    now = (drew + 0.3 * draw(*drew.shape)).requires_grad_()
    values, scores = draw(n, PROMPT + t), draw(n)
    new_values = (values + 0.3 * draw(*values.shape)).requires_grad_()
    here = slice(PROMPT - 1, -1)  # the positions that predict completions

    def table(logits: Tensor) -> Callable[..., Any]:
        return lambda input_ids, **_: SimpleNamespace(logits=logits[input_ids[:, 0] - 1].clone())

    class Model:
        is_gradient_checkpointing, value_model = False, Critic(values)
        generation_config = SimpleNamespace()
        policy = SimpleNamespace(
            generate=lambda **_: SimpleNamespace(
                sequences=torch.cat([queries, responses], 1), scores=tuple(drew[:, here].unbind(1))
            )
        )

        def train(self) -> None:
            pass

        def __call__(self, input_ids: Tensor, **_: Any) -> tuple[Any, Tensor]:
            return table(now)(input_ids), new_values[input_ids[:, 0] - 1, :, None]

    whitened: list[Tensor] = []

    def spy(found: Tensor, where: Tensor, **words: Any) -> Tensor:
        whitened.append(found.clone())
        result: Tensor = whitening(found, where, **words)
        return result

    whitening = module.masked_whiten
    monkeypatch.setattr(module, "masked_whiten", spy)
    monkeypatch.setattr(module, "unwrap_model_for_generation", lambda model, *_, **__: nullcontext(model))
    alike = dict.fromkeys(
        ("batch_size", "local_batch_size", "local_mini_batch_size", "per_device_train_batch_size", "total_episodes"), n
    )
    once = dict.fromkeys(("num_ppo_epochs", "num_mini_batches", "gradient_accumulation_steps", "num_total_batches"), 1)
    never = dict.fromkeys(("logging_steps", "eval_steps", "save_steps", "missing_eos_penalty"))
    usual = dict(kl_estimator="k1", kl_coef=0.05, whiten_rewards=False, gamma=1.0, lam=0.95, cliprange=0.2)
    usual |= dict(cliprange_value=0.2, vf_coef=0.1, response_length=t, temperature=1 - 1e-7)  # TRL adds 1e-7 to it
    usual |= dict(local_rollout_forward_batch_size=n, num_sample_generations=0, ds3_gather_for_generation=False)
    reported: list[dict[str, float]] = []
    quiet = SimpleNamespace(should_save=False)
    trainer = bare(
        module.PPOTrainer,
        args=SimpleNamespace(**alike, **once, **never, **(usual | settings)),
        model=Model(),
        ref_model=table(prior),
        reward_model=Critic(scores[:, None].expand(n, PROMPT + t)),
        processing_class=SimpleNamespace(pad_token_id=0, eos_token_id=1),
        dataloader=[{"input_ids": queries}],
        optimizer=SimpleNamespace(step=lambda: None, zero_grad=lambda: None),
        lr_scheduler=SimpleNamespace(step=lambda: None, get_last_lr=lambda: [0.0]),
        state=SimpleNamespace(),
        control=quiet,
        callback_handler=SimpleNamespace(
            on_train_begin=lambda *_: quiet, on_step_end=lambda *_: quiet, on_train_end=lambda *_: quiet
        ),
        train_dataset_len=n,
        is_deepspeed_enabled=False,
        stop_token_id=None,
        log=reported.append,
    )
    trainer.train()
    old, new, reference = (ours_of(x[:, here], responses) for x in (drew, now, prior))
    assert new.entropy is not None
    rows = [x.logprobs.view(n, t).double() for x in (old, new, reference)]
    return Played(
        mask=mask,
        old=rows[0],
        new=rows[1],
        reference=rows[2],
        values=values[:, here],
        new_values=new_values[:, here],
        scores=scores,
        entropy=new.entropy.view(n, t),
        advantages=whitened[-1],
        leaves=(now, new_values),
        loss=trainer.accelerator.losses[0],
        metrics=reported[0],
    )


FULL, RAGGED = tensor([7, 7, 7, 7, 7]), tensor([7, 3, 1, 5, 6])


@pytest.mark.parametrize(("gamma", "gae_lambda", "beta"), [(1.0, 0.95, 0.05), (0.9, 0.8, 0.0), (1.0, 1.0, 0.5)])
def test_advantages_of_ppo_agree_with_trl(
    gamma: float, gae_lambda: float, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = played(monkeypatch, FULL, gamma=gamma, lam=gae_lambda, kl_coef=beta)
    rollout = Rollout(made.mask, made.old, made.reference, made.scores, torch.arange(5), made.values)
    ours = PPO(beta=beta, gamma=gamma, gae_lambda=gae_lambda).advantages(rollout)
    assert ours.returns is not None
    same(ours.returns, made.advantages + made.values, 1e-5)  # our log-probabilities are in single precision
    same(ours.advantages, trl_with_ppo().masked_whiten(made.advantages, made.mask), 1e-5)
    same(sequence_kl(made.old, made.reference, made.mask).k1.mean(), made.metrics["objective/kl"], 1e-5)
    same(ours.metrics["reward"], made.metrics["objective/rlhf_reward"], 1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_advantages_of_padded_completions_agree_with_trl_once_they_are_a_token_longer(
    estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TRL pays the score one step after the last token and reads the value there; ours ends at the last token.
    made = played(monkeypatch, RAGGED, kl_estimator=estimator, gamma=0.9)
    kl = torch.where(made.mask, (k1 if estimator == "k1" else k3)(made.old, made.reference), 0.0)
    rewards = token_rewards(made.scores, kl, made.longer, 0.05)
    ours = gae(rewards, made.values, made.longer, 0.9, 0.95)
    same(ours.advantages * made.mask, made.advantages * made.mask, 1e-5)
    same(kl.sum(1).mean(), made.metrics["objective/kl"], 1e-5)
    summed = sequence_kl(made.old, made.reference, made.mask)
    same(getattr(summed, estimator).mean(), made.metrics["objective/kl"], 1e-5)


@pytest.mark.parametrize(("clip", "value_clip", "coefficient"), [(0.2, 0.2, 0.1), (0.1, 0.05, 1.0), (0.5, 10.0, 0.5)])
def test_losses_of_ppo_agree_with_trl(
    clip: float, value_clip: float, coefficient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = played(monkeypatch, FULL, cliprange=clip, cliprange_value=value_clip, vf_coef=coefficient)
    objective = PPO(epsilon_low=clip, epsilon_high=clip, vf_clip=value_clip, vf_coef=coefficient)
    ours = ppo_loss(objective, made, made.mask)
    for leaf in made.leaves:
        same_with_gradients(ours.value, made.loss, leaf, 1e-6)
    same(ours.metrics["policy_loss"], made.metrics["loss/policy_avg"], 1e-5)
    same(ours.metrics["value_loss"], made.metrics["loss/value_avg"], 1e-5)
    same(ours.metrics["clip_fraction"], made.metrics["policy/clipfrac_avg"], 1e-6)
    same(ours.metrics["ratio"], made.metrics["val/ratio"], 1e-5)
    same(made.entropy.mean(), made.metrics["policy/entropy_avg"], 1e-5)
    same(k2(made.new, made.old).mean(), made.metrics["policy/approxkl_avg"], 1e-5)


def test_losses_of_padded_completions_agree_with_trl_once_values_are_a_token_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # TRL trains the value of the step after the last token too; the policy's loss is over the completion alone.
    made = played(monkeypatch, RAGGED)
    same(ppo_loss(PPO(), made, made.mask).metrics["policy_loss"], made.metrics["loss/policy_avg"], 1e-5)
    longer = ppo_loss(PPO(), made, made.longer)
    same(longer.metrics["value_loss"], made.metrics["loss/value_avg"], 1e-5)
    same(k2(made.new, made.old)[made.mask].sum() / 35, made.metrics["policy/approxkl_avg"], 1e-5)


def ppo_loss(objective: PPO, made: Played, mask: Tensor) -> Loss:
    """Our loss over the tokens of a mask, of TRL's advantages."""
    returns = torch.where(made.longer, made.advantages + made.values, 0.0)
    advantages = trl_with_ppo().masked_whiten(made.advantages, made.mask)
    return objective(
        PolicyBatch(mask, made.new, made.old, made.reference, advantages, made.new_values, made.values, returns)
    )


# Maximum likelihood


def fitted(loss: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """The scores, of mean 0, at which a loss is least."""
    scores = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    found = torch.optim.LBFGS(
        [scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        found.zero_grad()
        value = loss(scores)
        value.backward()
        return value

    found.step(closure)
    return (scores - scores.mean()).detach()


def games(n: int = 6, rounds: int = 300) -> list[tuple[int, int]]:
    """Winner and loser of each comparison, of items that are unequal but not by much."""
    strength = draw(n)
    met = [torch.randperm(n)[:2].tolist() for _ in range(rounds)]
    wins = torch.rand(rounds).double() < torch.sigmoid(strength[[a for a, _ in met]] - strength[[b for _, b in met]])
    return [(a, b) if won else (b, a) for (a, b), won in zip(met, wins, strict=True)]


def bradley_terry(scores: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Our loss of comparisons by index."""
    won, lost = tensor(pairs).T
    one = torch.ones(len(pairs)).double()
    return BradleyTerry()(ScorePairs(scores[won], scores[lost], one, 0 * one, one)).value


def rankings(n: int = 6, rounds: int = 60) -> list[list[int]]:
    """Items best first, two to all of them."""
    sizes = torch.randint(2, n + 1, (rounds,)).tolist()
    strength = torch.linspace(-1, 1, n)
    return [torch.multinomial(strength.softmax(0), size).tolist() for size in sizes]


def ranked(scores: Tensor, orders: list[list[int]]) -> RankedScores:
    """Our batch of rankings by index, padded."""
    wide = max(map(len, orders))
    index = tensor([order + [0] * (wide - len(order)) for order in orders])
    tiers = torch.arange(wide).expand(len(orders), wide)
    mask = tiers < tensor([len(order) for order in orders])[:, None]
    return RankedScores(scores[index], tiers, mask, torch.ones(len(orders)).double())


def test_the_likelihood_of_comparisons_agrees_with_choix() -> None:
    pairs, scores = games(), draw(6)
    theirs = choix().log_likelihood_pairwise(pairs, scores.numpy())
    same(-len(pairs) * bradley_terry(scores, pairs), theirs, 1e-10)


def test_the_likelihood_of_rankings_agrees_with_choix() -> None:
    orders, scores = rankings(), draw(6)
    theirs = choix().log_likelihood_rankings(orders, scores.numpy())
    same(-len(orders) * PlackettLuce()(ranked(scores, orders)).value, theirs, 1e-10)


def test_the_mean_over_the_pairs_of_a_ranking_agrees_with_choix() -> None:
    scores = draw(6)
    for order in rankings(rounds=8):
        pairs = list(combinations(order, 2))
        theirs = -choix().log_likelihood_pairwise(pairs, scores.numpy()) / len(pairs)
        same(KWay()(ranked(scores, [order])).value, theirs, 1e-10)


def test_a_choice_of_one_from_many_agrees_with_choix_once_equals_are_drawn_too() -> None:
    # In our ranking of one above equals each of the equals is drawn from their tier; choix stops after the first.
    scores = draw(6)
    tiers, mask = tensor([[0, 1, 1, 1, 1, 1]]), torch.ones(1, 6, dtype=torch.bool)
    ours = PlackettLuce()(RankedScores(scores[None], tiers, mask, torch.ones(1).double())).value
    drawn = sum(scores[1:].logsumexp(0) - score for score in scores[1:])
    same(ours - drawn, -choix().log_likelihood_top1([(0, [1, 2, 3, 4, 5])], scores.numpy()), 1e-10)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ilsr_pairwise", {"tol": 1e-12}),
        ("opt_pairwise", {"alpha": 0.0, "tol": 1e-10}),
        ("mm_pairwise", {"tol": 1e-12}),
    ],
)
def test_the_fit_of_comparisons_agrees_with_choix(method: str, words: dict[str, float]) -> None:
    pairs = games()
    theirs = getattr(choix(), method)(6, pairs, max_iter=100000, **words)
    same(fitted(lambda scores: bradley_terry(scores, pairs), 6), theirs - theirs.mean(), 1e-7)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("ilsr_rankings", {"tol": 1e-12}),
        ("opt_rankings", {"alpha": 0.0, "tol": 1e-10}),
        ("mm_rankings", {"tol": 1e-12}),
    ],
)
def test_the_fit_of_rankings_agrees_with_choix(method: str, words: dict[str, float]) -> None:
    orders = rankings()
    theirs = getattr(choix(), method)(6, orders, max_iter=100000, **words)
    same(fitted(lambda scores: PlackettLuce()(ranked(scores, orders)).value, 6), theirs - theirs.mean(), 1e-7)


# Outcomes with ties


@dataclass(frozen=True)
class Contest:
    """Comparisons of items by index: 1 the first won, 1/2 a tie, 0 the second won."""

    first: Tensor  # (N,) long
    second: Tensor  # (N,) long
    outcome: Tensor  # (N,)

    @classmethod
    def drawn(cls, n: int, rounds: int) -> "Contest":
        met = torch.stack([torch.randperm(n)[:2] for _ in range(rounds)])
        ahead = met[:, 1] - met[:, 0] + 2 * draw(rounds)
        return cls(met[:, 0], met[:, 1], torch.where(ahead.abs() < 1, 0.5, (ahead > 0).double()))

    def scores(self, scores: Tensor) -> ScorePairs:
        one = torch.ones(len(self.outcome)).double()
        return ScorePairs(scores[self.first], scores[self.second], self.outcome, 0 * one, one)

    @property
    def words(self) -> dict[str, Any]:
        """The arguments of evalica."""
        winner = evalica().Winner
        named = {1.0: winner.X, 0.5: winner.Draw, 0.0: winner.Y}
        said = [named[x] for x in self.outcome.tolist()]
        return dict(xs=self.first.tolist(), ys=self.second.tolist(), winners=said)


def in_logs(scores: Any) -> Tensor:
    """Scores of evalica in the order of their items, as logarithms of mean 0."""
    logs = tensor(scores.sort_index().to_numpy()).log()
    return logs - logs.mean()


def test_the_fit_with_ties_as_half_wins_agrees_with_evalica() -> None:
    seen = Contest.drawn(6, 400)
    theirs = evalica().bradley_terry(**seen.words, tolerance=1e-13, limit=100000)
    same(fitted(lambda scores: BradleyTerry()(seen.scores(scores)).value, 6), in_logs(theirs.scores), 1e-7)


def test_the_fit_with_davidsons_ties_agrees_with_evalica() -> None:
    # Newman's v, which evalica fits along with the scores, is half of Davidson's nu, which ours is told.
    seen = Contest.drawn(6, 400)
    theirs = evalica().newman(**seen.words, tolerance=1e-13, limit=100000)

    def fit(nu: float) -> Tensor:
        return fitted(lambda scores: BradleyTerry("davidson", nu)(seen.scores(scores)).value, 6)

    same(fit(2 * theirs.v), in_logs(theirs.scores), 1e-6)
    costs = [
        BradleyTerry("davidson", nu)(seen.scores(fit(nu))).value.item()
        for nu in (2 * theirs.v, 2.02 * theirs.v, 1.98 * theirs.v)
    ]
    assert costs[0] == min(costs)


def test_chances_of_winning_agree_with_evalica() -> None:
    scores = draw(6)
    theirs = tensor(evalica().pairwise_scores(scores.exp().numpy()))
    surprise = [[bradley_terry(scores, [(a, b)]).item() for b in range(6)] for a in range(6)]
    same((-tensor(surprise, dtype=torch.float64)).exp(), theirs)


def test_a_win_rate_agrees_with_evalica() -> None:
    seen = Contest.drawn(2, 50)
    mine = torch.where(seen.first == 0, seen.outcome, 1 - seen.outcome)
    ours = win_rate(*(int((mine == result).sum()) for result in (1.0, 0.5, 0.0)))
    assert min(ours.wins, ours.ties, ours.losses) > 0
    same(ours.rate, evalica().average_win_rate(**seen.words).scores[0])
    same(ours.rate * ours.n, evalica().counting(**seen.words).scores[0])


def test_a_mean_of_win_rates_over_opponents_agrees_with_evalica() -> None:
    seen = Contest.drawn(4, 200)
    theirs = evalica().average_win_rate(**seen.words).scores
    for item in range(4):
        rates = []
        for other in set(range(4)) - {item}:
            there, back = ((seen.first == x) & (seen.second == y) for x, y in ((item, other), (other, item)))
            mine = torch.cat([seen.outcome[there], 1 - seen.outcome[back]])
            rates.append(win_rate(*(int((mine == result).sum()) for result in (1.0, 0.5, 0.0))).rate)
        same(sum(rates) / 3, theirs[item])


def test_the_bootstrap_of_a_win_rate_agrees_with_evalica() -> None:
    # Of one seed both draw the same resamples, so the percentiles are equal and not just close.
    seen = Contest.drawn(2, 60)
    mine = torch.where(seen.first == 0, seen.outcome, 1 - seen.outcome).numpy()
    ours = bootstrap(mine, np.arange(60), 500, seed=7)
    module = evalica()
    theirs = module.bootstrap(
        module.average_win_rate,
        **seen.words,
        n_resamples=500,
        bootstrap_method="percentile",
        random_state=np.random.default_rng(7),
    )
    same([ours.low, ours.high], [theirs.low[0], theirs.high[0]])


def test_the_bootstrap_of_a_rate_by_clusters_agrees_with_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    # A corpus's error rate is a mean over words, drawn by sentences, and of one seed both draw the same ones. Limits
    # of sacrebleu are resamples, ours lie between two: of 1001 both are the 26th from either end.
    module = pytest.importorskip("sacrebleu", reason="needs sacrebleu: pip install sacrebleu==2.6.0")
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    words = ["the", "a", "of", "cat", "dog", "sat", "ran", "on", "mat", "house"]
    random = np.random.default_rng(0)
    wanted = [" ".join(random.choice(words, random.integers(3, 12))) for _ in range(40)]
    said = [" ".join(random.choice(words) if random.random() < 0.3 else w for w in line.split()) for line in wanted]
    metric = module.TER()
    theirs = metric.corpus_score(said, [wanted], n_bootstrap=1001)
    each = [metric.sentence_score(mine, [line]) for mine, line in zip(said, wanted, strict=True)]
    values = np.concatenate([np.full(int(s.ref_length), 100 * s.num_edits / s.ref_length) for s in each])
    clusters = np.concatenate([np.full(int(s.ref_length), i) for i, s in enumerate(each)])
    ours = bootstrap(values, clusters, 1001, seed=7)
    same(ours.rate, theirs.score, 1e-9)
    same((ours.high - ours.low) / 2, theirs._ci, 1e-4)
