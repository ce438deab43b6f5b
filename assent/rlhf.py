"""The whole idea in a few lines of Python: an environment of prompts, a reward model from comparisons, an agent.

    environment = Prompts("prompts.jsonl", model="HuggingFaceTB/SmolLM2-135M-Instruct")
    reward_model = RewardModel.fit(environment, "comparisons.jsonl")
    agent = RLHF(environment, reward_model)
    agent.train()
    print(agent.evaluate())

Everything happens in a run folder, as with the commands, and goes on where it stopped if it is called again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from assent.commands import stage
from assent.config import override, table
from assent.errors import AssentError
from assent.formats.files.exchange import add, load, read
from assent.functional.ensemble import combine, disagreement
from assent.generation.local import Sampling, sample
from assent.generation.responses import DEMO_PROMPTS
from assent.models.checkpoints import locate
from assent.models.load import LoadedModel, load_policy
from assent.models.tokenizer import DEFAULT_RENDERING, Rendering, load_codec
from assent.records import Preference, Prompt, Response
from assent.rewards.model import Model
from assent.run import Setup, open_run
from assent.runner import perform
from assent.training.batching import generator


@dataclass(frozen=True)
class Prompts:
    """The environment of a language model: what it is asked, who answers first, and the folder where all is kept.

    Args:
        prompts: a file (any format that `assent import` reads), prompts, or texts; nothing: the demo's prompts.
        model: a hub id, a folder, or a .gguf file.
        run: the run folder.
        settings: of `assent.run.Setup`: seed, held_out, device, dtype, template_args, date.

    Raises:
        AssentError: no prompts there.
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
                run.store.add_prompts(self._asked())

    @property
    def setup(self) -> Setup:
        names = ("seed", "held_out", "device", "dtype", "template_args", "date")
        return override(
            Setup(Path(self.run), str(self.model)), {name: getattr(self, name) for name in names}, "Prompts"
        )

    def _asked(self) -> list[Prompt]:
        if isinstance(self.prompts, str | Path):
            found = list(read(self.prompts).prompts)
        else:
            found = [Prompt.plain(p) if isinstance(p, str) else p for p in self.prompts]
        if not found:
            raise AssentError(f"no prompts in {self.prompts}")
        chat = load_codec(locate(self.model)).tokenizer.chat_template is not None
        return [Prompt.ask(p.text, p.category, p.source) if chat and p.is_plain else p for p in found]


@dataclass(frozen=True)
class RewardModel:
    """What people find good, as a function: fitted to comparisons, or loaded."""

    folder: str
    """A Hugging Face sequence classifier with one label."""
    report: dict[str, Any]
    """What was measured when it was fitted: accuracy on held-out prompts with its interval."""
    rendering: Rendering = DEFAULT_RENDERING
    """How the chat template was rendered when it was fitted."""

    @classmethod
    def fit(
        cls, environment: Prompts, comparisons: str | Path | Iterable[Preference] | None = None, **settings: Any
    ) -> Self:
        """Fit to a file of comparisons, to preferences, or to the comparisons that the run folder holds already.

        Args:
            settings: of the `reward` stage: lr, epochs, batch_size, lora_rank, ...
        """
        with open_run(environment.setup) as run:
            if isinstance(comparisons, str | Path):
                load(comparisons, run.store)
            elif comparisons is not None:
                add(comparisons, run.store, "comparisons")
            report = perform(run, "reward", override(stage("reward"), settings, "RewardModel.fit"))
            return cls(str(run.folder / run.key("reward")), report, run.rendering)

    def score(self, prompt: str | Prompt, answers: Sequence[str]) -> list[float]:
        """Scores of finished answers to one prompt; the higher the better."""
        return combine(self._scores(prompt, answers)).tolist()

    def uncertainty(self, prompt: str | Prompt, answers: Sequence[str]) -> list[float]:
        """How far the members of an ensemble disagree about each answer: their standard deviation; 0 for one alone."""
        return disagreement(self._scores(prompt, answers)).tolist()

    def _scores(self, prompt: str | Prompt, answers: Sequence[str]) -> Tensor:
        model = Model.load(self.folder, rendering=self.rendering)
        chat = model.language.tokenizer.chat_template is not None
        asked = prompt if isinstance(prompt, Prompt) else Prompt.ask(prompt) if chat else Prompt.plain(prompt)
        return model.score([asked] * len(answers), [Response(asked.id, a, "") for a in answers])


class RLHF:
    """A policy that learns by its own trials what the reward model finds good, on a KL leash.

    Args:
        objective: the name of one: ppo, grpo, rloo, reinforce, ...
        settings: of its stage: steps, n, lr, beta, temperature, max_new_tokens, ...
    """

    def __init__(
        self, environment: Prompts, reward_model: RewardModel, objective: str = "ppo", **settings: Any
    ) -> None:
        self.environment, self.reward_model, self.objective = environment, reward_model, objective
        self._stage: Any = override(stage(objective), {"reward": reward_model.folder, **settings}, f"RLHF {objective}")

    def train(self) -> dict[str, Any]:
        """Train the policy, or go on with it; returns what the stage reports."""
        with open_run(self.environment.setup) as run:
            return perform(run, self.objective, self._stage)

    def evaluate(self, judge: str = "", **settings: Any) -> dict[str, Any]:
        """Compare the policy with its start on held-out prompts.

        Args:
            judge: a file of rewards/ or a reward model's folder; empty: the reward model itself, which flatters.
        """
        chosen = {"policies": (self.objective,), "judge": judge or self.reward_model.folder, **settings}
        sampling = self._stage.sampling
        shared = {"temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens}
        with open_run(self.environment.setup) as run:
            measuring = override(stage("evaluate"), {**shared, **chosen}, "RLHF.evaluate")
            run.move_aside("evaluate", table(measuring))
            result = perform(run, "evaluate", measuring)
        return dict(result["policies"][self.objective])

    def answer(self, prompt: str, sampling: Sampling | None = None) -> str:
        """The trained policy's answer to one prompt."""
        with open_run(self.environment.setup) as run:
            language: LoadedModel = load_policy(run.policy(self.objective), run.dtype, run.device, run.rendering)
        codec = language.codec
        asked = Prompt.ask(prompt) if language.tokenizer.chat_template else Prompt.plain(prompt)
        dice = generator(self.environment.seed, 4)
        (drawn,) = sample(
            language.model, [codec.prompt(asked)], 1, sampling or self._stage.sampling, codec.stop_ids, dice
        )
        return codec.decode(drawn.ids, asked)
