"""Let the policy answer the prompts: several answers each, kept in the store as they come."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assent.errors import AssentError, warn
from assent.formats.files.exchange import read
from assent.generation.local import Sampling, sample
from assent.models.checkpoints import weights_of
from assent.models.load import Language, context, load_policy
from assent.models.tokenizer import Codec
from assent.preferences.convert import split
from assent.protocols import Stage
from assent.records import Prompt, Response, content_id
from assent.run import Run
from assent.training.batching import chunks, generator
from assent.training.distributed import alone
from assent.training.logging import Bar
from assent.types import Count, Natural

DEMO_PROMPTS = Path(__file__).parent.parent / "data" / "prompts.jsonl"


@dataclass(frozen=True)
class Generate(Stage):
    """Draw answers to prompts."""

    policy: str = ""
    """Who answers: `start`, a checkpoint of the run, a folder or a hub id; empty: this round's base policy."""
    prompts: str = ""
    """A file of prompts (`.jsonl`: `prompt`, and `mode`); empty: those that the run holds, or else the demo's."""
    count: Natural = 0
    """How many of the training prompts, in the order of the file; 0: all."""
    n: Natural = 4
    """Answers to each training prompt."""
    n_held_out: Natural = 2
    """Answers to each held-out prompt, for measuring."""
    chat: bool = True
    """Put a plain prompt to a chat model as a user's turn; false: let it continue the text."""
    rows: Count = 64
    """Answers that are drawn at a time."""
    sampling: Sampling = Sampling(temperature=0.7)

    def __call__(self, run: Run, key: str) -> dict[str, Any]:
        name = self.policy or run.base
        language = load_policy(run.policy(name), run.dtype, run.device, run.rendering)
        codec = language.codec
        prompts = find_prompts(run, self.prompts, language, self.sampling.max_new_tokens, self.chat)
        sides = split(prompts, run.setup.held_out)
        train = [p for p in prompts if p.id in sides.train][: self.count or None]
        held = [p for p in prompts if p.id in sides.held_out]
        label = answers_of(run, key, name, self.n, self.n_held_out, self.sampling)
        drawn = finished = 0
        for some, n in ((train, self.n), (held, self.n_held_out)):
            if n and some:
                made = answer(run, codec, language.model, some, n, self.sampling, label, self.rows, key)
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


def answers_of(run: Run, key: str, policy: str, *settings: object) -> str:
    """The name under which the store keeps the answers of a policy: another checkpoint or sampling, another name."""
    return f"{key}:{policy}#{content_id(weights_of(run.policy(policy)), *map(str, settings))[:6]}"


def answer(
    run: Run,
    codec: Codec,
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
    with Bar(name, len(prompts)) as bar:
        for number, some in enumerate(chunks(prompts, max(1, rows // n))):
            if not all(prompt.id in made for prompt in some):
                drawn = sample(
                    model,
                    [encoded[prompt.id] for prompt in some],
                    n,
                    sampling,
                    codec.ends,
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


def find_prompts(run: Run, path: str, language: Language, new_tokens: int, chat: bool = True) -> list[Prompt]:
    """Prompts of a file (added to the store), or of the store, or of the demo, in that order.

    Raises:
        AssentError: the file holds none, or some that are too long.
    """
    if not path and (kept := alone(lambda: list(run.store.prompts()))):
        return fitting(kept, language, new_tokens)
    reading = read(path or DEMO_PROMPTS)
    if reading.rejected:
        warn(f"{path}: {reading}")
    chat = chat and language.tokenizer.chat_template is not None
    asked = [Prompt.ask(p.text, p.mode, p.source) if chat and p.is_plain else p for p in reading.prompts]
    if not asked:
        raise AssentError(f"{path} holds no prompts ({reading})")
    asked = language.codec.renderable(asked)
    if long := _too_long(asked, language, new_tokens):
        raise AssentError(
            f"{len(long)} of {len(asked)} prompts leave no room for {new_tokens} new tokens in the model's context "
            f"of {context(language.model)}; the first is {long[0].text[:60]!r}: take them out, or draw fewer tokens"
        )
    alone(lambda: run.store.add_prompts(asked))
    return asked


def on_side(run: Run, language: Language, new_tokens: int, side: Literal["train", "held_out"]) -> list[Prompt]:
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


def fitting(prompts: list[Prompt], language: Language, new_tokens: int) -> list[Prompt]:
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


def _too_long(prompts: list[Prompt], language: Language, new_tokens: int) -> list[Prompt]:
    room, codec = context(language.model) - new_tokens, language.codec
    return [prompt for prompt in prompts if len(codec.prompt(prompt)) > room]
