"""Rewards of steps: what a fit learns from comparisons of clips, and that the members are apart."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

pytest.importorskip("stable_baselines3")

from assent.control.reward_model import StepReward, StepRewardSettings
from assent.models.packing import SharedPrefix
from assent.objectives.bradley_terry import BradleyTerry
from assent.training.preferences import Pair, PromptGroup

WEIGHTS = torch.tensor([2.0, -1.0, 0.5])
"""The true reward of a step with three features."""
NUM_PAIRS, STEPS = 200, 6


def clips_and_groups(seed: int = 0, flip: bool = False) -> tuple[Tensor, list[PromptGroup]]:
    """Return clips, (S, T, 3), and a comparison of each two by the sum of the true rewards."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.randn(2 * NUM_PAIRS, STEPS, 3, generator=generator)
    returns = (clips @ WEIGHTS).sum(1) * (-1 if flip else 1)
    groups = []
    for pair in range(NUM_PAIRS):
        first_wins = bool(returns[2 * pair] > returns[2 * pair + 1])
        tokens = SharedPrefix((), ((2 * pair,), (2 * pair + 1,)))
        groups.append(PromptGroup(f"prompt {pair}", tokens, (Pair(0, 1) if first_wins else Pair(1, 0),)))
    return clips, groups


def fitted(settings: StepRewardSettings, clips: Tensor, groups: list[PromptGroup]) -> tuple[StepReward, float]:
    model = StepReward((3,), settings, seed=0)
    return model, model.fit(groups, clips, BradleyTerry(), seed=0)["reward_accuracy"]


def first_layer(model: StepReward) -> Tensor:
    """Return the weights of the first layer, (K, in, out)."""
    networks: Any = model.networks
    weights: Tensor = networks.weights[0]
    return weights


def bias_of(model: StepReward) -> Tensor:
    """Return the biases of the first layer."""
    networks: Any = model.networks
    bias: Tensor = networks.biases[0]
    return bias


def test_linear_reward_has_the_direction_of_the_true_one() -> None:
    clips, groups = clips_and_groups()
    model, accuracy = fitted(StepRewardSettings(reward_hidden=0, reward_lr=0.02, stop_accuracy=1), clips, groups)
    assert accuracy > 0.97
    learned = first_layer(model)[:, :, 0]
    for member in learned.detach():
        assert torch.cosine_similarity(member, WEIGHTS, 0) > 0.98


def test_opposite_choices_teach_the_opposite() -> None:
    settings = StepRewardSettings(reward_hidden=0, reward_lr=0.02)
    model, _ = fitted(settings, *clips_and_groups(flip=True))
    learned = first_layer(model).detach().mean(0)[:, 0]
    assert torch.cosine_similarity(learned, WEIGHTS, 0) < -0.98


def test_networks_predict_comparisons_of_other_clips() -> None:
    model, _ = fitted(StepRewardSettings(), *clips_and_groups())
    clips, groups = clips_and_groups(seed=1)
    assert model.accuracy(groups, clips) > 0.9


def test_random_choices_teach_nothing() -> None:
    clips, groups = clips_and_groups()
    rng = np.random.default_rng(0)
    shuffled = [group._replace(pairs=(Pair(*rng.permutation(2).tolist()),)) for group in groups]
    model, _ = fitted(StepRewardSettings(), clips, shuffled)
    held_out = [model.accuracy(groups, clips) for clips, groups in map(clips_and_groups, (1, 2, 3))]
    assert 0.35 < np.mean(held_out) < 0.65


def test_fit_ends_at_the_accuracy_that_is_enough() -> None:
    clips, groups = clips_and_groups()
    settings = StepRewardSettings(stop_accuracy=0.8)
    assert StepReward((3,), settings, 0).fit(groups, clips, BradleyTerry(), 0)["reward_epochs"] < 10


def test_ties_move_equal_scores_nowhere() -> None:
    model = StepReward((3,), StepRewardSettings(reward_hidden=0, members=1, reward_weight_decay=0), seed=0)
    before = first_layer(model).detach().clone()
    clips = torch.ones(2, STEPS, 3)
    group = PromptGroup("a", SharedPrefix((), ((0,), (1,))), (Pair(0, 1, p_chosen=0.5),))
    model.fit([group], clips, BradleyTerry(), seed=0)
    assert torch.allclose(first_layer(model), before)


def test_members_are_fitted_to_samples_of_their_own() -> None:
    clips, groups = clips_and_groups()
    model, _ = fitted(StepRewardSettings(reward_epochs=5), clips, groups)
    rewards = model.rewards(clips.numpy())
    assert rewards.shape == (2 * NUM_PAIRS, STEPS, 3)
    assert rewards.std(-1).min() > 0
    again, _ = fitted(StepRewardSettings(reward_epochs=5), clips, groups)
    assert torch.equal(rewards, again.rewards(clips.numpy()))


@pytest.mark.parametrize("shape", [(4,), (2, 42, 42), (4, 84, 84)])
def test_members_of_an_ensemble_do_not_touch_each_other(shape: tuple[int, ...]) -> None:
    model = StepReward(shape, StepRewardSettings(members=2), seed=0)
    features = torch.rand(5, *shape) if len(shape) == 1 else torch.randint(0, 256, (5, *shape), dtype=torch.uint8)
    before = model(features).detach()
    assert before.shape == (2, 5)
    (gradient,) = torch.autograd.grad(model(features)[0].sum(), bias_of(model))
    first, second = gradient.view(2, -1)
    assert first.abs().sum() > 0
    assert second.abs().sum() == 0


def test_standardised_rewards_have_mean_0_and_deviation_1() -> None:
    model = StepReward((3,), replace(StepRewardSettings(), members=1), seed=0)
    features: NDArray[np.float32] = np.random.default_rng(0).normal(size=(50, 4, 3)).astype(np.float32)
    model.standardise_on(features)
    rewards = model.mean_rewards(features)
    assert rewards.mean() == pytest.approx(0, abs=1e-5)
    assert rewards.std() == pytest.approx(1, rel=0.01)


def test_constant_features_are_not_divided_by_0() -> None:
    model = StepReward((3,), StepRewardSettings(), seed=0)
    features = np.ones((5, 2, 3), dtype=np.float32)
    model.standardise_on(features)
    assert np.allclose(model.mean_rewards(features), 0, atol=1e-6)
