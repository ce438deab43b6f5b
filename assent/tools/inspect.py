"""Show what is trained, token by token, and whether a model's tokenizer keeps the contract."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from assent.errors import AssentError
from assent.formats.files.exchange import read
from assent.models.tokenizer import ANSWER, PROBE, ChatTokenizer, Point, read_codec
from assent.preferences.convert import examples
from assent.protocols import Tool
from assent.records import Completion, Example, Preference, Prompt, RankedCompletions, ScoredCompletion, SFTExample
from assent.run import Run
from assent.tools.import_ import printable, reasons

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedTokenizerBase

    from assent.models.inspection import Fact
    from assent.models.load import LoadedModel

STYLES = {
    "prompt": ("grey50", "grey62"),
    "trained": ("bold white on dark_green", "bold white on green4"),
    "end": ("bold black on yellow",),
    "nothing": ("grey35 strike",),
}
"""Neighbours alternate, so that each token is seen."""
SMALL = 2_000_000_000
"""Bytes of weights up to which a model is loaded without being asked to."""
DRAWN = 16
DATA = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".gz", ".parquet", ".arrow")
"""Ends of the names of files of data; a hub id may have a dot too (Qwen/Qwen2.5-0.5B)."""
MARKS = {"prompt": ("", ""), "trained": ("[", "]"), "end": ("[", " <- end]"), "nothing": ("(", ")")}
"""Without colour."""


class Row(NamedTuple):
    """What one example trains."""

    title: str
    prompt: Prompt
    completion: Completion | None
    """None: a prompt that nobody has answered."""


@dataclass(frozen=True)
class Inspect(Tool):
    """Show examples as tokens: which are the prompt, which are trained, which end the answer."""

    needs_run: ClassVar[bool] = False
    locks_run: ClassVar[bool] = False
    positional: ClassVar[str] = "file"

    file: str = ""
    """A model: what it is and what it can be used for; or a file of examples or prompts, the same as --data."""
    data: str = ""
    """A file of examples or prompts; empty: what the run holds, or else a conversation of our own."""
    text: str = ""
    """A question to show in place of all that."""
    answer: str = ""
    """The answer to it."""
    n: int = 3
    """How many examples to show."""
    ids: bool = False
    """Show the token ids too."""
    all: bool = False
    """Load the model, however large, and measure it against transformers' own forward pass and draws."""

    def __call__(self, run: Run, key: str) -> None:
        from rich.console import Console

        self._check()
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if is_model(self.file):
            run = Run(replace(run.setup, model=self.file), run.recipe)
            self._model(run, console)
            return
        codec = read_codec(run.setup.model, run.rendering)
        tokenizer = codec.tokenizer
        console.print(f"the tokenizer of {run.setup.model}")
        points = codec.check()
        broken = [f"({letter}) {p.name}" for letter, p in zip("abcde", points, strict=True) if p.ok is False]
        if all(point.ok is not False for point in points[:2]):
            for row in islice(self._rows(run, tokenizer.chat_template is not None), self.n):
                console.print()
                try:
                    self._show(console, codec, row)
                except AssentError as error:
                    broken.append(row.title)
                    console.print(f"{printable(row.title)}: {printable(str(error))}")
        console.print()
        for letter, point in zip("abcde", points, strict=True):
            _tell(console, f"({letter}) {point.name:<8}", point)
        if broken:
            raise AssentError(f"the tokenizer of {run.setup.model} fails at {', '.join(broken)}: see above")

    def _model(self, run: Run, console: "Console") -> None:
        """One screen about a model."""
        from assent.models.checkpoints import locate
        from assent.models.inspection import Fact, facts, weights_in

        where = run.setup.model
        codec, place = read_codec(where, run.rendering), locate(where)
        weights = weights_in(place)
        for fact in facts(place, weights, codec):
            _line(console, fact)
        points = codec.check()
        for letter, point in zip("abcde", points, strict=True):
            _tell(console, f"({letter}) {point.name:<8}", point)
        failed = any(point.ok is False for point in points)
        if not failed and (self.all or (weights is not None and weights.size <= SMALL)):
            failed = sum(not _line(console, fact) for fact in _trials(run, place, self.all)) > 0
        elif not failed:
            _line(console, Fact("read as", "not tried, the model is large or not here: --all loads it"))
        if failed:
            raise AssentError(f"{where} cannot be trained as it is: see above")

    def _check(self) -> None:
        if self.n < 1:
            raise AssentError(f"--n {self.n} shows nothing: it should be 1 or more")
        if self.file and self.data and self.file != self.data:
            raise AssentError(f"name one file, not '{self.file}' and '{self.data}'")
        if self.answer and not self.text:
            raise AssentError("an answer to what? name the question with --text")
        if self.text and (self.data or self.file):
            raise AssentError("show a file or a --text, not both")

    def _rows(self, run: Run, chat: bool) -> Iterator[Row]:
        """What the command line names, or else what the run holds, or else a conversation of our own."""
        if self.text:
            asked = Prompt.ask(self.text) if chat else Prompt.plain(self.text)
            return iter([Row("--text", asked, Completion(self.answer) if self.answer else None)])
        if path := self.data or self.file:
            return _of_file(path, chat)
        held = _of_run(run) if (run.folder / "feedback.db").exists() else iter(())
        ours = Row("a conversation of our own", Prompt(PROBE), Completion(ANSWER))
        first = next(held, ours if chat else Row("a text of our own", Prompt.plain("Name a bird:"), Completion(ANSWER)))
        return chain([first], held)

    def _show(self, console: "Console", codec: ChatTokenizer, row: Row) -> None:
        from rich.text import Text

        prompt, completion, added = codec.prompt(row.prompt), tuple[int, ...](), tuple[int, ...]()
        if row.completion is not None:
            completion = codec.completion(row.prompt, row.completion)
            if row.completion.finished:
                added = codec.rendered(row.prompt, row.completion).completion[len(completion) :]
        console.print(f"{printable(row.title)}: {_counts(len(prompt), len(completion), len(added), row)}")
        colour = console.color_system is not None and not console.no_color
        shown, specials = Text(), set(codec.tokenizer.all_special_ids)
        for place, token in enumerate((*prompt, *completion, *added)):
            part = (
                "prompt" if place < len(prompt) else "trained" if place < len(prompt) + len(completion) else "nothing"
            )
            part = "end" if part == "trained" and token in codec.stop_ids else part
            text = _piece(codec.tokenizer, token)
            special = token in specials and part == "prompt"
            if colour:
                style = STYLES[part][place % len(STYLES[part])] + (" reverse" if special else "")
                shown.append(printable(text), style)
                shown.append(f" {token} " if self.ids else "", "grey35")
            else:
                before, after = MARKS[part]
                shown.append(f"{before}{printable(text)}{f'={token}' if self.ids else ''}{after}")
                shown.append(" " if self.ids else "")
            if text.endswith("\n"):
                shown.append("\n")
        shown.rstrip()
        console.print(shown)


def is_model(name: str) -> bool:
    """Whether somebody who writes this means a model, not a file of data."""
    path = Path(name).expanduser()
    if path.is_dir():
        return (path / "config.json").exists() or (path / "adapter_config.json").exists()
    return path.suffix == ".gguf" or (name.count("/") == 1 and path.suffix not in DATA and not path.parent.exists())


def _trials(run: Run, place: str, every: bool) -> Iterator["Fact"]:
    """What is found out by loading a model, and by measuring it."""
    import torch
    from transformers import AutoModelForCausalLM

    from assent.models.inspection import Fact, is_reward, measured, tried
    from assent.models.load import load_policy, load_reward

    reward = is_reward(place)
    load = load_reward if reward else load_policy
    # the arithmetic is compared in float32: in bfloat16 unlikely tokens move by a nat
    language = load(run.setup.model, torch.float32 if every else run.dtype, run.device, run.rendering)
    yield from tried(language)
    if every and not reward:
        plain: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        plain.to(run.device).eval()
        yield from measured(language, plain)
        yield Fact("draws", *_same_draws(language, plain))


def _same_draws(language: "LoadedModel", plain: Any) -> tuple[str, bool]:
    """Whether the likeliest tokens behind a prompt are those of transformers' own `generate`."""
    import torch

    from assent.generation.local import Sampling, sample
    from assent.models.families import drawing

    codec, model = language.codec, language.model
    prompt = codec.prompt(Prompt(PROBE) if codec.tokenizer.chat_template else Prompt.plain("Name a bird:"))
    plain.generation_config = drawing(codec.stop_ids, DRAWN)
    ids = torch.tensor([prompt], device=model.device)
    own = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)[0, len(prompt) :].tolist()
    (drawn,) = sample(model, [prompt], 1, Sampling(0.0, DRAWN), codec.stop_ids, torch.Generator())
    same = list(drawn.ids) == own[: len(drawn.ids)]
    count = len(drawn.ids)
    return f"the {count} likeliest tokens are {'those' if same else 'NOT those'} of transformers' own generate", same


def _line(console: "Console", fact: "Fact") -> bool:
    """Print a fact; whether it is as it should be."""
    from rich.text import Text

    text = f"{fact.name:<18} {printable(fact.text)}"
    console.print(Text(text if fact.ok else f"{text}  FAIL", "" if fact.ok else "bold red"))
    return fact.ok


def _of_file(path: str, chat: bool) -> Iterator[Row]:
    reading = read(path)
    if reading.rejected:
        print(f"{path}: {len(reading.rejected)} of {reading.rows} rows cannot be used")
        for line in reasons(reading.rejected):
            print(f"    {line}")
    made = reading.examples
    if reading.format == "events":
        made = tuple(examples(reading.feedback, reading.queries, reading.prompts, reading.responses))
    if made:
        yield from _of_examples(made)
    elif reading.prompts:
        yield from _of_prompts(reading.prompts, chat)
    else:
        raise AssentError(f"no row of {path} can be used as {reading.format}")


def _of_run(run: Run) -> Iterator[Row]:
    store = run.store
    if made := examples(store.feedback(), store.tasks(), store.prompts(), store.responses()):
        yield from _of_examples(made)
        return
    prompts = {prompt.id: prompt for prompt in store.prompts()}
    answered = (
        Row(f"answer of {response.policy}", prompts[response.prompt], response.completion)
        for response in store.responses()
    )
    first = next(answered, None)
    yield from _of_prompts(prompts.values(), False) if first is None else chain([first], answered)


def _of_examples(made: Iterable[Example]) -> Iterator[Row]:
    for number, example in enumerate(made, 1):
        match example:
            case Preference():
                yield Row(f"{number} chosen", example.prompt, example.chosen)
                yield Row(f"{number} rejected", example.prompt, example.rejected)
            case RankedCompletions():
                for rank, tier in enumerate(example.tiers, 1):
                    for completion in tier:
                        yield Row(f"{number} ranked {rank}", example.prompt, completion)
            case ScoredCompletion():
                yield Row(f"{number} labelled {example.value:g}", example.prompt, example.completion)
            case SFTExample():
                yield Row(f"{number} demonstration", example.prompt, example.completion)


def _of_prompts(prompts: Iterable[Prompt], chat: bool) -> Iterator[Row]:
    for number, prompt in enumerate(prompts, 1):
        asked = Prompt.ask(prompt.text) if chat and prompt.is_plain else prompt
        yield Row(f"{number} prompt", asked, None)


def _counts(prompt: int, completion: int, added: int, row: Row) -> str:
    said = f"prompt 0-{prompt - 1} ({_tokens(prompt)})"
    if row.completion is None:
        return f"{said}, not answered"
    if not completion:
        return f"{said}, trains nothing: the answer is empty and was cut"
    said += f", trained {prompt}-{prompt + completion - 1} ({_tokens(completion)})"
    said += "" if row.completion.finished else ", cut before its end"
    return said + (f"; {_tokens(added)} after the end, part of nothing" if added else "")


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _tell(console: "Console", name: str, point: Point) -> None:
    from rich.text import Text

    word, style = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("   ?", "yellow")}[point.ok]
    console.print(Text.assemble(f"{name} ", (word, style), f"  {printable(point.detail)}"))


def _piece(tokenizer: "PreTrainedTokenizerBase", token: int) -> str:
    """The text of one token, with the space that SentencePiece writes as U+2581 and drops when it decodes."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return piece.replace("\u2581", " ") if "\u2581" in piece else str(tokenizer.decode([token]))
