"""Write the run's feedback to a file that other tools read; what is left out is named."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from assent.errors import AssentError, did_you_mean
from assent.feedback.demonstration import Demonstration
from assent.formats import TaskWithJudgements
from assent.formats.files.exchange import FORMATS, Written, questions, write
from assent.preferences.convert import about, examples
from assent.protocols import Tool
from assent.records import Example, Feedback, Preference, Prompt, Purpose, RankedCompletions
from assent.run import Run
from assent.split import split
from assent.tools.import_ import KINDS, progress, reasons

Thing = TypeVar("Thing", Prompt, Example)


@dataclass(frozen=True)
class Export(Tool):
    """Write the run's feedback to a file."""

    positional: ClassVar[str] = "file"

    file: str = ""
    """Where to write; a name that ends in .gz is gzipped."""
    format: str = "preference"
    """preference, preference-implicit, hh-rlhf, ranking, rating, unpaired, prompt-completion, language-modelling,
    prompt-only, prompt-responses, events, label-studio, argilla, csv, openai-preference or lmarena."""
    purpose: Purpose = "train"
    """Whose answers: those that were asked for to train, to evaluate, or as gold; events and prompts come whole."""
    split: Literal["all", "train", "held-out"] = "all"
    """Which side of the run's prompts."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __call__(self, run: Run, key: str) -> None:
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
            raise AssentError(f"{self.format} have no purpose: leave --purpose out")
        if self.format == "events":
            if self.split != "all":
                raise AssentError("events are the whole store: leave --split out")
            if not any(run.store.counts()):
                raise AssentError(f"{run.folder} holds nothing to export")
            rows = write(run.store, path, "events", _watch(key, sum(run.store.counts()))).rows
            print(f"{path}: {rows} rows written as events, the whole store")
            return
        if TaskWithJudgements in FORMATS[self.format].holds:
            self._write_questions(run, key, path)
            return
        things = self._prompts(run) if self.format == "prompt-only" else self._examples(run)
        self._refuse_nothing(run, things)
        written = write(things, path, self.format, _watch(key, len(things)))
        print(
            f"{path}: {written.rows} rows written as {self.format}, of {len(things)} in {run.folder}{_side(self.split)}"
        )
        self._tell(run, path, written)

    def _write_questions(self, run: Run, key: str, path: Path) -> None:
        """Questions with their answers go through one by one; none of them is held."""
        met: Counter[str] = Counter()

        def found() -> Iterator[TaskWithJudgements]:
            for each in questions(run.store, self.purpose):
                if kept := self._on_side(run, each):
                    met.update({"questions": 1, "answers": len(kept.answers)})
                    yield kept

        asked = found()
        if (first := next(asked, None)) is None:
            raise AssentError(
                f"{run.folder} holds no questions for purpose '{self.purpose}'{_side(self.split)} to export"
            )
        count = sum(1 for _ in run.store.tasks(self.purpose))
        written = write(chain([first], asked), path, self.format, _watch(key, count))
        said = f"{met['questions']} questions with {met['answers']} answers"
        print(f"{path}: {written.rows} rows written as {self.format}, of {said} in {run.folder}{_side(self.split)}")
        self._tell(run, path, written)

    def _tell(self, run: Run, path: Path, written: Written) -> None:
        if written.left_out:
            print(f"  {len(written.left_out)} left out:")
            for line in reasons(written.left_out):
                print(f"    {line}")
        if not written.rows:
            path.unlink()
            raise AssentError(f"nothing of {run.folder} can be written as {self.format}: {path} is not there")

    def _on_side(self, run: Run, asked: TaskWithJudgements) -> TaskWithJudgements | None:
        """A question and those of its answers that are on the side; bare text to imitate decides for itself."""
        if self.split == "all":
            return asked
        sides: dict[bool, list[Feedback]] = {True: [], False: []}
        for event in asked.answers:
            about_text = isinstance(event.judgement, Demonstration) and not any(
                m.content for m in asked.prompt.messages
            )
            decides = Prompt.plain(event.judgement.text) if about_text else asked.prompt  # type: ignore[attr-defined]
            sides[bool(split([decides], run.setup.held_out).held_out)].append(event)
        out = self.split == "held-out"
        if not asked.answers and bool(split([asked.prompt], run.setup.held_out).held_out) == out:
            return asked
        return asked._replace(answers=tuple(sides[out])) if sides[out] else None

    def _prompts(self, run: Run) -> list[Prompt]:
        return self._kept(run, [(prompt, prompt) for prompt in run.store.prompts()])

    def _examples(self, run: Run) -> list[Example]:
        store = run.store
        made = examples(store.feedback(), store.tasks(), store.prompts(), store.responses(), purpose=self.purpose)
        if FORMATS[self.format].holds == (Preference,):
            made = [e for one in made for e in (one.preferences if isinstance(one, RankedCompletions) else (one,))]
        return self._kept(run, [(example, about(example)) for example in made])

    def _kept(self, run: Run, things: list[tuple[Thing, Prompt]]) -> list[Thing]:
        sides = split((prompt for _, prompt in things), run.setup.held_out)
        kept = {"all": sides.train | sides.held_out, "train": sides.train, "held-out": sides.held_out}[self.split]
        return [thing for thing, prompt in things if prompt.id in kept]

    def _refuse_nothing(self, run: Run, things: list[Prompt] | list[Example]) -> None:
        side = _side(self.split)
        if not things:
            what = "prompts" if self.format == "prompt-only" else f"feedback for purpose '{self.purpose}'"
            raise AssentError(f"{run.folder} holds no {what}{side} to export")
        if not any(isinstance(thing, FORMATS[self.format].holds) for thing in things):
            has = ", ".join(name for kind, name in KINDS if any(isinstance(thing, kind) for thing in things))
            fits = [
                n for n, f in FORMATS.items() if not f.whole and any(isinstance(thing, f.holds) for thing in things)
            ]
            raise AssentError(
                f"{self.format} cannot hold what {run.folder} has{side} ({has}): name --format {' or '.join(fits)}"
            )


def _watch(name: str, total: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    return lambda items: progress(items, name, total, lambda _: 1)


def _side(split: str) -> str:
    return "" if split == "all" else f" on the {split} side"
