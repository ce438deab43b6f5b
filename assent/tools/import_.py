"""Read a file of prompts, demonstrations, comparisons or labels into the run; nothing is lost."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from assent.errors import AssentError, warn
from assent.files import no_room
from assent.formats import TaskWithJudgements
from assent.formats.files.exchange import FORMATS, Reading, Source, count_of, look, put, stream
from assent.protocols import Tool
from assent.records import Preference, Prompt, RankedCompletions, ScoredCompletion, SFTExample, SkippedRow
from assent.registry import name_of
from assent.run import Run, Setup
from assent.split import split
from assent.store.database import Counts
from assent.training.logging import ProgressBar

if TYPE_CHECKING:
    from assent.models.tokenizer import ChatTokenizer

Item = TypeVar("Item")

REASONS = 8
"""Reasons that are shown; the file of rejected rows has them all."""
PLACES = 3
"""Rows that are named for each reason."""
PATIENCE = 1.0
"""Seconds of silence."""
MODES = ("grounded", "knowledge", "creative")
"""Other words are kept too, and named: a column may mean something else."""
KINDS = (
    (Preference, "preferences"),
    (RankedCompletions, "rankings"),
    (ScoredCompletion, "labels"),
    (SFTExample, "demonstrations"),
)


@dataclass(frozen=True)
class Import(Tool):
    """Read a file into the run's store; a second time changes nothing."""

    needs_run: ClassVar[bool] = False
    positional: ClassVar[str] = "file"
    file: str = ""
    """What to read: JSON lines, a JSON array, a table (.csv, .tsv), Parquet, Arrow, or a folder of them as `datasets`
    saves it; of several splits train, unless FILE/SPLIT names another."""
    format: str = "auto"
    """hh-rlhf, preference, preference-implicit, ranking, rating, unpaired, prompt-completion, language-modelling,
    prompt-only, prompt-responses, sharegpt, alpaca, events, label-studio, argilla, csv, openai-preference or lmarena;
    auto tells it from the first rows."""
    scale: str = ""
    """Of label-studio, argilla and csv: the lowest and the highest rating, such as 1-5, brought to 1-7; empty: 1-7."""
    encoding: str = "utf-8"
    """Of the file, such as windows-1252 or utf-16."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out, such as mode,score; messages.KEY leaves out a key of messages."""
    mode: str = ""
    """Mode of use (grounded, knowledge, creative) of every prompt for which the file names none."""
    chat: bool = True
    """Of a file of prompts alone: put plain text to a chat model as a user's turn; false: text to be continued."""

    def __call__(self, run: Run, key: str) -> None:
        kept = run.folder / f"rejected-{Path(self.file.removesuffix('.gz')).stem}.jsonl"
        source, tally = self._source, _Tally(held_out=run.setup.held_out)
        codec = _codec(run)
        chunks = stream(source, refusal=None if codec is None else codec.refusal)
        readings = progress(chunks, key, source.rows, lambda reading: reading.rows)
        chat = self.chat and (codec is None or codec.tokenizer.chat_template is not None)
        for reading in (self._prepared(reading, chat) for reading in readings):
            if reading.rejected:
                keep(reading.rejected, kept)
            tally.count(reading, put(reading, run.store))
        told = " (detected)" if self.format == "auto" else ""
        print(f"{self.file}: {tally.used} of {tally.rows} rows read as {source.format}{told}")
        if split := str(source.place):
            print(f"  {split}")
        if source.unread:
            keys = ", ".join(f"{printable(key)} ({count_of(rows)})" for key, rows in source.unread.items())
            print(f"  not read: {keys}")
        for mode, count in tally.modes.items():
            if mode not in (*MODES, self.mode):
                print(
                    f"  mode {printable(mode)} of {count} prompts: if it is no mode of use, --ignore mode leaves it out"
                )
        for remark, count in tally.remarks.items():
            print(f"  {count} answer{'' if count == 1 else 's'}: {remark}")
        if tally.rejected:
            print(f"  {len(tally.rejected)} rejected, kept in {kept}:")
            for line in reasons(tally.rejected):
                print(f"    {line}")
        if not tally.prompts:
            raise AssentError(
                f"no row of {self.file} can be used as {source.format}: mend it, or name another --format"
            )
        print(f"  {tally.holds(source)}")
        found = ", ".join(f"{count} {name}" for name, count in zip(Counts._fields, tally.new, strict=True) if count)
        print(f"  new in {run.folder}: {found}" if found else f"  nothing was new: {run.folder} has it all")
        if self.mode and tally.new.prompts < len(tally.prompts):
            known = len(tally.prompts)
            print(f"  {known - tally.new.prompts} prompts were known: their mode stays as it was first told")
        if source.made.holds == (Prompt,):
            print(
                f"  {len(tally.prompts) - tally.out} to train on, {tally.out} held out; "
                f"have them answered: assent generate --run {run.folder}"
            )
        for kind, count in tally.waiting.items() if not source.made.whole else ():
            flag = "" if kind == "comparison" else f" --kind {kind}"
            print(
                f"  {count} {kind}s without an answer; "
                f"have them answered: assent label --annotator human{flag} --run {run.folder}"
            )

    def check(self) -> None:
        """Refuse what cannot be read, before a run folder is made for it.

        Raises:
            AssentError: no file, or nothing in it that could be told.
        """
        _ = self._source

    @cached_property
    def _source(self) -> Source:
        if not self.file:
            raise AssentError("name the file to read: assent import FILE --run FOLDER")
        return look(self.file, self.format, self.scale, self.encoding, self.ignore)

    def _prepared(self, reading: Reading, chat: bool) -> Reading:
        prompts = [replace(prompt, category=prompt.category or self.mode) for prompt in reading.prompts]
        if chat and FORMATS[reading.format].holds == (Prompt,):
            prompts = [Prompt.ask(p.text, p.category, p.source) if p.is_plain else p for p in prompts]
        return replace(reading, prompts=tuple(prompts))


def _codec(run: Run) -> "ChatTokenizer | None":
    """The codec of the run's model, by which rows are refused that it cannot render; None: no model was named."""
    if run.setup.model == Setup.model:
        return None
    from assent.models.tokenizer import read_codec

    try:
        return read_codec(run.setup.model, run.rendering)
    except AssentError as error:
        warn(f"rows are not tried on the chat template of the run's model: {error}")
        return None


@dataclass
class _Tally:
    """What was read so far, in numbers and ids; what it says is in the store."""

    held_out: float
    rows: int = 0
    used: int = 0
    out: int = 0
    """Prompts that are held out."""
    read: Counts = Counts(0, 0, 0, 0)
    new: Counts = Counts(0, 0, 0, 0)
    kinds: Counter[str] = field(default_factory=Counter)
    prompts: set[str] = field(default_factory=set)
    annotators: set[str] = field(default_factory=set)
    rejected: list[SkippedRow] = field(default_factory=list)
    """Without the rows themselves."""
    remarks: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    """Questions without an answer, by kind."""

    def count(self, reading: Reading, new: Counts) -> None:
        self.rows += reading.rows
        self.used += reading.used
        self.rejected += (SkippedRow(row.where, row.reason) for row in reading.rejected)
        found = (reading.prompts, reading.responses, reading.queries, reading.feedback)
        self.read = Counts(*(before + len(more) for before, more in zip(self.read, found, strict=True)))
        self.new = Counts(*map(sum, zip(self.new, new, strict=True)))
        fresh = [prompt for prompt in reading.prompts if prompt.id not in self.prompts]
        self.out += len(split(fresh, self.held_out).held_out)
        self.prompts.update(prompt.id for prompt in fresh)
        self.modes.update(prompt.category for prompt in fresh if prompt.category)
        self.remarks.update(reading.remarks)
        answered = {event.task for event in reading.feedback}
        self.waiting.update(query.kind for query in reading.queries if query.id not in answered)
        self.annotators.update(event.annotator for event in reading.feedback)
        if TaskWithJudgements in FORMATS[reading.format].holds:
            self.kinds.update(f"{name_of(event.judgement)}s" for event in reading.feedback)
        else:
            self.kinds.update(name for kind, name in KINDS for e in reading.examples if isinstance(e, kind))

    def holds(self, source: Source) -> str:
        """What a file says, in a few words."""
        if source.made.whole:
            return ", ".join(f"{count} {name}" for name, count in zip(Counts._fields, self.read, strict=True))
        if TaskWithJudgements not in source.made.holds:
            found = ", ".join(f"{count} {name}" for name, count in self.kinds.items())
            return f"{found} about {len(self.prompts)} prompts" if found else f"{len(self.prompts)} different prompts"
        said = ", ".join(f"{count} {name}" for name, count in self.kinds.most_common()) or "questions without an answer"
        by = f" by {len(self.annotators)} annotators" if self.annotators else ""
        return f"{said}{by} about {len(self.prompts)} prompts"


def progress(items: Iterable[Item], name: str, total: int, size: Callable[[Item], int]) -> Iterator[Item]:
    """Pass items on, and show how far they are once that takes a while."""
    began, done, bar = time.monotonic(), 0, None
    with ExitStack() as stack:
        for item in items:
            yield item
            done += size(item)
            if bar is not None:
                bar.advance(size(item))
            elif time.monotonic() - began > PATIENCE:
                bar = stack.enter_context(ProgressBar(name, total, done))


def keep(rejected: Iterable[SkippedRow], path: Path) -> None:
    """Add rejected rows to a file of JSON lines, each once: files of the same name share it and lose nothing.

    Raises:
        AssentError: the disk is full, or the file cannot be written.
    """
    try:
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            there = {hash(line.removesuffix("\n")) for line in file}
            for row in rejected:
                line = json.dumps({"where": row.where, "reason": row.reason, "row": row.row})
                if hash(line) not in there:
                    file.write(line + "\n")
                there.add(hash(line))
    except OSError as error:
        raise no_room(error, path) from None


def reasons(rejected: Iterable[SkippedRow]) -> list[str]:
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
