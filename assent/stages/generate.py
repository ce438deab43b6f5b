"""Let the policy answer the prompts: several answers each, kept in the store as they come."""

from dataclasses import dataclass
from typing import Any

from assent.generation.local import Sampling
from assent.generation.responses import answer, answers_of, find_prompts
from assent.models.checkpoints import weights_of
from assent.models.load import load_policy
from assent.protocols import Stage
from assent.run import Run
from assent.split import split
from assent.types import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Generate(Stage):
    """Draw answers to prompts."""

    policy: str = ""
    """Who answers: `start`, a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    prompts: str = ""
    """A file of prompts (`.jsonl`: `prompt`, and `mode`); empty: those that the run holds, or else the demo's."""
    num_prompts: NonNegativeInt = 0
    """How many of the training prompts, in the order of the file; 0: all."""
    n: NonNegativeInt = 4
    """Answers to each training prompt."""
    n_held_out: NonNegativeInt = 2
    """Answers to each held-out prompt, for measuring."""
    apply_chat_template: bool = True
    """Put a plain prompt to a chat model as a user's turn; false: let it continue the text."""
    generation_batch_size: PositiveInt = 64
    """Answers that are drawn at a time."""
    sampling: Sampling = Sampling(temperature=0.7)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        name = self.policy or run.base
        language = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
        codec = language.codec
        prompts = find_prompts(run, self.prompts, language, self.sampling.max_new_tokens, self.apply_chat_template)
        sides = split(prompts, run.setup.held_out)
        train = [p for p in prompts if p.id in sides.train][: self.num_prompts or None]
        held = [p for p in prompts if p.id in sides.held_out]
        label = answers_of(run, key, name, self.n, self.n_held_out, self.sampling)
        drawn = finished = 0
        for some, n in ((train, self.n), (held, self.n_held_out)):
            if n and some:
                made = answer(
                    run, codec, language.model, some, n, self.sampling, label, self.generation_batch_size, key
                )
                drawn += len(made)
                finished += sum(response.finished for response in made)
        return {
            "policy": name,
            "weights": weights_of(run.policy(name)),
            "label": label,
            "prompts": len(train) + len(held),
            "answers": drawn,
            "finished": finished / max(1, drawn),
        }
