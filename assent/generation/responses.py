"""The responses of a policy to the run's prompts, stored as they are generated."""

from pathlib import Path
from typing import Any, Literal

from assent.errors import AssentError, warn
from assent.formats.files.exchange import read
from assent.generation.local import Sampling, sample
from assent.models.checkpoints import weights_of
from assent.models.load import LoadedModel, context
from assent.models.tokenizer import ChatTokenizer
from assent.records import Prompt, Response, content_id
from assent.run import Run
from assent.split import split
from assent.training.batching import chunks, generator
from assent.training.distributed import on_rank0
from assent.training.logging import ProgressBar

DEMO_PROMPTS = Path(__file__).parent.parent / "data" / "prompts.jsonl"


def answers_of(run: Run, key: str, policy: str, *settings: object) -> str:
    """The name under which the store keeps the answers of a policy: another checkpoint or sampling, another name."""
    return f"{key}:{policy}#{content_id(weights_of(run.policy(policy)), *map(str, settings))[:6]}"


def answer(
    run: Run,
    codec: ChatTokenizer,
    model: Any,
    prompts: list[Prompt],
    n: int,
    sampling: Sampling,
    policy: str,
    rows: int,
    name: str,
) -> list[Response]:
    """Draw n answers to each prompt into the store under the name `policy`; prompts that have some are left alone.

    Draws follow from the run's seed and the prompt's place, so a run that was killed goes on as if it had not been.
    """
    encoded = {prompt.id: codec.prompt(prompt) for prompt in prompts}
    room = context(model) - sampling.max_new_tokens
    if long := sum(len(ids) > room for ids in encoded.values()):
        raise AssentError(f"{long} prompts leave no room for answers in the context of {context(model)} of this policy")
    made: dict[str, list[Response]] = {}
    for response in run.store.responses(policy=policy):
        made.setdefault(response.prompt, []).append(response)
    words = f"temperature {sampling.temperature}, {sampling.max_new_tokens} tokens, seed {run.seed}"
    with ProgressBar(name, len(prompts)) as bar:
        for number, some in enumerate(chunks(prompts, max(1, rows // n))):
            if not all(prompt.id in made for prompt in some):
                drawn = sample(
                    model,
                    [encoded[prompt.id] for prompt in some],
                    n,
                    sampling,
                    codec.stop_ids,
                    generator(run.seed, 1, number, *policy.encode()),
                )
                asked = [some[s.prompt] for s in drawn]
                completions = [codec.drawn(p, s.ids, s.finished) for p, s in zip(asked, drawn, strict=True)]
                new = [Response.of(p.id, c, policy, words) for p, c in zip(asked, completions, strict=True)]
                run.store.add_responses(new)
                for response in new:
                    made.setdefault(response.prompt, []).append(response)
            bar.advance(len(some))
    return [response for prompt in prompts for response in made[prompt.id]]


def find_prompts(run: Run, path: str, language: LoadedModel, new_tokens: int, chat: bool = True) -> list[Prompt]:
    """Prompts of a file (added to the store), or of the store, or of the demo, in that order.

    Raises:
        AssentError: the file holds none, or some that are too long.
    """
    if not path and (kept := on_rank0(lambda: list(run.store.prompts()))):
        return fitting(kept, language, new_tokens)
    reading = read(path or DEMO_PROMPTS)
    if reading.rejected:
        warn(f"{path}: {reading}")
    chat = chat and language.tokenizer.chat_template is not None
    asked = [Prompt.ask(p.text, p.category, p.source) if chat and p.is_plain else p for p in reading.prompts]
    if not asked:
        raise AssentError(f"{path} holds no prompts ({reading})")
    asked = language.codec.renderable(asked)
    if long := _too_long(asked, language, new_tokens):
        raise AssentError(
            f"{len(long)} of {len(asked)} prompts leave no room for {new_tokens} new tokens in the model's context "
            f"of {context(language.model)}; the first is {long[0].text[:60]!r}: take them out, or draw fewer tokens"
        )
    on_rank0(lambda: run.store.add_prompts(asked))
    return asked


def on_side(run: Run, language: LoadedModel, new_tokens: int, side: Literal["train", "held_out"]) -> list[Prompt]:
    """The run's prompts (or the demo's, if it has none) on one side of the split.

    Raises:
        AssentError: none is there.
    """
    found = find_prompts(run, "", language, new_tokens)
    kept = getattr(split(found, run.setup.held_out), side)
    if not kept:
        has, other = ("prompt to train on", "lower") if side == "train" else ("held-out prompts", "higher")
        raise AssentError(f"{run.folder} has no {has}: take another --run with a {other} --held-out")
    return [prompt for prompt in found if prompt.id in kept]


def fitting(prompts: list[Prompt], language: LoadedModel, new_tokens: int) -> list[Prompt]:
    """Those that leave room for `new_tokens` in the model's context; how many do not is told.

    Raises:
        AssentError: none is left.
    """
    prompts = language.codec.renderable(prompts)
    long = {prompt.id for prompt in _too_long(prompts, language, new_tokens)}
    told = f"leave no room for {new_tokens} new tokens in the model's context of {context(language.model)}"
    if prompts and len(long) == len(prompts):
        raise AssentError(f"all {len(prompts)} prompts {told}: draw fewer tokens, or take another model")
    if long:
        warn(f"{len(long)} of {len(prompts)} prompts {told}: they are left out")
    return [prompt for prompt in prompts if prompt.id not in long]


def _too_long(prompts: list[Prompt], language: LoadedModel, new_tokens: int) -> list[Prompt]:
    room, codec = context(language.model) - new_tokens, language.codec
    return [prompt for prompt in prompts if len(codec.prompt(prompt)) > room]
