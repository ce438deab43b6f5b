"""Export the run's feedback to a file for other tools, and name what the format cannot hold."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from assent.errors import AssentError, did_you_mean
from assent.feedback.demonstration import Demonstration
from assent.formats import TaskWithJudgements
from assent.formats.files.exporting import iter_tasks, write_file
from assent.formats.files.results import ExportResult
from assent.formats.files.sniffing import FORMATS
from assent.preferences.convert import load_examples, prompt_for_split
from assent.protocols import Tool
from assent.records import Example, Feedback, Preference, Prompt, Purpose, RankedCompletions
from assent.run import Run
from assent.split import split
from assent.tools.output.printing import EXAMPLE_NAMES, format_reasons, with_progress

Record = TypeVar("Record", Prompt, Example)


@dataclass(frozen=True)
class Export(Tool):
    """Write the run's feedback to a file."""

    positional: ClassVar[str] = "file"

    file: str = ""
    """The file to write; gzipped if its name ends in .gz."""
    format: str = "preference"
    """preference, preference-implicit, hh-rlhf, ranking, rating, unpaired, prompt-completion, language-modelling,
    prompt-only, prompt-responses, events, label-studio, argilla, csv, openai-preference or lmarena."""
    purpose: Purpose = "train"
    """Purpose of the tasks to export: train, evaluate or gold. Events and prompts are exported whole."""
    split: Literal["all", "train", "held-out"] = "all"
    """Side of the run's prompts."""
    overwrite: bool = False
    """Replace an existing file."""

    def __call__(self, run: Run, key: str) -> None:
        path = self._check_settings()
        if self.format == "events":
            self._export_events(run, key, path)
        elif TaskWithJudgements in FORMATS[self.format].record_types:
            self._export_tasks(run, key, path)
        else:
            records = self._prompts(run) if self.format == "prompt-only" else self._examples(run)
            self._require_records(run, records)
            result = write_file(records, path, self.format, _progress(key, len(records)))
            self._print_result(run, path, result, str(len(records)))

    def _check_settings(self) -> Path:
        if not self.file:
            raise AssentError("name the file to write: assent export FILE --run FOLDER --format preference")
        if self.format not in FORMATS:
            raise AssentError(f"no format '{self.format}'{did_you_mean(self.format, FORMATS)}")
        path = Path(self.file)
        if path.is_dir():
            raise AssentError(f"{path} is a folder: name a file in it")
        if path.exists() and not self.overwrite:
            raise AssentError(f"{path} exists: name another file, or replace it with --overwrite")
        if self.format in ("events", "prompt-only") and self.purpose != "train":
            raise AssentError(f"--purpose does not apply to {self.format}: leave it out")
        if self.format == "events" and self.split != "all":
            raise AssentError("--split does not apply to events, which are the whole store: leave it out")
        return path

    def _export_events(self, run: Run, key: str, path: Path) -> None:
        num_records = sum(run.store.counts())
        if not num_records:
            raise AssentError(f"{run.folder} holds nothing to export")
        result = write_file(run.store, path, "events", _progress(key, num_records))
        print(f"{path}: {result.num_rows} rows written as events, the whole store")

    def _export_tasks(self, run: Run, key: str, path: Path) -> None:
        """Write tasks with their feedback one by one, without holding them in memory."""
        counts: Counter[str] = Counter()

        def selected_tasks() -> Iterator[TaskWithJudgements]:
            for record in iter_tasks(run.store, self.purpose):
                if selected := self._select_side(run, record):
                    counts.update({"tasks": 1, "judgements": len(selected.feedback)})
                    yield selected

        tasks = selected_tasks()
        if (first := next(tasks, None)) is None:
            side = _side_suffix(self.split)
            raise AssentError(f"{run.folder} holds no tasks with purpose '{self.purpose}'{side} to export")
        num_tasks = sum(1 for _ in run.store.tasks(self.purpose))
        result = write_file(chain([first], tasks), path, self.format, _progress(key, num_tasks))
        self._print_result(run, path, result, f"{counts['tasks']} tasks with {counts['judgements']} judgements")

    def _print_result(self, run: Run, path: Path, result: ExportResult, total: str) -> None:
        side = _side_suffix(self.split)
        print(f"{path}: {result.num_rows} rows written as {self.format}, of {total} in {run.folder}{side}")
        if result.skipped:
            print(f"  {len(result.skipped)} skipped:")
            for line in format_reasons(result.skipped):
                print(f"    {line}")
        if not result.num_rows:
            path.unlink()
            raise AssentError(f"{self.format} can hold nothing of {run.folder}: {path} was not written")

    def _select_side(self, run: Run, record: TaskWithJudgements) -> TaskWithJudgements | None:
        """Return a task with its feedback on the side; a demonstration without a prompt is split by its own text."""
        if self.split == "all":
            return record
        has_prompt = any(message.content for message in record.prompt.messages)
        wants_held_out = self.split == "held-out"
        events: list[Feedback] = []
        for event in record.feedback:
            prompt = record.prompt
            if isinstance(event.judgement, Demonstration) and not has_prompt:
                prompt = Prompt.plain(event.judgement.text)
            if _is_held_out(prompt, run) == wants_held_out:
                events.append(event)
        if not record.feedback and _is_held_out(record.prompt, run) == wants_held_out:
            return record
        return record._replace(feedback=tuple(events)) if events else None

    def _prompts(self, run: Run) -> list[Prompt]:
        return self._on_side(run, [(prompt, prompt) for prompt in run.store.prompts()])

    def _examples(self, run: Run) -> list[Example]:
        examples: Iterable[Example] = load_examples(run.store, purpose=self.purpose)
        if FORMATS[self.format].record_types == (Preference,):
            examples = chain.from_iterable(_as_preferences(example) for example in examples)
        return self._on_side(run, [(example, prompt_for_split(example)) for example in examples])

    def _on_side(self, run: Run, records: list[tuple[Record, Prompt]]) -> list[Record]:
        sides = split((prompt for _, prompt in records), run.setup.held_out)
        ids = {"all": sides.train | sides.held_out, "train": sides.train, "held-out": sides.held_out}[self.split]
        return [record for record, prompt in records if prompt.id in ids]

    def _require_records(self, run: Run, records: list[Prompt] | list[Example]) -> None:
        side = _side_suffix(self.split)
        if not records:
            content = "prompts" if self.format == "prompt-only" else f"feedback with purpose '{self.purpose}'"
            raise AssentError(f"{run.folder} holds no {content}{side} to export")
        if any(isinstance(record, FORMATS[self.format].record_types) for record in records):
            return
        content = ", ".join(name for kind, name in EXAMPLE_NAMES if any(isinstance(record, kind) for record in records))
        suitable = [
            name
            for name, reader in FORMATS.items()
            if not reader.lossless and any(isinstance(record, reader.record_types) for record in records)
        ]
        raise AssentError(
            f"{self.format} cannot hold what {run.folder} has{side} ({content}): name --format {' or '.join(suitable)}"
        )


def _is_held_out(prompt: Prompt, run: Run) -> bool:
    return bool(split([prompt], run.setup.held_out).held_out)


def _as_preferences(example: Example) -> Iterable[Example]:
    return example.preferences if isinstance(example, RankedCompletions) else (example,)


def _progress(name: str, total: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    return lambda items: with_progress(items, name, total, lambda _: 1)


def _side_suffix(side: str) -> str:
    return "" if side == "all" else f" on the {side} side"
