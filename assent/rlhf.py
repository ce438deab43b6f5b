"""RLHF in a few lines of Python: an environment of prompts, a reward model fitted to comparisons, an agent.

    environment = Prompts("prompts.jsonl", model="HuggingFaceTB/SmolLM2-135M-Instruct")
    reward_model = RewardModel.fit(environment, "comparisons.jsonl")
    agent = RLHF(environment, reward_model)
    agent.train()
    print(agent.evaluate())

Everything is kept in a run folder, as with the commands; a second call resumes where the first one stopped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

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
from assent.records import Preference, Prompt, Response
from assent.rewards.model import Model
from assent.run import Setup, open_run
from assent.runner import perform
from assent.seeds import Purpose, derive
from assent.stage_names import objectives_of, policy_objectives

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


class RLHF:
    """A policy that is trained on preferences, with a KL penalty to its reference.

    Online objectives (ppo, grpo, rloo, ...) train on the policy's own completions, which the reward model scores.
    Offline ones (dpo, ipo, kto, ...) train on the feedback of the run, on which the reward model was fitted.

    Args:
        reward_model: None: an offline objective needs none.
        objective: ppo, grpo, dpo, kto, ...
        settings: of its stage: steps, n, lr, beta, temperature, max_new_tokens, ...

    Raises:
        AssentError: no such objective or setting, or an online objective without a reward model.
    """

    def __init__(
        self,
        environment: Prompts,
        reward_model: RewardModel | None = None,
        objective: str = "ppo",
        **settings: Any,
    ) -> None:
        self.environment = environment
        self.reward_model = reward_model
        self.objective = objective
        if objective not in policy_objectives():
            hint = did_you_mean(objective, policy_objectives())
            raise AssentError(
                f"RLHF: no objective '{objective}'{hint}; it must be one of {', '.join(policy_objectives())}"
            )
        is_online = objective in objectives_of("online")
        if is_online and reward_model is None:
            raise AssentError(f"RLHF: {objective} needs a reward model; pass RewardModel.fit(environment)")
        rewards = {"rewards": (reward_model.folder,)} if is_online and reward_model else {}
        configured: Any = override(stage(objective), {**rewards, **settings}, f"RLHF {objective}")
        self._stage = configured
        self._sampling = configured.settings.sampling if is_online else Sampling(temperature=0.7)

    def train(self) -> dict[str, Any]:
        """Train the policy, or resume its training; return the stage's result."""
        with open_run(self.environment.setup) as run:
            return perform(run, self.objective, self._stage)

    def evaluate(self, judge: str = "", **settings: Any) -> dict[str, Any]:
        """Compare the policy with its base on held-out prompts.

        Args:
            judge: a reward, an annotator (`human`, `simulated`), a file of your own or a reward model's folder; empty:
                the reward model itself, which is biased towards the policy trained on it.
            settings: of the `evaluate` stage: temperature, max_new_tokens, ...
        """
        if not judge and self.reward_model is not None:
            judge = self.reward_model.folder
        shared = {"temperature": self._sampling.temperature, "max_new_tokens": self._sampling.max_new_tokens}
        chosen = {"policies": (self.objective,), "judge": judge}
        evaluation = override(stage("evaluate"), {**shared, **chosen, **settings}, "RLHF.evaluate")
        with open_run(self.environment.setup) as run:
            result = perform(run, "evaluate", evaluation, overwrite=True)
        return dict(result["policies"][self.objective])

    def generate(self, prompt: str, sampling: Sampling | None = None) -> str:
        """Return the trained policy's response to one prompt."""
        with open_run(self.environment.setup) as run:
            policy = load_policy(run.policy(self.objective), run.dtype, run.device, run.rendering)
        tokenizer = policy.chat_tokenizer
        message = _as_prompt(prompt, policy)
        generator = LocalGenerator()
        generator.load(policy)
        seed = derive(self.environment.seed, Purpose.RESPONSE)
        (completion,) = generator.generate([tokenizer.encode_prompt(message)], 1, sampling or self._sampling, seed)
        return tokenizer.decode(completion.token_ids, message)

    @property
    def folder(self) -> Path:
        """Return the folder of the trained policy, as transformers reads it."""
        with open_run(self.environment.setup) as run:
            return Path(run.policy(self.objective))

    @property
    def model(self) -> "PreTrainedModel":
        """Return the trained policy as a new model of transformers."""
        from transformers import AutoModelForCausalLM

        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(self.folder)
        return model

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of the trained policy."""
        from transformers import AutoTokenizer

        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer


def _as_prompt(text: str, model: LoadedModel) -> Prompt:
    """Return a text as a user's turn of a chat model, or as text to be continued."""
    return Prompt.ask(text) if model.tokenizer.chat_template else Prompt.plain(text)
