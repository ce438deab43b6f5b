"""Responses of policies to held-out prompts: the material of win rates and of the arena."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import NamedTuple

from assent.errors import AssentError
from assent.generation.responses import GenerationJob, generate_responses, response_label
from assent.generation.sampling import Sampling
from assent.models.checkpoints import weights_digest
from assent.models.load import LoadedModel
from assent.records import CHAT, Prompt, Response
from assent.run import Run
from assent.split import split
from assent.stage_names import policy_commands

BATCH_SIZE = 64
"""Responses that are generated at once."""


class Candidate(NamedTuple):
    """A policy with one response to each held-out prompt, in the order of the prompts."""

    policy: str
    responses: list[Response]
    kl: float | None = None
    """Divergence from the baseline in nats a response, if it is known."""


def held_out_prompts(run: Run) -> list[Prompt]:
    """Return the prompts that nothing is trained on.

    Prompts of chats are left out: they arrive while a run is in use, and would change what is measured.

    Raises:
        AssentError: the run has none.
    """
    prompts = [prompt for prompt in run.store.prompts() if prompt.source != CHAT]
    ids = split(prompts, run.setup.held_out).held_out
    if not ids:
        raise AssentError(f"{run.folder} has no held-out prompts; use another --run with a higher --held-out")
    return [prompt for prompt in prompts if prompt.id in ids]


def generate_candidate(
    run: Run, policy: str, model: LoadedModel, prompts: list[Prompt], key: str, sampling: Sampling
) -> Candidate:
    """Generate one response of a policy to each prompt.

    Responses of `generate` are reused if it has them all, from the same weights and with the same sampling.
    """
    by_prompt: dict[str, Response] = {}
    for stage in ("generate", run.key("generate")):
        result, settings = run.result(stage) or {}, run.recipe.get(stage, {})
        is_same = all(settings.get(name) == value for name, value in asdict(sampling).items())
        if is_same and result.get("policy") == policy and result.get("weights") == weights_digest(run.policy(policy)):
            by_prompt = _first_by_prompt(run.store.responses(policy=result["label"]), by_prompt)
    if not all(prompt.id in by_prompt for prompt in prompts):
        label = response_label(run, key, policy, sampling)
        job = GenerationJob(model, label, sampling, BATCH_SIZE, progress=f"{key}: {policy}")
        by_prompt = _first_by_prompt(generate_responses(run, job, prompts, 1), {})
    return Candidate(policy, [by_prompt[prompt.id] for prompt in prompts])


def selected_candidate(run: Run, policy: str, prompts: list[Prompt], baseline: str) -> Candidate:
    """Return the responses that a stage such as best_of_n selected; it trained no policy.

    Raises:
        AssentError: it has none for some prompt.
    """
    result = run.result(policy) or {}
    by_prompt = {response.prompt: response for response in run.store.responses(policy=result["chosen"])}
    if any(prompt.id not in by_prompt for prompt in prompts):
        raise AssentError(
            f"'{policy}' is out of date: it has no response to some held-out prompts; "
            f"rerun 'assent {policy} --overwrite'"
        )
    # The bound on its divergence holds against the policy that it sampled from, and no other.
    kl = result["kl"] if result.get("policy") == baseline else None
    return Candidate(policy, [by_prompt[prompt.id] for prompt in prompts], kl)


def trained_policies(run: Run) -> list[str]:
    """Return the policies that this round's stages produced, in the order of the recipe."""
    keys = [run.key(name) for name in policy_commands()]
    return [key for key in run.recipe if key in keys and (_has_checkpoint(run, key) or selection_label(run, key))]


def selection_label(run: Run, policy: str) -> str:
    """Return the store's name for the responses that a stage selected; empty for a policy that was trained."""
    return str((run.result(policy) or {}).get("chosen", ""))


def _has_checkpoint(run: Run, key: str) -> bool:
    return (run.folder / key / "config.json").exists()


def _first_by_prompt(responses: Iterable[Response], responses_by_prompt: dict[str, Response]) -> dict[str, Response]:
    by_prompt = dict(responses_by_prompt)
    for response in responses:
        by_prompt.setdefault(response.prompt, response)
    return by_prompt
