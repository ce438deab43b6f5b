"""Read a file of prompts, demonstrations, comparisons or labels into the run; nothing is lost."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from assent.errors import AssentError
from assent.files import write_atomically
from assent.preferences.convert import split
from assent.records import Imitation, Label, Preference, Prompt, Ranked, Rejected
from assent.store.database import Counts
from assent.store.exchange import Reading, read
from assent.store.runs import Run

REASONS = 8
"""Reasons that are shown; the file of rejected rows has them all."""
PLACES = 3
"""Rows that are named for each reason."""
KINDS = ((Preference, "preferences"), (Ranked, "rankings"), (Label, "labels"), (Imitation, "demonstrations"))


@dataclass(frozen=True)
class Import:
    """Read a file into the run's store; a second time changes nothing."""

    tool: ClassVar[bool] = True

    file: str = ""
    """What to read: JSON lines or one JSON array, gzipped (.gz) or not."""
    format: str = "auto"
    """hh-rlhf, preference, preference-implicit, unpaired, prompt-completion, language-modelling,
    prompt-only or events; auto tells it from the first rows."""
    mode: str = ""
    """Mode of use (grounded, knowledge, creative) of every prompt for which the file names none."""
    chat: bool = True
    """Of a file of prompts alone: put plain text to a chat model as a user's turn; false: text to be continued."""

    def __call__(self, run: Run, key: str) -> None:
        reading = self._prepared(self._read)
        kept = run.folder / f"rejected-{Path(self.file.removesuffix('.gz')).stem}.jsonl"
        if reading.rejected:
            keep(reading.rejected, kept)
        store = run.store
        new = Counts(
            store.add_prompts(reading.prompts),
            store.add_responses(reading.responses),
            store.add_queries(reading.queries),
            store.add_feedback(reading.feedback),
        )
        told = " (detected)" if self.format == "auto" else ""
        print(
            f"{self.file}: {reading.rows - len(reading.rejected)} of {reading.rows} rows read as {reading.format}{told}"
        )
        if reading.rejected:
            print(f"  {len(reading.rejected)} rejected, kept in {kept}:")
            for line in reasons(reading.rejected):
                print(f"    {line}")
        if not reading.prompts:
            raise AssentError(
                f"no row of {self.file} can be used as {reading.format}: mend it, or name another --format"
            )
        print(f"  {self._holds(reading)}")
        found = ", ".join(f"{count} {name}" for name, count in zip(Counts._fields, new, strict=True) if count)
        print(f"  new in {run.folder}: {found}" if found else f"  nothing was new: {run.folder} has it all")
        if self.mode and new.prompts < len(reading.prompts):
            print(f"  {len(reading.prompts) - new.prompts} prompts were known: their mode stays as it was first told")
        if reading.format == "prompt-only":
            sides = split(reading.prompts, run.setup.held_out)
            print(
                f"  {len(sides.train)} to train on, {len(sides.held_out)} held out; "
                f"have them answered: assent generate --run {run.folder}"
            )

    def check(self) -> None:
        """Refuse what cannot be read, before a run folder is made for it.

        Raises:
            AssentError: no file, or nothing in it that could be told.
        """
        _ = self._read

    @cached_property
    def _read(self) -> Reading:
        if not self.file:
            raise AssentError("name the file to read: assent import FILE --run FOLDER")
        return read(self.file, self.format)

    def _prepared(self, reading: Reading) -> Reading:
        prompts = [replace(prompt, mode=prompt.mode or self.mode) for prompt in reading.prompts]
        if self.chat and reading.format == "prompt-only":
            prompts = [Prompt.ask(p.text, p.mode, p.source) if p.messages[-1].role == "text" else p for p in prompts]
        return replace(reading, prompts=tuple(prompts))

    def _holds(self, reading: Reading) -> str:
        """What a file says, in a few words."""
        if reading.format == "events":
            counts = (reading.prompts, reading.responses, reading.queries, reading.feedback)
            return ", ".join(f"{len(found)} {name}" for name, found in zip(Counts._fields, counts, strict=True))
        examples = [(sum(isinstance(e, kind) for e in reading.examples), name) for kind, name in KINDS]
        found = [f"{count} {name}" for count, name in examples if count]
        return (
            f"{found[0]} about {len(reading.prompts)} prompts" if found else f"{len(reading.prompts)} different prompts"
        )


def keep(rejected: Iterable[Rejected], path: Path) -> None:
    """Add rejected rows to a file of JSON lines, each once: files of the same name share it and lose nothing."""
    lines = dict.fromkeys(path.read_text(encoding="utf-8").splitlines() if path.exists() else ())
    rows = ({"where": row.where, "reason": row.reason, "row": row.row} for row in rejected)
    lines.update(dict.fromkeys(json.dumps(row) for row in rows))
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def reasons(rejected: Iterable[Rejected]) -> list[str]:
    """A line for each reason, the most frequent first: how many rows, why, and where the first stand."""
    places: dict[str, list[str]] = {}
    for row in rejected:
        places.setdefault(row.reason, []).append(row.where)
    ordered = sorted(places.items(), key=lambda item: -len(item[1]))
    lines = []
    for reason, where in ordered[:REASONS]:
        named = ", ".join(where[:PLACES]) + (", ..." if len(where) > PLACES else "")
        lines.append(f"{len(where)}  {printable(reason)[:200]}: {printable(named)}")
    if rest := sum(len(where) for _, where in ordered[REASONS:]):
        lines.append(f"{rest}  for {len(ordered) - REASONS} other reasons")
    return lines


def printable(text: str) -> str:
    """Text of strangers, with what could upset a terminal spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
