"""RLHF in a few lines of Python: an environment, a reward model fitted to comparisons, an agent.

    environment = Prompts("prompts.jsonl", model="HuggingFaceTB/SmolLM2-135M-Instruct")
    reward_model = RewardModel.fit(environment, "comparisons.jsonl")
    agent = RLHF(environment, reward_model)
    agent.train()
    print(agent.evaluate())

A language model answers prompts. An agent acts, and people compare clips of it (arXiv:1706.03741):

    environment = Environment("pendulum", task="Swing it up.")
    agent = RLHF(environment, ClipRewards(labels=200), steps=100_000)

Everything is kept in a run folder, as with the commands; a second call resumes where the first one stopped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from torch import Tensor

from assent.commands import stage
from assent.config import override
from assent.errors import AssentError, did_you_mean
from assent.formats.files.importing import import_file, insert_examples, read_file
from assent.functional.ensemble import combine, ensemble_std
from assent.generation.local import LocalGenerator
from assent.generation.responses import DEMO_PROMPTS
from assent.generation.sampling import Sampling
from assent.models.checkpoints import locate
from assent.models.load import LoadedModel, load_policy
from assent.models.rendering import DEFAULT_RENDERING, Rendering
from assent.models.tokenizer import read_chat_tokenizer
from assent.protocols import Stage
from assent.records import Preference, Prompt, Response
from assent.rewards.model import Model
from assent.run import Run, Setup, open_run
from assent.runner import perform
from assent.seeds import Purpose, derive
from assent.stage_names import objectives_of, policy_objectives

if TYPE_CHECKING:
    import gymnasium
    from numpy.typing import ArrayLike, NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from assent.control.agent import Agent


class Training(NamedTuple):
    """The stage that trains a policy, and how the policy responds."""

    command: str
    """The name of the stage in the run folder: ppo, dpo, control, ..."""
    stage: Stage
    sampling: Sampling | None = None
    """How it samples text; None: it acts."""
    judge: str = ""
    """The folder of the reward model, which judges unless another judge is named; empty: none."""


@dataclass(frozen=True)
class Prompts:
    """The environment of a language model: prompts, the base policy, and the run folder.

    Args:
        prompts: a file (any format that `assent import` reads), prompts, or texts; default: the demo's prompts.
        model: a hub id, a folder, or a .gguf file.
        run: the run folder.
        settings: of `assent.run.Setup`: seed, held_out, device, dtype, template_args, date.

    Raises:
        AssentError: there are no prompts.
    """

    prompts: str | Path | Sequence[str | Prompt] = DEMO_PROMPTS
    model: str = Setup.model
    run: str | Path = "runs/python"
    seed: int = 0
    held_out: float = 0.3
    device: str = "auto"
    dtype: str = "auto"
    template_args: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        with open_run(self.setup) as run:
            if not run.store.counts().prompts:
                run.store.add_prompts(self._read_prompts())

    @property
    def setup(self) -> Setup:
        names = ("seed", "held_out", "device", "dtype", "template_args", "date")
        return override(
            Setup(Path(self.run), str(self.model)), {name: getattr(self, name) for name in names}, "Prompts"
        )

    def configure(
        self, reward_model: "RewardModel | ClipRewards | None", objective: str, settings: Mapping[str, Any]
    ) -> Training:
        """Return how a language model is trained; the arguments are those of `RLHF`."""
        if objective not in policy_objectives():
            hint = did_you_mean(objective, policy_objectives())
            choices = ", ".join(policy_objectives())
            raise AssentError(f"RLHF: no objective '{objective}'{hint}; it must be one of {choices}")
        if isinstance(reward_model, ClipRewards):
            raise AssentError("RLHF: ClipRewards is for an Environment; Prompts need RewardModel.fit(environment)")
        is_online = objective in objectives_of("online")
        if is_online and reward_model is None:
            raise AssentError(f"RLHF: {objective} needs a reward model; pass RewardModel.fit(environment)")
        rewards = {"rewards": (reward_model.folder,)} if is_online and reward_model else {}
        configured: Any = override(stage(objective), {**rewards, **settings}, f"RLHF {objective}")
        sampling = configured.settings.sampling if is_online else Sampling(temperature=0.7)
        return Training(objective, configured, sampling, reward_model.folder if reward_model else "")

    def evaluate(self, run: Run, training: Training, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Compare the policy with its base on held-out prompts; `settings` are those of the `evaluate` stage."""
        assert training.sampling is not None
        shared = {"temperature": training.sampling.temperature, "max_new_tokens": training.sampling.max_new_tokens}
        chosen = {"policies": (training.command,), "judge": training.judge}
        evaluation = override(stage("evaluate"), {**shared, **chosen, **settings}, "RLHF.evaluate")
        result = perform(run, "evaluate", evaluation, overwrite=True)
        return dict(result["policies"][training.command])

    def _read_prompts(self) -> list[Prompt]:
        if isinstance(self.prompts, str | Path):
            prompts = list(read_file(self.prompts).prompts)
        else:
            prompts = [Prompt.plain(p) if isinstance(p, str) else p for p in self.prompts]
        if not prompts:
            raise AssentError(f"no prompts in {self.prompts}")
        chat = read_chat_tokenizer(locate(self.model)).tokenizer.chat_template is not None
        return [prompt.as_chat() if chat else prompt for prompt in prompts]


@dataclass(frozen=True)
class RewardModel:
    """A reward model: fitted to comparisons, or loaded from a folder."""

    folder: str
    """A Hugging Face sequence classifier with one label."""
    report: dict[str, Any]
    """The result of fitting it: accuracy on held-out prompts with its interval, ..."""
    rendering: Rendering = DEFAULT_RENDERING
    """The arguments of the chat template when it was fitted."""

    @classmethod
    def fit(
        cls, environment: Prompts, comparisons: str | Path | Iterable[Preference] | None = None, **settings: Any
    ) -> Self:
        """Fit a reward model to a file of comparisons, to preferences, or to the comparisons in the run folder.

        Args:
            settings: of the `reward` stage: lr, epochs, batch_size, lora_rank, ...
        """
        with open_run(environment.setup) as run:
            if isinstance(comparisons, str | Path):
                import_file(comparisons, run.store)
            elif comparisons is not None:
                insert_examples(comparisons, run.store, "comparisons")
            report = perform(run, "reward", override(stage("reward"), settings, "RewardModel.fit"))
            return cls(str(run.folder / run.key("reward")), report, run.rendering)

    def score(self, prompt: str | Prompt, responses: Sequence[str]) -> list[float]:
        """Return the scores of finished responses to one prompt; higher is better."""
        return combine(self._scores(prompt, responses)).tolist()

    def uncertainty(self, prompt: str | Prompt, responses: Sequence[str]) -> list[float]:
        """Return the standard deviation of each response's score among the members of an ensemble; 0 for one model."""
        return ensemble_std(self._scores(prompt, responses)).tolist()

    def _scores(self, prompt: str | Prompt, responses: Sequence[str]) -> Tensor:
        model = Model.load(self.folder, rendering=self.rendering)
        if isinstance(prompt, str):
            prompt = _as_prompt(prompt, model.first)
        return model.score([prompt] * len(responses), [Response(prompt.id, text, "") for text in responses])


class Environment:
    """The environment of an agent: a world in which it acts, and the run folder.

    Args:
        world: the name of a file in `assent/environments` (pendulum, cart_pole, ...), or what `gymnasium.make` returns.
        task: what the agent should do, in words for annotators; empty: those of the environment.
        run: the run folder.
        seed: of every random draw.
        held_out: fraction of the episodes' seeds whose comparisons nothing is trained on.
        settings: of the environment, such as `env_id`.

    Raises:
        AssentError: no such environment or setting, or one of Gymnasium that its id alone does not make.
    """

    def __init__(
        self,
        world: "str | gymnasium.Env[Any, Any]",
        task: str = "",
        run: str | Path = "runs/python",
        seed: int = 0,
        held_out: float = Setup.held_out,
        **settings: Any,
    ) -> None:
        named = {"environment": world} if isinstance(world, str) else _read_spec(world)
        self.settings = {**named, "task": task, **settings}
        self.setup = override(Setup(Path(run)), {"seed": seed, "held_out": held_out}, "Environment")
        override(stage("control"), self.settings, "Environment")

    def configure(
        self, reward_model: "RewardModel | ClipRewards | None", objective: str, settings: Mapping[str, Any]
    ) -> Training:
        """Return how an agent is trained; the arguments are those of `RLHF`."""
        if objective != "ppo":
            raise AssentError(f"RLHF: the objective of an agent is ppo, not '{objective}'")
        if not isinstance(reward_model, ClipRewards):
            raise AssentError("RLHF: an Environment needs ClipRewards, such as ClipRewards(labels=200)")
        control = override(stage("control"), {**self.settings, **reward_model.settings, **settings}, "RLHF control")
        return Training("control", control)

    def evaluate(self, run: Run, training: Training, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what training measured at its end, the true returns of episodes from seeds that it never used."""
        if settings:
            raise AssentError(f"RLHF.evaluate: an agent has true returns; leave out {', '.join(settings)}")
        if run.result(run.key(training.command)) is None:
            raise AssentError(f"RLHF.evaluate: no trained agent in {run.folder}; call train()")
        result = perform(run, training.command, training.stage)
        return {name: result[name] for name in ("true_return", "true_return_sampled")}


class ClipRewards:
    """A reward model of single steps, fitted to comparisons of clips while the agent learns.

    Args:
        settings: of the stage `control`: labels, annotator, profiles, members, acquisition, ...
    """

    def __init__(self, **settings: Any) -> None:
        override(stage("control"), settings, "ClipRewards")
        self.settings = settings


class RLHF:
    """A policy that is trained on preferences: a language model that answers prompts, or an agent that acts.

    Online objectives (ppo, grpo, rloo, ...) train on the policy's own completions, which the reward model scores, with
    a KL penalty to the reference. Offline ones (dpo, ipo, kto, ...) train on the feedback of the run, on which the
    reward model was fitted. An agent is trained with ppo on its own steps.

    Args:
        reward_model: of a language model `RewardModel`, or None for an offline objective; of an agent `ClipRewards`.
        objective: ppo, grpo, dpo, kto, ...
        settings: of its stage: steps, n, lr, beta, temperature, max_new_tokens, ...; of an agent `control`: steps, ...

    Raises:
        AssentError: no such objective or setting, or the reward model does not fit the environment.
    """

    def __init__(
        self,
        environment: Prompts | Environment,
        reward_model: RewardModel | ClipRewards | None = None,
        objective: str = "ppo",
        **settings: Any,
    ) -> None:
        self.environment = environment
        self.reward_model = reward_model
        self.objective = objective
        self._training = environment.configure(reward_model, objective, settings)

    def train(self) -> dict[str, Any]:
        """Train the policy, or resume its training; return the stage's result.

        Raises:
            Waiting: judgements of people are missing; call it again.
        """
        with open_run(self.environment.setup) as run:
            return perform(run, self._training.command, self._training.stage)

    def evaluate(self, judge: str = "", **settings: Any) -> dict[str, Any]:
        """Compare a language model with its base on held-out prompts; return an agent's true returns on unseen seeds.

        Args:
            judge: a reward, an annotator (`human`, `simulated`), a file of your own or a reward model's folder; empty:
                the reward model itself, which is biased towards the policy trained on it.
            settings: of the `evaluate` stage: temperature, max_new_tokens, ...; an agent takes neither.
        """
        if judge:
            settings["judge"] = judge
        with open_run(self.environment.setup) as run:
            return self.environment.evaluate(run, self._training, settings)

    def predict(self, observation: "ArrayLike") -> "NDArray[Any]":
        """Return the action of the trained agent, without exploration.

        Args:
            observation: of the environment's `observation_space`, or (N, ...) of them for N actions.

        Raises:
            AssentError: there is no trained agent, or the observation has another shape.
        """
        if self._training.sampling is not None:
            raise AssentError("RLHF.predict: a language model answers prompts; call generate(prompt)")
        try:
            return self._agent.predict(np.asarray(observation))
        except ValueError as error:
            raise AssentError(f"RLHF.predict: {error}") from None

    @cached_property
    def _agent(self) -> "Agent":
        from assent.control.agent import Agent

        return Agent.load(self.environment.setup.run / self._training.command)

    @property
    def _sampling(self) -> Sampling:
        if self._training.sampling is None:
            raise AssentError("RLHF: an agent in an environment writes no text; call predict(observation)")
        return self._training.sampling

    def generate(self, prompt: str, sampling: Sampling | None = None) -> str:
        """Return the trained policy's response to one prompt; of language models only."""
        sampling = sampling or self._sampling
        with open_run(self.environment.setup) as run:
            policy = load_policy(run.policy(self.objective), run.dtype, run.device, run.rendering)
        tokenizer = policy.chat_tokenizer
        message = _as_prompt(prompt, policy)
        generator = LocalGenerator()
        generator.load(policy)
        seed = derive(self.environment.setup.seed, Purpose.RESPONSE)
        (completion,) = generator.generate([tokenizer.encode_prompt(message)], 1, sampling, seed)
        return tokenizer.decode(completion.token_ids, message)

    @property
    def folder(self) -> Path:
        """Return the folder of the trained language model, as transformers reads it."""
        _ = self._sampling  # an agent has none
        with open_run(self.environment.setup) as run:
            return Path(run.policy(self.objective))

    @property
    def model(self) -> "PreTrainedModel":
        """Return the trained language model as a new model of transformers."""
        from transformers import AutoModelForCausalLM

        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.folder)
        return model

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of the trained language model."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer


def _as_prompt(text: str, model: LoadedModel) -> Prompt:
    """Return a text as a user's turn of a chat model, or as text to be continued."""
    return Prompt.ask(text) if model.tokenizer.chat_template else Prompt.plain(text)


def _read_spec(world: "gymnasium.Env[Any, Any]") -> dict[str, Any]:
    """Return the settings with which the environment `gymnasium` makes the same world from its id.

    Raises:
        AssentError: it is no environment of Gymnasium, or its id alone makes another one.
    """
    spec = getattr(world, "spec", None)
    if spec is None:
        raise AssentError(f"Environment takes a name or what gymnasium.make returns, not {type(world).__name__}")
    from gymnasium import registry

    registered = registry.get(spec.id)
    if registered is None:
        raise AssentError(f"Environment cannot make {spec.id} again: register it with gymnasium.register")
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    changed = [name for name, value in kwargs.items() if repr(value) != repr(registered.kwargs.get(name, ...))]
    if changed := [*changed, *(wrapper.name for wrapper in spec.additional_wrappers)]:
        reason = f"its id says nothing of {', '.join(changed)}"
        raise AssentError(f"Environment cannot make {spec.id} again, {reason}: register it so under an id of its own")
    is_limited = spec.max_episode_steps not in (None, registered.max_episode_steps)
    steps = {"episode_steps": spec.max_episode_steps} if is_limited else {}
    return {"environment": "gymnasium", "env_id": spec.id, **steps}
