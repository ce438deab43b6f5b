"""A reward for each step: an ensemble of small networks whose sums over clips agree with the comparisons of clips.

Christiano et al. 2017, section 2.2 (arXiv:1706.03741): the probability that a clip is preferred is a softmax of the
sums; each member is fitted to its own bootstrap sample; the reward is the mean of the members, each standardised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from assent.control.networks import reward_networks
from assent.control.saved import read_settings
from assent.errors import AssentError
from assent.protocols import RewardObjective
from assent.records import unit_hash
from assent.replay import feature_shape
from assent.training.batching import count_steps, select_batch
from assent.training.preferences import BATCH_SPECS, PromptGroup, pair_tensors
from assent.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

STEPS_PER_PASS = 65_536
"""Steps that are scored together."""
PICTURES_PER_PASS = 512
"""The same if a step is a picture."""


@dataclass(frozen=True)
class StepRewardSettings:
    """The reward model."""

    members: PositiveInt = 3
    """Networks of the ensemble."""
    reward_hidden: NonNegativeInt = 64
    """Units of each of two hidden layers; 0: a linear reward."""
    reward_lr: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    reward_epochs: PositiveInt = 60
    """Passes over all comparisons each time there are new ones."""
    reward_batch_size: PositiveInt = 16
    """Starts of episodes, with their comparisons, in one step."""
    reward_weight_decay: NonNegativeFloat = 1e-4
    """AdamW's decoupled weight decay."""
    stop_accuracy: Fraction = 0.995
    """A fit ends early at this accuracy on the comparisons; 1 less the share of wrong ones, or a little more."""


class StepReward(nn.Module):
    """K networks of a step's features.

    Args:
        feature_shape: of a step: (F,), or (C, H, W) of a picture.
        seed: of the initial weights.
    """

    def __init__(self, feature_shape: tuple[int, ...], settings: StepRewardSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.feature_shape = feature_shape
        self.networks = reward_networks(feature_shape, settings.members, settings.reward_hidden, seed)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(settings.members))
        self.register_buffer("std", torch.ones(settings.members))
        self.steps = 0
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=settings.reward_lr, weight_decay=settings.reward_weight_decay
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the members' rewards, not standardised, (K, N), of steps with features (N, ...)."""
        rewards: Tensor = self.networks(features)
        return rewards

    @torch.no_grad()
    def rewards(self, features: NDArray[Any]) -> Tensor:
        """Return the members' rewards, not standardised, (T, N, K), of features (T, N, ...)."""
        flat = torch.from_numpy(features).flatten(0, 1)
        parts = [self(part) for part in flat.split(STEPS_PER_PASS if flat.ndim == 2 else PICTURES_PER_PASS)]
        return torch.cat(parts, 1).T.reshape(*features.shape[:2], -1)

    def standardise_on(self, features: NDArray[Any]) -> None:
        """Set the members' mean and deviation to those of their rewards of these steps."""
        rewards = self.rewards(features).reshape(-1, len(self.mean))
        self.mean, std = rewards.mean(0), rewards.std(0)
        self.std = torch.where(std > 0, std, torch.ones(()))

    def mean_rewards(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return the mean of the standardised members, (T, N)."""
        standardised = (self.rewards(features) - self.mean) / self.std
        return standardised.mean(-1).numpy()

    def fit(
        self, groups: Sequence[PromptGroup], clips: Tensor, objective: RewardObjective, seed: int
    ) -> dict[str, float]:
        """Fit all members to judgements of clips; return the last loss, the accuracy and the passes made.

        Args:
            groups: judgements by prompt; the one token of a completion is the number of a clip.
            clips: (S, T, ...) features.
            seed: of the order of the groups.
        """
        settings = self.settings
        bootstrap = [[group.reweighted(_copies(group.prompt, member)) for group in groups] for member in self._members]
        indices = range(len(groups))
        steps_per_epoch = count_steps(len(groups), settings.reward_batch_size, 1)
        loss, measured, epoch = 0.0, 0.0, 0
        for epoch in range(settings.reward_epochs):
            for step in range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch):
                batch = select_batch(indices, settings.reward_batch_size, step, seed)
                loss = self._step([[members[i] for i in batch] for members in bootstrap], clips, objective)
            measured = self.accuracy(groups, clips)
            if measured >= settings.stop_accuracy:
                break
        return {"reward_loss": loss, "reward_accuracy": measured, "reward_epochs": epoch + 1.0}

    @property
    def _members(self) -> range:
        return range(len(self.mean))

    def _step(self, by_member: Sequence[Sequence[PromptGroup]], clips: Tensor, objective: RewardObjective) -> float:
        spec = BATCH_SPECS[objective.batch]
        scores = self.scores(by_member[0], clips)  # (K, B)
        losses = [
            objective(spec.build(scores[member], groups, spec.total_weight(groups))).value
            for member, groups in enumerate(by_member)
            if spec.total_weight(groups)
        ]
        if not losses:
            return 0.0
        self.optimizer.zero_grad()
        value = torch.stack(losses).sum()
        value.backward()
        self.optimizer.step()
        self.steps += 1
        return float(value.detach()) / len(losses)

    def scores(self, groups: Sequence[PromptGroup], clips: Tensor) -> Tensor:
        """Return each member's sum over each clip of the groups, in order, (K, B)."""
        index = torch.tensor([tokens[0] for group in groups for tokens in group.tokens.completions])
        features = clips[index]  # (B, T, ...)
        rewards: Tensor = self(features.flatten(0, 1))
        return rewards.view(len(self.mean), *features.shape[:2]).sum(2)

    @torch.no_grad()
    def accuracy(self, groups: Sequence[PromptGroup], clips: Tensor) -> float:
        """Return the share of decided comparisons that the members' mean predicts; NaN without any."""
        if not groups:
            return float("nan")
        scores = self.scores(groups, clips).mean(0)
        pairs = pair_tensors(groups, scores.device)
        decided = pairs.p_chosen != 0.5
        difference = (scores[pairs.chosen] - scores[pairs.rejected]) * (pairs.p_chosen - 0.5).sign()
        correct = (difference > 0).float() + 0.5 * (difference == 0).float()
        return float(correct[decided].mean())

    @property
    def step_count(self) -> int:
        """Steps of the optimizer."""
        return self.steps

    def save(self, file: Path) -> None:
        """Write the members' weights, and the mean and deviation of their rewards, as safetensors."""
        save_file(self.state_dict(), file)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the reward model that the stage `control` has saved beside agent.json.

        Raises:
            AssentError: the folder holds none.
        """
        path = folder / "reward_model.safetensors"
        if not path.exists():
            raise AssentError(f"no reward model in {folder}: train one with 'assent control'")
        environment, settings = read_settings(folder, StepRewardSettings())
        model = cls(feature_shape(environment), settings, seed=0)
        model.load_state_dict(load_file(path))
        return model

    def state(self) -> dict[str, Any]:
        """Return everything that rewards and fits depend on."""
        return {"weights": self.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])

    def release(self) -> None:
        """Nothing to free."""


def _copies(prompt: str, member: int) -> int:
    """Return how often a prompt's judgements are in a member's bootstrap sample: Poisson with mean 1, by its hash."""
    uniform = unit_hash("bootstrap", prompt, member)
    copies, probability = 0, float(np.exp(-1.0))
    cumulative = probability
    while uniform > cumulative and copies < 10:
        copies += 1
        probability /= copies
        cumulative += probability
    return copies
