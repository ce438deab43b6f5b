"""Write the run's feedback to a file that other tools read; what is left out is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from assent.errors import AssentError, did_you_mean
from assent.preferences.convert import about, examples, split
from assent.records import Example, Preference, Prompt, Purpose, Ranked
from assent.stages.import_ import KINDS, reasons
from assent.store.exchange import FORMATS, write
from assent.store.runs import Run

Thing = TypeVar("Thing", Prompt, Example)


@dataclass(frozen=True)
class Export:
    """Write the run's feedback to a file."""

    tool: ClassVar[bool] = True
    reads: ClassVar[bool] = True

    file: str = ""
    """Where to write JSON lines; a name that ends in .gz is gzipped."""
    format: str = "preference"
    """preference, preference-implicit, hh-rlhf, ranking, rating, unpaired, prompt-completion, language-modelling,
    prompt-only or events."""
    purpose: Purpose = "train"
    """Whose answers: those that were asked for to train, to evaluate, or as gold; events and prompts come whole."""
    split: Literal["all", "train", "held-out"] = "all"
    """Which side of the run's prompts."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __call__(self, run: Run, key: str) -> None:
        if not self.file:
            raise AssentError("name the file to write: assent export FILE --run FOLDER --format preference")
        if self.format not in (*FORMATS, "events"):
            raise AssentError(f"no format '{self.format}'{did_you_mean(self.format, (*FORMATS, 'events'))}")
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
            print(f"{path}: {write(run.store, path, 'events').rows} rows written as events, the whole store")
            return
        things = self._prompts(run) if self.format == "prompt-only" else self._examples(run)
        self._refuse_nothing(run, things)
        written = write(things, path, self.format)
        print(
            f"{path}: {written.rows} rows written as {self.format}, of {len(things)} in {run.folder}{_side(self.split)}"
        )
        if written.left_out:
            print(f"  {len(written.left_out)} left out:")
            for line in reasons(written.left_out):
                print(f"    {line}")
        if not written.rows:
            path.unlink()
            raise AssentError(f"nothing of {run.folder} can be written as {self.format}: {path} is not there")

    def _prompts(self, run: Run) -> list[Prompt]:
        return self._kept(run, [(prompt, prompt) for prompt in run.store.prompts()])

    def _examples(self, run: Run) -> list[Example]:
        store = run.store
        made = examples(store.feedback(), store.queries(), store.prompts(), store.responses(), purpose=self.purpose)
        if FORMATS[self.format].holds is Preference:
            made = [e for one in made for e in (one.preferences if isinstance(one, Ranked) else (one,))]
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
            fits = [n for n, format in FORMATS.items() if any(isinstance(thing, format.holds) for thing in things)]
            raise AssentError(
                f"{self.format} cannot hold what {run.folder} has{side} ({has}): name --format {' or '.join(fits)}"
            )


def _side(split: str) -> str:
    return "" if split == "all" else f" on the {split} side"
