"""The models of online training: policy, reference, rewards, and a value model; apart, or as adapters on one base."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from assent.errors import AssentError
from assent.functional.logprobs import TokenLogprobs
from assent.models.adapters import SharedBase, matches_base
from assent.models.attention import supports_packing
from assent.models.forward import causal_lm, decoder_layers, logprobs, logprobs_and_values, values
from assent.models.heads import ValueHead
from assent.models.load import LoadedModel, load_policy, load_reward, new_reward
from assent.models.packing import PackedBatch
from assent.rewards.model import Model
from assent.run import Run
from assent.scoring import RewardSource, WeightedRewards, load_reward_model
from assent.training.settings import Training


class OnlineModels(NamedTuple):
    """The models of a run of online training."""

    policy: LoadedModel
    reference: Any
    rewards: WeightedRewards
    value: LoadedModel | None


class ValueModel(NamedTuple):
    """Settings of the value model."""

    reward: str
    """The reward model that it starts from."""
    fallback: str
    """The policy that it starts from if the run has no such reward model."""
    trainable_layers: int = 0
    """Layers that are trained, from the top; 0: all."""
    is_head: bool = False
    """Whether it is a head on the policy's hidden states, without a body of its own."""


def load_separate(
    run: Run, policy: str, source: RewardSource, training: Training, value: ValueModel | None
) -> OnlineModels:
    """Load each model with weights of its own.

    Args:
        value: settings of the value model; None: the objective needs none.
    """
    trained = load_policy(policy, device=run.device, rendering=run.rendering)
    reference = load_policy(policy, run.dtype, run.device, run.rendering).model.requires_grad_(False)
    rewards = source.load(run, training.max_tokens_per_batch)
    return OnlineModels(trained, reference, rewards, load_value_model(run, value, trained) if value else None)


def load_shared(
    run: Run, policy: str, source: RewardSource, training: Training, value: ValueModel | None
) -> OnlineModels:
    """Load the models as adapters on one frozen base, which alone is the reference.

    A reward model that was not trained as an adapter of this base is loaded with weights of its own, and so is a value
    model that starts from it.
    """
    base = SharedBase(load_policy(policy, run.dtype, run.device, run.rendering))
    trained = base.new_adapter("policy", training.lora_rank, training.lora_alpha)
    models: dict[str, Model] = {}
    adapters: dict[str, Path] = {}
    for number, name in enumerate(source.models(run)):
        folder = run.folder / name if (run.folder / name).exists() else Path(name)
        if matches_base(folder, policy) and not list(folder.glob("member-*")):
            adapters[name] = folder
            member = base.load_adapter(folder, f"reward-{number}" if number else "reward")
            models[name] = Model((member,), training.max_tokens_per_batch)
        else:
            models[name] = load_reward_model(run, name, training.max_tokens_per_batch)
    critic = None
    if value and value.reward in adapters and not value.is_head:
        critic = base.load_adapter(adapters[value.reward], "value", train=True)
        zero_head(critic)
    elif value:
        critic = load_value_model(run, value, trained)
    return OnlineModels(trained, base.base_model().model, source.combined(run, models), critic)


def load_value_model(run: Run, settings: ValueModel, policy: LoadedModel) -> LoadedModel:
    """Load a value model that starts from a reward model, or from the policy if the run has no reward model.

    Args:
        policy: the policy that is trained, on which a value head reads.
    """
    if settings.is_head:
        return _new_value_head(policy)
    name = settings.reward
    if name != run.key("reward") or (run.folder / name).exists():
        value = load_reward(run.policy(name), device=run.device, rendering=run.rendering)
    else:
        value = new_reward(run.policy(settings.fallback), run.seed, device=run.device, rendering=run.rendering)
    zero_head(value)
    if settings.trainable_layers:
        layers = decoder_layers(value.model)
        if settings.trainable_layers > len(layers):
            raise AssentError(
                f"--trainable-value-layers is {settings.trainable_layers}; the value model has {len(layers)} layers"
            )
        value.model.base_model.requires_grad_(False)
        for layer in layers[-settings.trainable_layers :]:
            layer.requires_grad_(True)
    return value


def _new_value_head(policy: LoadedModel) -> LoadedModel:
    if not supports_packing(policy.model.base_model):
        kind = type(causal_lm(policy.model)).__name__
        raise AssentError(
            f"--value-head reads the hidden states of packed sequences, and a {kind} has none: leave it out"
        )
    head: Any = ValueHead(policy.model)
    return LoadedModel(head, policy.chat_tokenizer)


def policy_logprobs(
    policy: nn.Module, value: nn.Module | None, packed: PackedBatch, temperature: float, entropy: bool
) -> tuple[TokenLogprobs, Tensor | None]:
    """Return the policy's log-probabilities of the completion tokens, and the value model's estimates, each (N,)."""
    if isinstance(value, ValueHead):
        return logprobs_and_values(policy, value, packed, temperature, entropy)
    now = logprobs(policy, packed, temperature, entropy)
    return now, None if value is None else values(value, packed)


def zero_head(value: LoadedModel) -> None:
    """Let a value model estimate 0, the mean score, everywhere at first.

    The reward model's own head gives a low score to every unfinished response, so the end token would get a large
    positive advantage, and the policy would learn to stop early.
    """
    head = value.model.get_submodule("score").weight
    assert isinstance(head, Tensor)
    torch.nn.init.zeros_(head)
