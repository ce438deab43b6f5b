"""The peer's side of benchmarks/pendulum.py: preference comparisons of imitation, with the values of its tutorial.

Those are of docs/tutorials/5_train_preference_comparisons.ipynb. Every step of the environment counts, also those that
only collect clips.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from harness.clock import Clock
from imitation.algorithms.preference_comparisons import (
    AgentTrainer,
    BasicRewardTrainer,
    CrossEntropyRewardLoss,
    PreferenceComparisons,
    PreferenceModel,
    RandomFragmenter,
    SyntheticGatherer,
)
from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnvWrapper

work = json.loads(Path(sys.argv[1]).read_text())
ROLLOUT = 2048
"""Steps of PPO between two updates; it trains for a multiple of them."""
FIRST_UNSEEN_SEED = 1_000_000
"""Gymnasium starts an episode of a seed as assent does."""


class Counted(VecEnvWrapper):
    """Environments that count their steps."""

    num_steps = 0

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        self.num_steps += self.num_envs
        return self.venv.step_wait()


def train(environments: Counted) -> tuple[PPO, int]:
    """Return the agent that is trained while its reward is learned, and the number of comparisons."""
    rng = np.random.default_rng(work["seed"] + 1)
    spaces = environments.observation_space, environments.action_space
    reward = BasicRewardNet(*spaces, normalize_input_layer=RunningNorm)
    normalised = {
        "features_extractor_class": NormalizeFeaturesExtractor,
        "features_extractor_kwargs": {"normalize_class": RunningNorm},
    }
    agent = PPO(
        FeedForward32Policy,
        environments,
        policy_kwargs=normalised,
        seed=work["seed"],
        n_steps=ROLLOUT // environments.num_envs,
        batch_size=64,
        n_epochs=10,
        learning_rate=2e-3,
        clip_range=0.1,
        ent_coef=0.01,
        gamma=0.97,
        gae_lambda=0.95,
    )
    trainer = BasicRewardTrainer(PreferenceModel(reward), CrossEntropyRewardLoss(), epochs=3, rng=rng)
    loop = PreferenceComparisons(
        AgentTrainer(agent, reward, environments, rng, exploration_frac=0.05),
        reward,
        num_iterations=work["iterations"],
        fragmenter=RandomFragmenter(rng=rng, warning_threshold=0),
        preference_gatherer=SyntheticGatherer(temperature=0.0, rng=rng),  # no errors
        reward_trainer=trainer,
        fragment_length=100,
        transition_oversampling=1,
        initial_comparison_frac=0.1,
        initial_epoch_multiplier=4,
        query_schedule="hyperbolic",
    )
    loop.train(work["iterations"] * work["rollouts"] * ROLLOUT, work["labels"])
    return agent, len(loop.dataset)


def measure(agent: PPO) -> list[float]:
    """Return the true return of each unseen episode, with the policy's mean action."""
    environment = gymnasium.make("Pendulum-v1")
    returns = []
    for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + work["episodes"]):
        observation, _ = environment.reset(seed=seed)
        rewards, is_end = [], False
        while not is_end:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, _, is_end, _ = environment.step(action)
            rewards.append(float(reward))
        returns.append(sum(rewards))
    return returns


torch.set_num_threads(1)
torch.manual_seed(work["seed"])
clock = Clock("cpu")
clock.begin()
environments = Counted(make_vec_env("Pendulum-v1", rng=np.random.default_rng(work["seed"])))
clock.end()
clock.begin()
start = time.process_time()
agent, comparisons = train(environments)
returns = measure(agent)
clock.end()
clock.report(
    peer=f"imitation {version('imitation')}",
    true_return=float(np.mean(returns)),
    steps=environments.num_steps,
    comparisons=comparisons,
    cpu_seconds=time.process_time() - start,
)
