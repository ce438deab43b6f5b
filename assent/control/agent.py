"""The agent: PPO of Stable-Baselines3 on rewards that are added to its rollouts, and never on the environment's own.

An iteration is one rollout of whole episodes and the updates on it. Its episodes start from seeds that follow from the
run's seed and the iteration, so a resumed run repeats them, and no state of an environment has to be saved.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model

from assent.control.saved import read_settings
from assent.errors import AssentError
from assent.protocols import Environment, Episodes
from assent.types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.buffers import RolloutBuffer
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.utils import set_random_seed
    from stable_baselines3.common.vec_env import VecEnv

    from assent.control.networks import AgentConvolutions
except ModuleNotFoundError as error:
    raise AssentError(f"an agent needs {error.name}: pip install 'assent[control]'") from None

Rewards = NDArray[np.float32]


@dataclass(frozen=True)
class AgentSettings:
    """PPO, as Stable-Baselines3 has it."""

    episodes: PositiveInt = 16
    """Episodes of a rollout, two from each seed, so that annotators compare what began alike."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam."""
    epochs: PositiveInt = 10
    """Passes over each rollout."""
    batch_size: PositiveInt = 400
    """Steps in one update."""
    gamma: Fraction = 0.9
    """Discount of a step."""
    gae_lambda: Fraction = 0.95
    """Lambda of generalized advantage estimation (arXiv:1506.02438)."""
    clip_range: PositiveFloat = 0.2
    """Clipping range of the ratio of probabilities."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the entropy bonus."""
    hidden: PositiveInt = 64
    """Units of each of two hidden layers; an agent that sees pictures has convolutions instead."""

    def __post_init__(self) -> None:
        if self.episodes % 2:
            raise ValueError(f"episodes = {self.episodes}; two start from each seed, so choose an even number")


class Rollout(NamedTuple):
    """N whole episodes of T steps."""

    seeds: tuple[int, ...]  # N
    actions: NDArray[Any]  # (T, N, ...)
    observations: NDArray[Any]  # (T, N, ...) after each step
    features: NDArray[np.float32]  # (T, N, F)
    true_rewards: Rewards  # (T, N): for metrics and the baseline that trains on them


class RecordedEpisodes(VecEnv):
    """Episodes as Stable-Baselines3 steps them: every reward is 0, and what happens is recorded."""

    def __init__(self, environment: Environment, count: int) -> None:
        super().__init__(count, environment.observation_space, environment.action_space)
        self.environment = environment
        self.seeds: tuple[int, ...] = tuple(range(count))
        self._episodes: Episodes | None = None
        self._actions: list[NDArray[Any]] = []
        self._transitions: list[Any] = []

    def rollout(self) -> Rollout:
        """Return what happened since `reset`."""
        columns = zip(*self._transitions, strict=True)
        observations, features, true_rewards = (np.stack(column) for column in columns)
        return Rollout(self.seeds, np.stack(self._actions), observations, features, true_rewards)

    def reset(self) -> NDArray[Any]:
        """Start an episode from each of `seeds`."""
        self._episodes = self.environment.begin(self.seeds)
        self._actions, self._transitions = [], []
        return self._episodes.observations

    @property
    def observations(self) -> NDArray[Any]:
        """Return what the agent sees now, (N, ...)."""
        assert self._episodes is not None
        return self._episodes.observations

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions.append(np.array(actions))

    def step_wait(self) -> tuple[NDArray[Any], Rewards, NDArray[np.bool_], list[dict[str, Any]]]:
        assert self._episodes is not None
        transition = self._episodes.step(self._actions[-1])
        self._transitions.append(transition)
        is_end = len(self._transitions) == self.environment.horizon
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if is_end:
            # The time is up, but the world goes on: Stable-Baselines3 adds the value of the last observation.
            for info, observation in zip(infos, transition.observations, strict=True):
                info |= {"TimeLimit.truncated": True, "terminal_observation": observation}
        rewards = np.zeros(self.num_envs, dtype=np.float32)
        return transition.observations, rewards, np.full(self.num_envs, is_end), infos

    def close(self) -> None:
        self._episodes = None

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs  # such as render_mode

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class ScoredRolloutBuffer(RolloutBuffer):
    """A rollout whose rewards come from `score` once it is complete.

    Before that it holds the discounted value of each episode's last observation, and 0 everywhere else: the scores are
    added to it.
    """

    score: Callable[[], Rewards]  # -> (T, N)

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: NDArray[Any]) -> None:
        self.rewards += self.score()
        super().compute_returns_and_advantage(last_values, dones)


class Agent:
    """A policy under training."""

    def __init__(self, environment: Environment, settings: AgentSettings, seed: int) -> None:
        self.environment = environment
        self.settings = settings
        self.iterations = 0
        self._recorded = RecordedEpisodes(environment, settings.episodes)
        layers = [settings.hidden, settings.hidden]
        policy: dict[str, Any] = {"net_arch": {"pi": layers, "vf": layers}}
        if is_picture := len(environment.observation_space.shape) == 3:
            policy = {"net_arch": [], "features_extractor_class": AgentConvolutions}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a last batch that is smaller than the others is no fault
            self._ppo = PPO(
                "CnnPolicy" if is_picture else "MlpPolicy",
                self._recorded,
                learning_rate=settings.lr,
                n_steps=environment.horizon,
                batch_size=settings.batch_size,
                n_epochs=settings.epochs,
                gamma=settings.gamma,
                gae_lambda=settings.gae_lambda,
                clip_range=settings.clip_range,
                ent_coef=settings.entropy_coef,
                policy_kwargs=policy,
                rollout_buffer_class=ScoredRolloutBuffer,
                seed=seed % 2**32,
                device="cpu",
            )
        self._ppo.set_logger(Logger(None, []))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the agent that the stage `control` has saved as agent.json and agent.safetensors.

        Raises:
            AssentError: the folder holds no agent.
        """
        environment, settings = read_settings(folder, AgentSettings())
        agent = cls(environment, settings, seed=0)
        load_model(agent._ppo.policy, folder / "agent.safetensors")
        return agent

    @property
    def step_count(self) -> int:
        """Iterations that have changed the policy."""
        return self.iterations

    @property
    def num_steps(self) -> int:
        """Steps in all episodes so far."""
        return self.iterations * self.environment.horizon * self.settings.episodes

    def iterate(self, seeds: Sequence[int], seed: int, score: Callable[[Rollout], Rewards]) -> dict[str, float]:
        """Collect an episode from each seed, score all steps, and update the policy; return PPO's metrics.

        Args:
            seed: of the actions and of the order of the updates.
            score: returns the rewards of a rollout, (T, N).
        """
        set_random_seed(seed % 2**32)
        self._recorded.seeds = tuple(seeds)
        buffer = self._ppo.rollout_buffer
        assert isinstance(buffer, ScoredRolloutBuffer)
        buffer.score = lambda: score(self._recorded.rollout())
        self._ppo._last_obs = self._recorded.reset()
        self._ppo._last_episode_starts = np.ones(len(seeds), dtype=bool)
        self._ppo.learn(self.environment.horizon * len(seeds), reset_num_timesteps=False)
        self.iterations += 1
        logged = self._ppo.logger.name_to_value
        names = {
            "approx_kl": "train/approx_kl",
            "clip_fraction": "train/clip_fraction",
            "entropy": "train/entropy_loss",
            "value_loss": "train/value_loss",
            "explained_variance": "train/explained_variance",
        }
        return {name: float(logged[key]) * (-1 if name == "entropy" else 1) for name, key in names.items()}

    def predict(self, observations: NDArray[Any], deterministic: bool = True) -> NDArray[Any]:
        """Return the policy's actions for observations, (N, ...): the most likely ones, or a sample."""
        actions, _ = self._ppo.predict(observations, deterministic=deterministic)
        return actions

    def play(self, seeds: Sequence[int], seed: int, deterministic: bool = True) -> Rollout:
        """Return one episode from each seed, without learning."""
        set_random_seed(seed % 2**32)
        recorded = RecordedEpisodes(self.environment, len(seeds))
        recorded.seeds = tuple(seeds)
        recorded.reset()
        for _ in range(self.environment.horizon):
            recorded.step(self.predict(recorded.observations, deterministic))
        return recorded.rollout()

    def save(self, file: Path) -> None:
        """Write the policy's weights as safetensors."""
        save_model(self._ppo.policy, str(file))

    def state(self) -> dict[str, Any]:
        """Return the weights of policy and optimizer."""
        return {"parameters": self._ppo.get_parameters(), "iterations": self.iterations}

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self._ppo.set_parameters(state["parameters"], device="cpu")
        self.iterations = int(state["iterations"])

    def release(self) -> None:
        """Nothing to free."""
