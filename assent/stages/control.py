"""Control: an agent learns in an environment from comparisons of clips of what it does.

Christiano et al. 2017 (arXiv:1706.03741): the agent acts; annotators compare clips; a reward model of single steps is
fitted to the comparisons; the agent is trained on its rewards; and so on. The environment's own reward is never used,
except by simulated annotators and to measure.
"""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from assent.annotators.simulated import Simulated
from assent.config import plugin, table
from assent.control.agent import Agent, AgentSettings, Rollout
from assent.control.comparisons import AskedPair, Asker, ClipTable, ComparisonSettings
from assent.control.reward_model import StepReward, StepRewardSettings
from assent.environments.pendulum import Pendulum
from assent.errors import AssentError
from assent.files import replacing_folder
from assent.labelling.collect import collect_judgements
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.data import read_judgements
from assent.protocols import Annotator, Environment, RewardObjective, Stage
from assent.records import Preference, Purpose, RankedCompletions, ScoredCompletion, Task
from assent.registry import name_of, names
from assent.replay import action_shape
from assent.run import Run
from assent.seeds import Purpose as SeedPurpose
from assent.seeds import derive
from assent.stage_names import objectives_of
from assent.training.loop import run_steps
from assent.training.preferences import PromptGroup, group_by_prompt
from assent.types import NonNegativeInt, PositiveInt

FIRST_MEASURED_SEED = 1_000_000
"""Episodes from here on measure; training takes lower seeds."""
QUESTION = "Which clip is better?"


@dataclass(frozen=True)
class Control(Stage):
    """Train an agent in an environment on comparisons of clips."""

    aim: ClassVar[str] = "an agent learns from comparisons of clips"
    environment: Environment = plugin("environments", Pendulum(), lambda: names("environments"))
    """The world of the agent."""
    task: str = ""
    """What the agent should do, in words for annotators; empty: those of the environment."""
    reward: Literal["comparisons", "true", "constant", "random"] = "comparisons"
    """What the agent is trained on: the model of the comparisons, or without any comparison the environment's own
    reward, and two negative controls: 0 for every step, a random network."""
    steps: PositiveInt = 100_000
    """Steps of the agent in all episodes."""
    evaluation_episodes: PositiveInt = 64
    """Episodes that measure the trained agent, from seeds of their own."""
    save_every: NonNegativeInt = 0
    """Rollouts between resumable checkpoints; 0: by the clock."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Loggers besides metrics.jsonl."""
    comparisons: ComparisonSettings = ComparisonSettings()
    agent: AgentSettings = AgentSettings()
    model: StepRewardSettings = StepRewardSettings()
    objective: RewardObjective = plugin("objectives", BradleyTerry(error_rate=0.1), lambda: objectives_of("reward"))
    """Loss of the reward model."""
    annotator: Annotator = plugin("annotators", Simulated(profiles=("noise_free",)), lambda: names("annotators"))
    """Who compares: `simulated` by the environment's own reward, or `human` for the pages of `assent serve`."""

    def __post_init__(self) -> None:
        if self.agent.episodes % 2:
            raise ValueError(f"episodes = {self.agent.episodes}; two start from each seed, so choose an even number")

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        trainer = ControlTrainer(run, key, self)
        states: dict[str, Any] = {"agent": trainer.agent}
        if trainer.reward_model:
            states["reward_model"] = trainer.reward_model
        run_steps(
            run.folder, key, states, self.iterations, trainer.step, trainer.extra_state, self.save_every, self.report_to
        )
        trainer.save(run, key)
        return trainer.result()

    @property
    def iterations(self) -> int:
        """Rollouts in all."""
        return max(1, round(self.steps / (self.environment.horizon * self.agent.episodes)))


class ControlTrainer:
    """The agent, its reward model and its annotators."""

    def __init__(self, run: Run, key: str, settings: Control) -> None:
        self.run = run
        self.key = key
        self.settings = settings
        self.extra_state: dict[str, Any] = {"asked": 0}
        self.agent = Agent(settings.environment, settings.agent, derive(run.seed, SeedPurpose.AGENT))
        self.asker = Asker(settings.environment, settings.task, settings.comparisons, run.setup.held_out)
        self.clips = ClipTable()
        self.reward_model: StepReward | None = None
        if settings.reward in ("comparisons", "random"):
            self.reward_model = StepReward(
                self._num_features(), settings.model, derive(run.seed, SeedPurpose.STEP_REWARD)
            )

    def _num_features(self) -> int:
        environment = self.settings.environment
        actions = np.zeros((1, *action_shape(environment)), dtype=environment.action_space.dtype)
        return int(environment.begin([0]).step(actions).features.shape[1])

    def step(self, number: int) -> dict[str, float]:
        """Collect a rollout, ask about it, fit the reward model, and update the agent."""
        metrics: dict[str, float] = {}
        episode_seeds = self._seeds(number)

        def score(rollout: Rollout) -> NDArray[np.float32]:
            rewards = self._score(number, rollout, metrics)
            metrics["reward"] = float(rewards.mean())
            metrics["true_return"] = float(rollout.true_rewards.sum(0).mean())
            metrics["correlation"] = _correlation(rewards, rollout.true_rewards)
            return rewards

        return {
            **self.agent.iterate(episode_seeds, derive(self.run.seed, SeedPurpose.EPISODE, number), score),
            **metrics,
        }

    def _seeds(self, number: int) -> list[int]:
        pairs = self.settings.agent.episodes // 2
        first = [
            derive(self.run.seed, SeedPurpose.EPISODE, number, pair) % FIRST_MEASURED_SEED for pair in range(pairs)
        ]
        return [seed for seed in first for _ in range(2)]

    def _score(self, number: int, rollout: Rollout, metrics: dict[str, float]) -> NDArray[np.float32]:
        """Return the rewards of a rollout, (T, N), by the reward model as it is after new comparisons."""
        if self.reward_model is None:
            return rollout.true_rewards if self.settings.reward == "true" else np.zeros_like(rollout.true_rewards)
        is_new = number == 0
        if self.settings.reward == "comparisons" and self._ask(number, rollout, metrics):
            metrics |= self._fit(number)
            is_new = True
        if is_new:
            self.reward_model.standardise_on(rollout.features)
        return self.reward_model.mean_rewards(rollout.features)

    def _ask(self, number: int, rollout: Rollout, metrics: dict[str, float]) -> bool:
        """Have the comparisons judged that are due; return whether there were any."""
        settings, asked = self.settings.comparisons, int(self.extra_state["asked"])
        due = settings.due(number / self.settings.iterations) - asked
        if due < min(settings.session, settings.labels - asked) or due < 1:
            metrics["labels"] = asked
            return False
        rewards = self.reward_model.rewards(rollout.features).numpy() if self.reward_model and asked else None
        policy = f"{self.key}#{number}"
        pairs = self.asker.select(rollout, due, rewards, policy, derive(self.run.seed, SeedPurpose.EPISODE, number))
        self._store(pairs)
        self.extra_state["asked"] = metrics["labels"] = asked + len(pairs)
        return bool(pairs)

    def _store(self, pairs: list[AskedPair]) -> None:
        store = self.run.store
        store.add_prompts(pair.prompt for pair in pairs)
        store.add_responses(response for pair in pairs for response in pair.responses)
        held_out = self.asker.held_out_prompts(pair.prompt for pair in pairs)
        tasks: list[Task] = []
        requests: list[TaskRequest] = []
        for pair in pairs:
            items = tuple(response.id for response in pair.responses)
            purpose: Purpose = "evaluate" if pair.prompt.id in held_out else "train"
            tasks.append(Task("comparison", pair.prompt.id, items, purpose, QUESTION))
            requests.append(TaskRequest(tasks[-1], 0, pair.selected.acquisition, pair.selected.propensity))
        TaskQueue(store).enqueue(requests, self.key)
        collect_judgements(self.run, self.key, tasks, self.settings.annotator)

    def _fit(self, number: int) -> dict[str, float]:
        assert self.reward_model is not None
        sides = read_judgements(self.run)
        groups: dict[bool, list[PromptGroup]] = {}
        for is_held_out, ids in ((False, sides.sides.train), (True, sides.sides.held_out)):
            usable = (e for e in sides.examples if isinstance(e, Preference | RankedCompletions | ScoredCompletion))
            examples = [example for example in usable if example.prompt.id in ids]
            groups[is_held_out], _ = group_by_prompt(examples, self.clips, len(examples) + 1)
        if not groups[False]:
            raise AssentError("no comparison of clips is for training; lower --held-out")
        clips = self.clips.features()
        seed = derive(self.run.seed, SeedPurpose.STEP_REWARD, number)
        fitted = self.reward_model.fit(groups[False], clips, self.settings.objective, seed)
        held_out = {"held_out_accuracy": self.reward_model.accuracy(groups[True], clips)} if groups[True] else {}
        return {**{f"reward_{name}": value for name, value in fitted.items()}, **held_out}

    def save(self, run: Run, key: str) -> None:
        """Write the agent and the reward model."""
        with replacing_folder(run.folder / key) as partial:
            partial.mkdir(parents=True, exist_ok=True)
            settings = {"environment": name_of(self.settings.environment), **table(self.settings.environment)}
            (partial / "agent.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
            save_file(self.agent.weights(), partial / "agent.safetensors")
            if self.reward_model:
                save_file(self.reward_model.weights_to_save(), partial / "reward_model.safetensors")

    def result(self) -> dict[str, Any]:
        """Measure the agent on episodes of seeds that it never saw."""
        unseen = range(FIRST_MEASURED_SEED, FIRST_MEASURED_SEED + self.settings.evaluation_episodes)
        result: dict[str, Any] = {"labels": int(self.extra_state["asked"]), "steps": self._steps_done()}
        for name, deterministic in (("true_return", True), ("true_return_sampled", False)):
            rollout = self.agent.play(unseen, derive(self.run.seed, SeedPurpose.EPISODE), deterministic)
            returns = rollout.true_rewards.sum(0)
            result[name] = {"mean": float(returns.mean()), "std": float(returns.std()), "n": len(unseen)}
        return result

    def _steps_done(self) -> int:
        return self.settings.iterations * self.settings.environment.horizon * self.settings.agent.episodes


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0
