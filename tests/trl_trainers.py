"""TRL's trainers without their constructors: each has the attributes that its loss reads, and our numbers as model.

TRL 1.12 was the last release with PPO: its tests are skipped with later versions.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from assent.batch import (
    LogprobPairs,
    PolicyBatch,
)
from assent.functional.logprobs import TokenLogprobs, token_logprobs

PROMPT = 3
"""Tokens before each completion."""
LENGTHS = tensor([5, 1, 7, 3, 2, 6, 4, 5])
"""Of eight completions; of pairs, the second half is rejected."""


def trl(module: str) -> Any:
    """Import a module of TRL 1.16: its losses read private attributes, whose names differ between versions."""
    version = pytest.importorskip("trl", reason="needs TRL: pip install trl==1.16.0").__version__
    if not version.startswith("1.16."):
        pytest.skip(f"needs TRL 1.16, not {version}: pip install trl==1.16.0")
    return pytest.importorskip(f"trl.{module}")


def trl_with_ppo() -> Any:
    """Import TRL's PPO, which later versions do not have."""
    pytest.importorskip("trl", reason="needs a TRL that still has PPO: pip install trl==1.12.0")
    reason = "this TRL has no PPO any more: pip install trl==1.12.0"
    return pytest.importorskip("trl.experimental.ppo.ppo_trainer", reason=reason)


def same(result: Any, expected: Any, tolerance: float = 1e-12) -> None:
    result, expected = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (result, expected))
    assert result.shape == expected.shape
    assert result.isfinite().all()
    assert (result - expected).abs().max().item() <= tolerance


def same_with_gradients(result: Tensor, expected: Tensor, source: Tensor, tolerance: float = 1e-12) -> None:
    """Assert that two losses of the same tensors are equal, and their gradients too."""
    same(result, expected, tolerance)
    result_grad, expected_grad = (
        torch.autograd.grad(loss, source, retain_graph=True)[0] for loss in (result, expected)
    )
    same(result_grad, expected_grad, tolerance)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class SingleProcessAccelerator:
    """The accelerator of a trainer in a single process."""

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


def bare_trainer(kind: Any, **attributes: Any) -> Any:
    """Return a trainer without calling its constructor, with the attributes of its loss; by default in evaluation."""
    trainer = object.__new__(kind)
    common = dict(
        accelerator=SingleProcessAccelerator(),
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


def completion_mask(lengths: Tensor = LENGTHS) -> Tensor:
    """Return the mask of completion tokens in a padded batch, (B, T) bool."""
    position = torch.arange(PROMPT + int(lengths.max()))
    return (position >= PROMPT) & (position < PROMPT + lengths[:, None])


def random_logprobs(mask: Tensor) -> Tensor:
    """Return log-probabilities of each token but the first, (B, T - 1); 0 outside the completions."""
    return torch.where(mask[:, 1:], -randn(len(mask), mask.shape[1] - 1).abs(), 0.0)


@dataclass(frozen=True)
class PairData:
    """Chosen completions, then an equal number of rejected ones, under a policy and a reference."""

    mask: Tensor  # (B, T) bool
    policy: Tensor  # (B, T - 1), with gradient
    reference: Tensor  # (B, T - 1)

    @classmethod
    def random(cls, lengths: Tensor = LENGTHS) -> "PairData":
        mask = completion_mask(lengths)
        return cls(mask, random_logprobs(mask).requires_grad_(), random_logprobs(mask))

    @property
    def pairs(self) -> LogprobPairs:
        (chosen, rejected), (reference_chosen, reference_rejected), (chosen_tokens, rejected_tokens) = (
            x.sum(1).chunk(2) for x in (self.policy, self.reference, self.mask.double())
        )
        ones = torch.ones_like(chosen)
        return LogprobPairs(
            chosen, rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens, ones, ones
        )


def fused_output(logprobs: Tensor) -> SimpleNamespace:
    """Return the output of a model with TRL's fused head."""
    nothing = torch.zeros_like(logprobs)
    return SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trl_dpo(kind: str, data: PairData, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    trainer = bare_trainer(
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
    mask = data.mask.long()
    chosen, rejected = data.reference.sum(1).chunk(2)
    inputs = dict(input_ids=mask, attention_mask=mask, completion_mask=mask)
    inputs |= dict(ref_chosen_logps=chosen, ref_rejected_logps=rejected)
    loss: Tensor = trainer._compute_loss(lambda **_: fused_output(data.policy), inputs, False)
    return loss


def our_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> TokenLogprobs:
    """Return our log-probabilities and entropies, flat, of logits (..., V) and tokens (...)."""
    flat = logits.reshape(-1, logits.shape[-1])
    return token_logprobs(flat, tokens.reshape(-1), lambda x: x, temperature, entropy=True, chunk=7)


@dataclass(frozen=True)
class PolicyData:
    """Completions under a changed policy, in the form of each side."""

    batch: PolicyBatch
    inputs: dict[str, Tensor]


def random_policy_data(gaps: bool = False, step: float = 0.3) -> PolicyData:
    is_completion = completion_mask()[:, PROMPT:]
    mask = is_completion & (torch.rand(is_completion.shape) < 0.7) if gaps else is_completion
    mask[:, 0] = True
    policy = (-randn(*mask.shape).abs()).requires_grad_()
    old = policy.detach() + step * randn(*mask.shape)
    reference = policy.detach() + step * randn(*mask.shape)
    advantages = randn(len(mask))
    ones = torch.ones(len(mask), PROMPT, dtype=torch.long)
    batch = PolicyBatch(mask, policy, old, reference, advantages[:, None].expand_as(policy))
    inputs = dict(
        prompt_ids=ones, prompt_mask=ones, completion_ids=is_completion.long(), completion_mask=is_completion.long()
    )
    inputs |= dict(tool_mask=mask.long(), advantages=advantages, old_per_token_logps=old, ref_per_token_logps=reference)
    return PolicyData(batch, inputs | dict(num_items_in_batch=mask.sum(), old_logps=torch.where(mask, old, 0.0).sum(1)))


def trl_grpo(data: PolicyData, **settings: Any) -> tuple[Tensor, dict[str, list[float]]]:
    """Return the loss and the metrics of TRL's GRPO."""
    args = SimpleNamespace(delta=settings.pop("delta", None), use_bias_correction_kl=False, steps_per_generation=1)
    mode = "train" if settings.pop("training", False) else "eval"
    trainer = bare_trainer(
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
            _get_per_token_logps_and_entropies=lambda *_, **__: (data.batch.logprobs, data.batch.logprobs, None),
        )
        | settings,
    )
    loss = trainer._compute_loss(None, data.inputs)
    return loss, trainer._metrics[mode]


def trl_rollout(kind: Any, rewards: Tensor, size: int, policy: Tensor, reference: Tensor, **settings: Any) -> Any:
    """Return the batch that a trainer of TRL builds from given completions and rewards."""
    n = len(rewards)
    completion_ids = [[5] * int(length) for length in LENGTHS[:n]]
    logprobs = iter((policy, reference))
    ids = [[1] * PROMPT for _ in completion_ids]
    texts = ["text"] * n
    generated: dict[str, tuple[Any, ...]] = {
        "GRPOTrainer": (ids, completion_ids, None, texts, None, {}, None, None),
        "RLOOTrainer": (ids, completion_ids, texts),
    }
    trainer = bare_trainer(
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
        _get_per_token_logps_and_entropies=lambda *_, **__: (next(logprobs), None, None),
        **settings,
    )
    return trainer._generate_and_score_completions([{"prompt": "?"}] * n)


@dataclass(frozen=True)
class PPOStep:
    """Inputs and results of one step of TRL's PPO that updates no weights."""

    mask: Tensor  # (B, T) bool, of completions
    old: Tensor  # (B, T) log-probabilities
    new: Tensor  # (B, T), with gradient
    reference: Tensor  # (B, T)
    values: Tensor  # (B, T) of the old value model
    new_values: Tensor  # (B, T), with gradient
    scores: Tensor  # (B,)
    entropy: Tensor  # (B, T)
    advantages: Tensor  # (B, T) theirs, before they are whitened
    leaves: tuple[Tensor, Tensor]  # logits and values from which `new` and `new_values` are computed
    loss: Tensor  # () theirs
    metrics: dict[str, float]  # theirs

    @property
    def longer(self) -> Tensor:
        """Return the mask with one more token in each row that has one, (B, T) bool."""
        return self.mask | torch.nn.functional.pad(self.mask, (1, 0))[:, :-1]


class Critic:
    """A value or reward model of TRL's PPO: a table of outputs, whose row is the first token."""

    base_model_prefix = "backbone"

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def backbone(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[self.values[input_ids[:, 0] - 1, :, None]])

    def score(self, hidden: Tensor) -> Tensor:
        return hidden


def trl_ppo_step(monkeypatch: pytest.MonkeyPatch, lengths: Tensor, **settings: Any) -> PPOStep:
    module = trl_with_ppo()
    n = len(lengths)
    t = 7
    vocab_size = 12
    queries = 1 + torch.arange(n)[:, None].expand(n, PROMPT)
    mask = torch.arange(t) < lengths[:, None]
    responses = torch.where(mask, torch.randint(1, vocab_size, (n, t)), 0)
    old_logits = randn(n, PROMPT + t, vocab_size)
    reference_logits = randn(n, PROMPT + t, vocab_size)
    new_logits = (old_logits + 0.3 * randn(*old_logits.shape)).requires_grad_()
    values, scores = randn(n, PROMPT + t), randn(n)
    new_values = (values + 0.3 * randn(*values.shape)).requires_grad_()
    predicting = slice(PROMPT - 1, -1)  # the positions that predict completions

    def table(logits: Tensor) -> Callable[..., Any]:
        return lambda input_ids, **_: SimpleNamespace(logits=logits[input_ids[:, 0] - 1].clone())

    class Model:
        is_gradient_checkpointing = False
        value_model = Critic(values)
        generation_config = SimpleNamespace()
        policy = SimpleNamespace(
            generate=lambda **_: SimpleNamespace(
                sequences=torch.cat([queries, responses], 1), scores=tuple(old_logits[:, predicting].unbind(1))
            )
        )

        def train(self) -> None:
            pass

        def __call__(self, input_ids: Tensor, **_: Any) -> tuple[Any, Tensor]:
            return table(new_logits)(input_ids), new_values[input_ids[:, 0] - 1, :, None]

    whitened: list[Tensor] = []

    def spy(values: Tensor, mask: Tensor, **options: Any) -> Tensor:
        whitened.append(values.clone())
        output: Tensor = whitening(values, mask, **options)
        return output

    whitening = module.masked_whiten
    monkeypatch.setattr(module, "masked_whiten", spy)
    monkeypatch.setattr(module, "unwrap_model_for_generation", lambda model, *_, **__: nullcontext(model))
    sizes = dict.fromkeys(
        ("batch_size", "local_batch_size", "local_mini_batch_size", "per_device_train_batch_size", "total_episodes"), n
    )
    counts = dict.fromkeys(
        ("num_ppo_epochs", "num_mini_batches", "gradient_accumulation_steps", "num_total_batches"), 1
    )
    disabled = dict.fromkeys(("logging_steps", "eval_steps", "save_steps", "missing_eos_penalty"))
    defaults = dict(kl_estimator="k1", kl_coef=0.05, whiten_rewards=False, gamma=1.0, lam=0.95, cliprange=0.2)
    defaults |= dict(cliprange_value=0.2, vf_coef=0.1, response_length=t, temperature=1 - 1e-7)  # TRL adds 1e-7 to it
    defaults |= dict(local_rollout_forward_batch_size=n, num_sample_generations=0, ds3_gather_for_generation=False)
    reports: list[dict[str, float]] = []
    control = SimpleNamespace(should_save=False)
    trainer = bare_trainer(
        module.PPOTrainer,
        args=SimpleNamespace(**sizes, **counts, **disabled, **(defaults | settings)),
        model=Model(),
        ref_model=table(reference_logits),
        reward_model=Critic(scores[:, None].expand(n, PROMPT + t)),
        processing_class=SimpleNamespace(pad_token_id=0, eos_token_id=1),
        dataloader=[{"input_ids": queries}],
        optimizer=SimpleNamespace(step=lambda: None, zero_grad=lambda: None),
        lr_scheduler=SimpleNamespace(step=lambda: None, get_last_lr=lambda: [0.0]),
        state=SimpleNamespace(),
        control=control,
        callback_handler=SimpleNamespace(
            on_train_begin=lambda *_: control, on_step_end=lambda *_: control, on_train_end=lambda *_: control
        ),
        train_dataset_len=n,
        is_deepspeed_enabled=False,
        stop_token_id=None,
        log=reports.append,
    )
    trainer.train()
    old, new, reference = (
        our_logprobs(x[:, predicting], responses) for x in (old_logits, new_logits, reference_logits)
    )
    assert new.entropy is not None
    rows = [x.logprobs.view(n, t).double() for x in (old, new, reference)]
    return PPOStep(
        mask=mask,
        old=rows[0],
        new=rows[1],
        reference=rows[2],
        values=values[:, predicting],
        new_values=new_values[:, predicting],
        scores=scores,
        entropy=new.entropy.view(n, t),
        advantages=whitened[-1],
        leaves=(new_logits, new_values),
        loss=trainer.accelerator.losses[0],
        metrics=reports[0],
    )
