"""Inspect the tokens that are trained, a tokenizer, or a model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from assent.errors import AssentError
from assent.formats.files.importing import read_file
from assent.models.chat_template import PROBE, PROBE_COMPLETION
from assent.models.tokenizer import load_chat_tokenizer
from assent.models.tokenizer_checks import check_tokenizer
from assent.preferences.convert import load_examples, to_examples
from assent.protocols import Tool
from assent.records import Completion, Example, Preference, Prompt, RankedCompletions, ScoredCompletion, SFTExample
from assent.run import Run
from assent.tools.output.printing import format_reasons, printable
from assent.tools.output.tokens import InspectedExample, print_checks, print_example, print_fact

if TYPE_CHECKING:
    from rich.console import Console

    from assent.models.inspection import Fact
    from assent.models.load import LoadedModel

MAX_UNASKED_BYTES = 2_000_000_000
"""Bytes of weights up to which a model is loaded without --all."""
GENERATED_TOKENS = 16
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".gz", ".parquet", ".arrow")
"""Suffixes of data files; a hub id may have a dot too (Qwen/Qwen2.5-0.5B)."""
PLAIN_PROBE = "Name a bird:"


@dataclass(frozen=True)
class Inspect(Tool):
    """Show examples as tokens: the prompt, the trained tokens, the end of the completion."""

    needs_run: ClassVar[bool] = False
    locks_run: ClassVar[bool] = False
    positional: ClassVar[str] = "file"

    file: str = ""
    """A model, to show what it is and what it can be used for; or a file of examples or prompts, as --data."""
    data: str = ""
    """A file of examples or prompts; empty: the records of the run, or else a built-in conversation."""
    text: str = ""
    """A prompt to show instead."""
    completion: str = ""
    """The completion of that prompt."""
    n: int = 3
    """Number of examples to show."""
    ids: bool = False
    """Show the token ids too."""
    all: bool = False
    """Load the model, however large, and compare its forward pass and its completions with those of transformers."""

    def __call__(self, run: Run, key: str) -> None:
        from rich.console import Console

        self._check_settings()
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        if is_model(self.file):
            self._inspect_model(Run(replace(run.setup, model=self.file), run.recipe), console)
        else:
            self._inspect_tokenizer(run, console)

    def _check_settings(self) -> None:
        if self.n < 1:
            raise AssentError(f"--n must be 1 or more, got {self.n}")
        if self.file and self.data and self.file != self.data:
            raise AssentError(f"name one file, not '{self.file}' and '{self.data}'")
        if self.completion and not self.text:
            raise AssentError("--completion needs a prompt: give it with --text")
        if self.text and (self.data or self.file):
            raise AssentError("give a file or --text, not both")

    def _inspect_tokenizer(self, run: Run, console: "Console") -> None:
        tokenizer = load_chat_tokenizer(run.setup.model, run.rendering)
        has_template = tokenizer.tokenizer.chat_template is not None
        console.print(f"the tokenizer of {run.setup.model}")
        checks = check_tokenizer(tokenizer)
        failures = [
            f"({letter}) {check.name}" for letter, check in zip("abcde", checks, strict=True) if check.passed is False
        ]
        if all(check.passed is not False for check in checks[:2]):
            for example in islice(self._examples(run, has_template), self.n):
                console.print()
                try:
                    print_example(console, tokenizer, example, self.ids)
                except AssentError as error:
                    failures.append(example.title)
                    console.print(f"{printable(example.title)}: {printable(str(error))}")
        console.print()
        print_checks(console, checks)
        if failures:
            raise AssentError(f"the tokenizer of {run.setup.model} fails at {', '.join(failures)}: see above")

    def _inspect_model(self, run: Run, console: "Console") -> None:
        from assent.models.checkpoints import locate
        from assent.models.inspection import Fact, count_weights, describe_files

        model = run.setup.model
        tokenizer = load_chat_tokenizer(model, run.rendering)
        place = locate(model)
        weights = count_weights(place)
        for fact in describe_files(place, weights, tokenizer):
            print_fact(console, fact)
        checks = check_tokenizer(tokenizer)
        print_checks(console, checks)
        has_failed = any(check.passed is False for check in checks)
        if not has_failed and (self.all or (weights is not None and weights.num_bytes <= MAX_UNASKED_BYTES)):
            is_ok = [print_fact(console, fact) for fact in _load_and_compare(run, place, self.all)]
            has_failed = not all(is_ok)
        elif not has_failed:
            print_fact(console, Fact("read as", "not loaded, the model is large or not on this machine: use --all"))
        if has_failed:
            raise AssentError(f"{model} cannot be trained as it is: see above")

    def _examples(self, run: Run, as_chat: bool) -> Iterator[InspectedExample]:
        """Yield the examples of the command line, or else those of the run, or else a built-in one."""
        if self.text:
            prompt = Prompt.ask(self.text) if as_chat else Prompt.plain(self.text)
            return iter([InspectedExample("--text", prompt, Completion(self.completion) if self.completion else None)])
        if path := self.data or self.file:
            return _examples_of_file(path, as_chat)
        stored = _examples_of_run(run) if (run.folder / "feedback.db").exists() else iter(())
        probe = Prompt(PROBE) if as_chat else Prompt.plain(PLAIN_PROBE)
        first = next(stored, InspectedExample("built-in example", probe, Completion(PROBE_COMPLETION)))
        return chain([first], stored)


def is_model(name: str) -> bool:
    """Return whether a word of the command line names a model, not a data file."""
    path = Path(name).expanduser()
    if path.is_dir():
        return (path / "config.json").exists() or (path / "adapter_config.json").exists()
    is_hub_id = name.count("/") == 1 and path.suffix not in DATA_SUFFIXES and not path.parent.exists()
    return path.suffix == ".gguf" or is_hub_id


# Models


def _load_and_compare(run: Run, place: str, compare: bool) -> Iterator["Fact"]:
    """Load a model and yield facts about it; with `compare`, compare it with transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    from assent.models.inspection import Fact, compare_loaded, describe_loaded, is_reward
    from assent.models.load import load_policy, load_reward

    has_reward_head = is_reward(place)
    load = load_reward if has_reward_head else load_policy
    # Compared in float32: in bfloat16 the log-probabilities of unlikely tokens differ by a nat.
    model = load(run.setup.model, torch.float32 if compare else run.dtype, run.device, run.rendering)
    yield from describe_loaded(model)
    if compare and not has_reward_head:
        plain: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        plain.to(run.device).eval()
        yield from compare_loaded(model, plain)
        yield Fact("draws", *_compare_completions(model, plain))


def _compare_completions(model: "LoadedModel", plain: Any) -> tuple[str, bool]:
    """Compare the greedy completion of a prompt with that of transformers' own `generate`."""
    import torch

    from assent.generation.local import LocalGenerator
    from assent.generation.sampling import Sampling
    from assent.models.families import sampling_config

    tokenizer = model.chat_tokenizer
    has_template = tokenizer.tokenizer.chat_template is not None
    prompt_ids = tokenizer.encode_prompt(Prompt(PROBE) if has_template else Prompt.plain(PLAIN_PROBE))
    plain.generation_config = sampling_config(tokenizer.stop_ids, GENERATED_TOKENS)
    ids = torch.tensor([prompt_ids], device=model.model.device)
    generated = plain.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)
    expected = generated[0, len(prompt_ids) :].tolist()
    generator = LocalGenerator()
    generator.load(model)
    (completion,) = generator.generate([prompt_ids], 1, Sampling(0.0, GENERATED_TOKENS), seed=0)
    count = len(completion.token_ids)
    is_same = list(completion.token_ids) == expected[:count]
    verb = "are" if is_same else "are NOT"
    return f"the {count} greedy tokens {verb} those of transformers' own generate", is_same


# Examples


def _examples_of_file(path: str, as_chat: bool) -> Iterator[InspectedExample]:
    result = read_file(path)
    if result.skipped:
        print(f"{path}: {len(result.skipped)} of {result.num_rows} rows skipped")
        for line in format_reasons(result.skipped):
            print(f"    {line}")
    examples = result.examples
    if result.format == "events":
        examples = tuple(to_examples(result.feedback, result.tasks, result.prompts, result.responses))
    if examples:
        yield from _with_titles(examples)
    elif result.prompts:
        yield from _prompts_alone(result.prompts, as_chat)
    else:
        raise AssentError(f"no row of {path} is valid {result.format}")


def _examples_of_run(run: Run) -> Iterator[InspectedExample]:
    store = run.store
    if examples := load_examples(store):
        yield from _with_titles(examples)
        return
    prompts = {prompt.id: prompt for prompt in store.prompts()}
    responses = (
        InspectedExample(f"response of {response.policy}", prompts[response.prompt], response.completion)
        for response in store.responses()
    )
    first = next(responses, None)
    yield from _prompts_alone(prompts.values(), False) if first is None else chain([first], responses)


def _with_titles(examples: Iterable[Example]) -> Iterator[InspectedExample]:
    """Yield the completions of examples with a title each."""
    for number, example in enumerate(examples, 1):
        match example:
            case Preference():
                yield InspectedExample(f"{number} chosen", example.prompt, example.chosen)
                yield InspectedExample(f"{number} rejected", example.prompt, example.rejected)
            case RankedCompletions():
                for rank, tier in enumerate(example.tiers, 1):
                    for completion in tier:
                        yield InspectedExample(f"{number} ranked {rank}", example.prompt, completion)
            case ScoredCompletion():
                yield InspectedExample(f"{number} scored {example.value:g}", example.prompt, example.completion)
            case SFTExample():
                yield InspectedExample(f"{number} demonstration", example.prompt, example.completion)


def _prompts_alone(prompts: Iterable[Prompt], as_chat: bool) -> Iterator[InspectedExample]:
    for number, prompt in enumerate(prompts, 1):
        yield InspectedExample(f"{number} prompt", prompt.as_chat() if as_chat else prompt, None)
