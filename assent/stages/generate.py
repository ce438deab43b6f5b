"""Generate responses of a policy to the run's prompts and store them as they come."""

from dataclasses import dataclass
from typing import Any, ClassVar

from assent.generation.responses import GenerationJob, generate_responses, load_prompts, response_label
from assent.generation.sampling import Sampling
from assent.models.checkpoints import weights_digest
from assent.models.load import load_policy
from assent.protocols import Stage
from assent.records import Response
from assent.run import Run
from assent.split import split
from assent.types import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Generate(Stage):
    """Generate responses to prompts."""

    aim: ClassVar[str] = "the model responds to each prompt"
    policy: str = ""
    """Policy to sample from: `base`, a checkpoint of the run, a folder, a hub id; empty: the round's base."""
    prompts: str = ""
    """Data set of prompts (`prompt` and `category`): a file, a folder or `hf://owner/name`; empty: the run's prompts,
    or else the demo's."""
    num_prompts: NonNegativeInt = 0
    """Number of training prompts, in the order of the file; 0: all."""
    n: NonNegativeInt = 4
    """Number of responses per training prompt."""
    n_held_out: NonNegativeInt = 2
    """Number of responses per held-out prompt, for evaluation."""
    apply_chat_template: bool = True
    """Give a plain prompt to a chat model as a user turn; false: let the model continue the text."""
    generation_batch_size: PositiveInt = 64
    """Number of responses generated at a time."""
    sampling: Sampling = Sampling(temperature=0.7)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        policy = self.policy or run.base_policy
        language = load_policy(run.policy(policy), run.dtype, run.device, run.rendering)
        prompts = load_prompts(run, self.prompts, language, self.sampling.max_new_tokens, self.apply_chat_template)
        sides = split(prompts, run.setup.held_out)
        train = [prompt for prompt in prompts if prompt.id in sides.train][: self.num_prompts or None]
        held_out = [prompt for prompt in prompts if prompt.id in sides.held_out]
        label = response_label(run, key, policy, self.n, self.n_held_out, self.sampling)
        job = GenerationJob(language, label, self.sampling, self.generation_batch_size, key)
        responses: list[Response] = []
        for side, n in ((train, self.n), (held_out, self.n_held_out)):
            if n and side:
                responses += generate_responses(run, job, side, n)
        num_finished = sum(response.finished for response in responses)
        return {
            "policy": policy,
            "weights": weights_digest(run.policy(policy)),
            "label": label,
            "prompts": len(train) + len(held_out),
            "responses": len(responses),
            "eos_rate": num_finished / max(1, len(responses)),
        }
