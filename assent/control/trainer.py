"""One iteration of control: a rollout, questions about it, a fit of the reward model, and an update of the agent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from assent.annotators.human import Human, wait_for_judgements
from assent.annotators.simulated import Simulated
from assent.config import plugin, table
from assent.control.agent import Agent, AgentSettings, Rollout
from assent.control.comparisons import AskedPair, Asker, ClipTable, ComparisonSettings, cut_segment
from assent.control.reward_model import StepReward, StepRewardSettings
from assent.environments.pendulum import Pendulum
from assent.errors import AssentError
from assent.labelling.accounts import open_accounts
from assent.labelling.queue import TaskQueue, TaskRequest
from assent.objectives.bradley_terry import BradleyTerry
from assent.preferences.candidates import task_batches
from assent.preferences.data import read_judgements
from assent.protocols import Annotator, Environment, RewardObjective
from assent.records import Preference, Purpose, RankedCompletions, ScoredCompletion, Task
from assent.registry import name_of, names
from assent.replay import feature_shape
from assent.run import Run
from assent.seeds import Purpose as SeedPurpose
from assent.seeds import derive
from assent.stage_names import objectives_of
from assent.training.preferences import PromptGroup, group_by_prompt
from assent.types import PositiveInt

FIRST_MEASURED_SEED = 1_000_000
"""Episodes from here on measure; training takes lower seeds."""
QUESTION = "Which clip is better?"


@dataclass(frozen=True)
class ControlSettings:
    """An agent in an environment, and what it is trained on."""

    environment: Environment = plugin("environments", Pendulum(), lambda: names("environments"))
    """The world of the agent."""
    task: str = ""
    """What the agent should do, in words for annotators; empty: those of the environment."""
    reward: Literal["comparisons", "true", "constant", "random"] = "comparisons"
    """What the agent is trained on: a model of the comparisons. Without any comparison: the environment's own reward
    (`true`), or as negative controls 0 for every step, or a random network."""
    steps: PositiveInt = 100_000
    """Steps of the agent in all episodes."""
    evaluation_episodes: PositiveInt = 64
    """Episodes that measure the trained agent, from seeds of their own."""
    comparisons: ComparisonSettings = ComparisonSettings()
    agent: AgentSettings = AgentSettings()
    model: StepRewardSettings = StepRewardSettings()
    objective: RewardObjective = plugin("objectives", BradleyTerry(error_rate=0.1), lambda: objectives_of("reward"))
    """Loss of the reward model."""
    annotator: Annotator = plugin("annotators", Simulated(profiles=("noise_free",)), lambda: names("annotators"))
    """Who compares: `simulated` by the environment's own reward, or `human` for the pages of `assent serve`."""

    @property
    def iterations(self) -> int:
        """Rollouts in all."""
        return max(1, round(self.steps / (self.environment.horizon * self.agent.episodes)))


class ControlTrainer:
    """The agent, its reward model and its annotators.

    Args:
        key: of the stage in this round; the names of its clips in the store begin with it.
    """

    def __init__(self, run: Run, key: str, settings: ControlSettings) -> None:
        self.run = run
        self.key = key
        self.settings = settings
        self.extra_state: dict[str, Any] = {"tasks": [], "judgements": 0}
        """The ids of the tasks that were asked, and how many judgements the last fit has read."""
        self.agent = Agent(settings.environment, settings.agent, derive(run.seed, SeedPurpose.AGENT))
        self.reward_model: StepReward | None = None
        if settings.reward in ("comparisons", "random"):
            seed = derive(run.seed, SeedPurpose.STEP_REWARD)
            self.reward_model = StepReward(feature_shape(settings.environment), settings.model, seed)
        self._asker = Asker(settings.environment, settings.task, settings.comparisons, run.setup.held_out)
        self._clips = ClipTable()
        self._queue = TaskQueue(run.store, accounts=open_accounts(run.folder, run.store))

    def step(self, number: int) -> dict[str, float]:
        """Take iteration `number`, and return its metrics."""
        metrics: dict[str, float] = {}

        def score(rollout: Rollout) -> NDArray[np.float32]:
            rewards = self._score(number, rollout, metrics)
            metrics["reward"] = float(rewards.mean())
            metrics["true_return"] = float(rollout.true_rewards.sum(0).mean())
            metrics["correlation"] = _correlation(rewards, rollout.true_rewards)
            return rewards

        seed = derive(self.run.seed, SeedPurpose.EPISODE, number)
        return {**self.agent.iterate(self._episode_seeds(number), seed, score), **metrics}

    def measure(self) -> dict[str, Any]:
        """Return the true returns of episodes from seeds that training never used, and clips of three of them."""
        rollouts = [self._play_unseen(deterministic) for deterministic in (True, False)]
        returns = [rollout.true_rewards.sum(0) for rollout in rollouts]
        measured = [{"mean": float(r.mean()), "std": float(r.std()), "n": len(r)} for r in returns]
        by_return = np.argsort(returns[0], kind="stable")
        titles = ("Worst episode", "Median episode", "Best episode")
        chosen = (0, len(by_return) // 2, -1)
        clips = [
            self._describe_clip(title, rollouts[0], int(by_return[rank]))
            for title, rank in zip(titles, chosen, strict=True)
        ]
        return {"true_return": measured[0], "true_return_sampled": measured[1], "clips": clips}

    def _play_unseen(self, deterministic: bool) -> Rollout:
        unseen = range(FIRST_MEASURED_SEED, FIRST_MEASURED_SEED + self.settings.evaluation_episodes)
        return self.agent.play(unseen, derive(self.run.seed, SeedPurpose.EPISODE), deterministic)

    def _describe_clip(self, title: str, rollout: Rollout, episode: int) -> dict[str, Any]:
        """Return a clip from the middle of an episode as JSON: what the report replays."""
        environment = self.settings.environment
        start = (environment.horizon - environment.clip_steps) // 2
        return {
            "title": title,
            "environment": name_of(environment),
            "settings": table(environment),
            "seed": rollout.seeds[episode],
            "segment": cut_segment(rollout, episode, start, environment.clip_steps).text,
            "true_return": float(rollout.true_rewards[:, episode].sum()),
        }

    def _episode_seeds(self, number: int) -> list[int]:
        pairs = range(self.settings.agent.episodes // 2)
        firsts = [derive(self.run.seed, SeedPurpose.EPISODE, number, pair) % FIRST_MEASURED_SEED for pair in pairs]
        return [seed for seed in firsts for _ in range(2)]

    def _score(self, number: int, rollout: Rollout, metrics: dict[str, float]) -> NDArray[np.float32]:
        """Return the rewards of a rollout, (T, N): those of the reward model after what annotators say of it."""
        if self.reward_model is None:
            return self._baseline_rewards(rollout)
        is_fitted = False
        if self.settings.reward == "comparisons":
            is_asked = self._ask(number, rollout)
            if isinstance(self.settings.annotator, Human):
                # All answers before the agent learns anything; then until few enough are missing.
                ahead = self.settings.comparisons.ahead if number else 0
                wait_for_judgements(self._queue, self.key, self.settings.annotator.wait, ahead)
                is_asked = True
            is_fitted = (is_asked or number == 0) and self._fit_if_new(number, metrics)
            if number == 0 and not is_fitted:
                raise AssentError("nobody has compared clips yet; ask for more --labels")
            metrics |= {"asked": len(self.extra_state["tasks"]), "labels": self.extra_state["judgements"]}
        if is_fitted or number == 0:
            self.reward_model.standardise_on(rollout.features)
        return self.reward_model.mean_rewards(rollout.features)

    def _baseline_rewards(self, rollout: Rollout) -> NDArray[np.float32]:
        """Return the environment's own rewards, in deviations of those of the first rollout; or nothing but 0."""
        if self.settings.reward == "constant":
            return np.zeros_like(rollout.true_rewards)
        scale = self.extra_state.setdefault("scale", float(rollout.true_rewards.std()) or 1.0)
        offset = self.extra_state.setdefault("offset", float(rollout.true_rewards.mean()))
        return np.asarray((rollout.true_rewards - offset) / scale, dtype=np.float32)

    def _ask(self, number: int, rollout: Rollout) -> bool:
        """Ask for the comparisons that are due; return whether there were any."""
        settings, asked = self.settings.comparisons, len(self.extra_state["tasks"])
        due = settings.due(number / self.settings.iterations) - asked
        if due < max(1, min(settings.session, settings.labels - asked) if number else 1):
            return False
        rewards = self.reward_model.rewards(rollout.features).numpy() if self.reward_model and asked else None
        seed = derive(self.run.seed, SeedPurpose.EPISODE, number)
        pairs = self._asker.select(rollout, due, rewards, f"{self.key}#{number}", seed)
        self._clips.add(pairs)
        self.extra_state["tasks"] += [task.id for task in self._post(pairs)]
        return bool(pairs)

    def _post(self, pairs: Sequence[AskedPair]) -> list[Task]:
        """Store pairs as tasks; programs judge them at once, people find them on their page."""
        store, annotator = self.run.store, self.settings.annotator
        prompts = {pair.prompt.id: pair.prompt for pair in pairs}
        responses = {response.id: response for pair in pairs for response in pair.responses}
        store.add_prompts(prompts.values())
        store.add_responses(responses.values())
        held_out = self._asker.held_out_prompts(prompts.values())
        tasks: list[Task] = []
        requests: list[TaskRequest] = []
        for pair in pairs:
            purpose: Purpose = "evaluate" if pair.prompt.id in held_out else "train"
            items = tuple(response.id for response in pair.responses)
            task = Task("comparison", pair.prompt.id, items, purpose, QUESTION)
            tasks.append(task)
            requests.append(
                TaskRequest(task, int(annotator.is_human), pair.selected.acquisition, pair.selected.propensity)
            )
        self._queue.enqueue(requests, self.key)
        if not annotator.is_human:
            judged = {event.task for event in store.feedback()}
            unjudged = [task for task in tasks if task.id not in judged]
            now = datetime.now(UTC)
            store.add_feedback(
                annotator.annotate(unjudged, prompts, responses, self.run.seed, now, self._queue, self.key)
            )
        return tasks

    def _fit_if_new(self, number: int, metrics: dict[str, float]) -> bool:
        """Fit the reward model if there are judgements that it has not read; return whether there were."""
        groups, num_judgements = self._read_groups()
        is_new: bool = num_judgements != self.extra_state["judgements"]
        if is_new:
            if not groups["train"]:
                raise AssentError("no clip was preferred to another one in training; ask for more --labels")
            assert self.reward_model is not None
            clips = self._clips.features()
            seed = derive(self.run.seed, SeedPurpose.STEP_REWARD, number)
            metrics |= self.reward_model.fit(groups["train"], clips, self.settings.objective, seed)
            if groups["held_out"]:
                metrics["held_out_accuracy"] = self.reward_model.accuracy(groups["held_out"], clips)
            self.extra_state["judgements"] = num_judgements
        return is_new

    def _read_groups(self) -> tuple[dict[str, list[PromptGroup]], int]:
        """Return the judgements of clips by side of the split, and their number.

        Tasks that an earlier process asked after the state that this one resumes from do not count before they are
        asked again: a resumed run learns the same.
        """
        feedback, _, sides, examples = read_judgements(self.run)
        asked = set(self.extra_state["tasks"])
        early = {task for task, batch in task_batches(self.run.store).items() if batch == self.key} - asked
        ignored = {event.id for event in feedback if event.task in early}
        usable = [e for e in examples if isinstance(e, Preference | RankedCompletions | ScoredCompletion)]
        usable = [example for example in usable if not ignored.intersection(example.feedback_ids)]
        groups = {
            name: group_by_prompt((e for e in usable if e.prompt.id in ids), self._clips, len(usable) + 1)[0]
            for name, ids in (("train", sides.train), ("held_out", sides.held_out))
        }
        return groups, len(feedback) - len(ignored)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = (values.astype(np.float64).ravel() - values.mean(dtype=np.float64) for values in (first, second))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0
