"""Responses of a policy to the run's prompts, stored as they are generated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from assent.errors import AssentError, warn
from assent.formats.files.importing import read_file
from assent.generation.local import LocalGenerator
from assent.generation.sampling import Sampling
from assent.models.checkpoints import weights_digest
from assent.models.load import LoadedModel, context_length
from assent.models.tokenizer import ChatTokenizer
from assent.protocols import Generator
from assent.records import Prompt, Response, content_id
from assent.run import Run
from assent.seeds import Purpose, derive
from assent.segments import refuse_behaviour
from assent.split import split
from assent.training.batching import chunks
from assent.training.distributed import on_rank0
from assent.training.logging import ProgressBar

DEMO_PROMPTS = Path(__file__).parent.parent / "data" / "prompts.jsonl"


class GenerationJob(NamedTuple):
    """A policy that generates responses for the store, and how."""

    policy: LoadedModel
    label: str
    """The policy's name in the store: see `response_label`."""
    sampling: Sampling
    batch_size: int
    """Completions that are sampled together."""
    progress: str
    """Title of the progress bar."""


def response_label(run: Run, key: str, policy: str, *settings: object) -> str:
    """Return the name of a policy's responses in the store; it depends on the weights and the sampling settings."""
    return f"{key}:{policy}#{content_id(weights_digest(run.policy(policy)), *map(str, settings))[:6]}"


def generate_responses(run: Run, job: GenerationJob, prompts: list[Prompt], n: int) -> list[Response]:
    """Generate n responses to each prompt into the store; prompts that have responses of this policy are skipped.

    The seed of a batch follows from the run's seed, the batch's number and the policy's name, so a resumed run draws
    the same responses.

    Raises:
        AssentError: a prompt leaves no room for a response in the model's context.
    """
    tokenizer = job.policy.chat_tokenizer
    context = context_length(job.policy.model)
    if too_long := len(_prompts_beyond_context(prompts, job.policy, job.sampling.max_new_tokens)):
        raise AssentError(
            f"{too_long} prompts leave no room for {job.sampling.max_new_tokens} new tokens in this policy's context "
            f"of {context}; remove them, or lower --max-new-tokens"
        )
    by_prompt: dict[str, list[Response]] = {}
    for response in run.store.responses(policy=job.label):
        by_prompt.setdefault(response.prompt, []).append(response)
    settings = f"temperature {job.sampling.temperature}, {job.sampling.max_new_tokens} tokens, seed {run.seed}"
    generator = LocalGenerator()
    generator.load(job.policy)
    with ProgressBar(job.progress, len(prompts)) as bar:
        for number, batch in enumerate(chunks(prompts, max(1, job.batch_size // n))):
            if not all(prompt.id in by_prompt for prompt in batch):
                seed = derive(run.seed, Purpose.GENERATION, number, *job.label.encode())
                sampled = sample_responses(generator, tokenizer, batch, n, job.sampling, seed)
                responses = [replace(response, policy=job.label, sampling=settings) for response in sampled]
                run.store.add_responses(responses)
                for response in responses:
                    by_prompt.setdefault(response.prompt, []).append(response)
            bar.advance(len(batch))
    return [response for prompt in prompts for response in by_prompt[prompt.id]]


def generate_draws(run: Run, job: GenerationJob, prompts: list[Prompt], n: int) -> list[list[Response]]:
    """Generate n responses to each prompt, repeats included: P lists of n, in order; stored ones are reused.

    The store keeps equal responses under one name only once, so each draw has a name of its own: `LABEL/1`, ...

    Args:
        prompts: all within the model's context.
    """
    labels = [f"{job.label}/{number}" for number in range(1, n + 1)]
    columns = [{r.prompt: r for r in run.store.responses(policy=label)} for label in labels]
    tokenizer, generator = job.policy.chat_tokenizer, LocalGenerator()
    generator.load(job.policy)
    with ProgressBar(job.progress, len(prompts)) as bar:
        for number, batch in enumerate(chunks(prompts, max(1, job.batch_size // n))):
            if any(prompt.id not in column for prompt in batch for column in columns):
                seed = derive(run.seed, Purpose.GENERATION, number, *job.label.encode())
                for i, response in enumerate(sample_responses(generator, tokenizer, batch, n, job.sampling, seed)):
                    columns[i % n][response.prompt] = replace(response, policy=labels[i % n])
                run.store.add_responses(column[prompt.id] for column in columns for prompt in batch)
            bar.advance(len(batch))
    return [[column[prompt.id] for column in columns] for prompt in prompts]


def sample_responses(
    generator: Generator, tokenizer: ChatTokenizer, prompts: Sequence[Prompt], n: int, sampling: Sampling, seed: int
) -> list[Response]:
    """Return n responses to each prompt, in order, of the policy that the generator has loaded; they name no policy."""
    samples = generator.generate([tokenizer.encode_prompt(prompt) for prompt in prompts], n, sampling, seed)
    pairs = [(prompts[sample.prompt_index], sample) for sample in samples]
    return [
        Response.of(prompt.id, tokenizer.to_completion(prompt, sample.token_ids, sample.finished), "")
        for prompt, sample in pairs
    ]


def load_prompts(
    run: Run, path: str, policy: LoadedModel, max_new_tokens: int, apply_chat_template: bool = True
) -> list[Prompt]:
    """Return the prompts of a file (added to the store), or else of the store, or else of the demo.

    Args:
        apply_chat_template: give a plain prompt to a chat model as a user's turn; false: let it continue the text.

    Raises:
        AssentError: the file has no prompts, or some that are too long; or the run has clips of an agent.
    """
    if not path and (stored := on_rank0(lambda: list(run.store.prompts()))):
        refuse_behaviour(run.folder, stored)
        return prompts_within_context(stored, policy, max_new_tokens)
    result = read_file(path or DEMO_PROMPTS)
    if result.skipped:
        warn(f"{path}: {result}")
    as_chat = apply_chat_template and policy.tokenizer.chat_template is not None
    prompts = [p.as_chat() if as_chat else p for p in result.prompts]
    if not prompts:
        raise AssentError(f"{path} has no prompts ({result})")
    prompts = policy.chat_tokenizer.select_renderable(prompts)
    if too_long := _prompts_beyond_context(prompts, policy, max_new_tokens):
        raise AssentError(
            f"{len(too_long)} of {len(prompts)} prompts {_no_room(policy, max_new_tokens)}; the first is "
            f"{too_long[0].text[:60]!r}: remove them, or lower --max-new-tokens"
        )
    on_rank0(lambda: run.store.add_prompts(prompts))
    return prompts


def prompts_of_split(
    run: Run, policy: LoadedModel, max_new_tokens: int, side: Literal["train", "held_out"]
) -> list[Prompt]:
    """Return the training or the held-out prompts of the run (of the demo, if the run has none).

    Raises:
        AssentError: there are none.
    """
    prompts = load_prompts(run, "", policy, max_new_tokens)
    sides = split(prompts, run.setup.held_out)
    ids = sides.train if side == "train" else sides.held_out
    if not ids:
        missing, change = ("prompt to train on", "lower") if side == "train" else ("held-out prompts", "higher")
        raise AssentError(f"{run.folder} has no {missing}; use another --run with a {change} --held-out")
    return [prompt for prompt in prompts if prompt.id in ids]


def prompts_within_context(prompts: list[Prompt], policy: LoadedModel, max_new_tokens: int) -> list[Prompt]:
    """Return the prompts that can be encoded and leave space for `max_new_tokens`, and warn about the others.

    Raises:
        AssentError: none is left.
    """
    prompts = policy.chat_tokenizer.select_renderable(prompts)
    too_long = {prompt.id for prompt in _prompts_beyond_context(prompts, policy, max_new_tokens)}
    if prompts and len(too_long) == len(prompts):
        raise AssentError(
            f"all {len(prompts)} prompts {_no_room(policy, max_new_tokens)}; lower --max-new-tokens, or use another "
            "model"
        )
    if too_long:
        warn(f"{len(too_long)} of {len(prompts)} prompts {_no_room(policy, max_new_tokens)}: they are left out")
    return [prompt for prompt in prompts if prompt.id not in too_long]


def _prompts_beyond_context(prompts: list[Prompt], policy: LoadedModel, max_new_tokens: int) -> list[Prompt]:
    max_prompt_tokens = context_length(policy.model) - max_new_tokens
    return [prompt for prompt in prompts if len(policy.chat_tokenizer.encode_prompt(prompt)) > max_prompt_tokens]


def _no_room(policy: LoadedModel, max_new_tokens: int) -> str:
    return f"leave no room for {max_new_tokens} new tokens in the model's context of {context_length(policy.model)}"
