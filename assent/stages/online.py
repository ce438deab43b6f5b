"""Optimise the policy on its own completions: PPO, GRPO, RLOO and others, each by the name of its objective."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from assent.evaluation.gate import check_gate
from assent.generation.responses import prompts_of_split
from assent.models.load import context_length
from assent.objectives.ppo import PPO
from assent.online.models import OnlineModels, ValueModel, load_separate, load_shared
from assent.online.probe import Probe, ProbeSettings
from assent.online.trainer import OnlineTrainer, RolloutSettings
from assent.protocols import OnlineObjective
from assent.run import Run
from assent.scoring import RewardSource
from assent.training.loop import train
from assent.training.replicated import ReplicatedState
from assent.training.settings import Training
from assent.training.stage import PolicyStage
from assent.training.texts import read_texts
from assent.types import NonNegativeFloat, NonNegativeInt, PositiveInt

HEAD_LR = 1e-3
"""Peak learning rate of a value head: one layer from zero, which few steps must teach."""


@dataclass(frozen=True)
class Online(PolicyStage):
    """Train a policy on scores of its own completions, with a KL penalty to its reference."""

    aim: ClassVar[str] = "the policy learns from its scores"
    policy: str = ""
    """The policy to train, which is also the reference: a checkpoint of the run, a folder, a hub id; empty: the round's
    base policy."""
    steps: PositiveInt = 20
    """Rollouts, each on `batch_size` prompts."""
    value_head: bool = False
    """Estimate values by a linear head on the policy's hidden states instead of by a second model: faster, smaller."""
    value_lr: NonNegativeFloat = 0.0
    """Peak learning rate of the value model; 0: that of the policy, or 1e-3 for a value head."""
    trainable_value_layers: NonNegativeInt = 0
    """Layers of the value model that are trained, from the top; 0: all."""
    ungated: bool = False
    """Train on a reward model of which the report card does not show that it learned something."""
    reward_source: RewardSource = RewardSource()
    settings: RolloutSettings = RolloutSettings()
    probe: ProbeSettings = ProbeSettings()
    objective: OnlineObjective = PPO()
    training: Training = Training(lr=3e-6, epochs=1, batch_size=16)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        if not self.ungated:
            check_gate(run, self.reward_source.models(run))
        models = self._load(run)
        tokenizer = models.policy.chat_tokenizer
        prompts = prompts_of_split(run, models.policy, self.settings.sampling.max_new_tokens, "train")
        prompts = models.rewards.renderable(prompts)
        states = self._train_states(run, models)
        ptx_examples = []
        if self.settings.ptx_coef:
            ptx_examples = read_texts(self.settings.ptx_data, tokenizer, context_length(models.policy.model))
        extra_state: dict[str, Any] = {"beta": self.objective.beta}
        trainer = OnlineTrainer(
            run, self.settings, self.objective, self.training, models, states, prompts, ptx_examples, extra_state
        )
        probe = Probe(run, key, self.probe, trainer, self.steps, extra_state) if self.probe.probe_judge else None
        step, should_stop = (probe.step, probe.should_stop) if probe else (trainer.step, lambda: False)
        train(run.folder, key, states, self.steps, step, *trainer.largest_step(), extra_state, should_stop)
        probed = {"probe": probe.finish()} if probe else {}
        states["policy"].save(run.folder / key)
        num_steps = probed["probe"]["kept_step"] if probed else self.steps
        return {"prompts": len(prompts), "steps": num_steps, "beta": extra_state["beta"], **probed}

    def __post_init__(self) -> None:
        settings, least = self.settings, self.objective.min_completions
        if settings.n < least:
            name = type(self.objective).__name__
            raise ValueError(f"n = {settings.n}; {name} needs at least {least} completions of a prompt")
        if self.trainable_value_layers and self.training.lora_rank:
            raise ValueError("trainable_value_layers trains whole layers, lora_rank adapters; use one of them")
        if self.value_head and not self.objective.needs_values:
            raise ValueError(f"value_head estimates values, which {type(self.objective).__name__} does not use")
        if self.value_head and self.trainable_value_layers:
            raise ValueError("value_head has no layers of its own; leave trainable_value_layers out")
        if settings.ptx_coef and not settings.ptx_data:
            raise ValueError(f"ptx_coef = {settings.ptx_coef} needs texts; name a file with ptx_data")
        if settings.target_kl and not self.objective.beta:
            raise ValueError(f"target_kl = {settings.target_kl} adapts beta by a factor; set beta above 0")
        if settings.overlong_buffer > settings.sampling.max_new_tokens:
            limit = settings.sampling.max_new_tokens
            raise ValueError(f"overlong_buffer = {settings.overlong_buffer} is more than max_new_tokens = {limit}")
        if not settings.sampling.temperature:
            raise ValueError("temperature = 0 gives the same completion every time; set it above 0")

    def _load(self, run: Run) -> OnlineModels:
        """Load the policy, the reference, the rewards, and a value model if the objective needs one."""
        policy = self.policy or run.base_policy
        value = None
        if self.objective.needs_values:
            reward_models = self.reward_source.models(run)
            reward = reward_models[0] if reward_models else run.key("reward")
            value = ValueModel(reward, policy, self.trainable_value_layers, self.value_head)
        load = load_shared if self.training.lora_rank else load_separate
        return load(run, run.policy(policy), self.reward_source, self.training, value)

    def _train_states(self, run: Run, models: OnlineModels) -> dict[str, ReplicatedState]:
        updates = self.steps * self.training.epochs * self.settings.minibatches
        states = {"policy": ReplicatedState(models.policy, self.training, updates, run.dtype)}
        if models.value:
            training = replace(self.training, lr=self.value_lr or (HEAD_LR if self.value_head else self.training.lr))
            if self.value_head:
                training = replace(training, lora_rank=0)
            states["value"] = ReplicatedState(models.value, training, updates, run.dtype)
        return states
