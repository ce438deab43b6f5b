"""Summarise an import: rows, kinds of judgement, new records."""

from collections import Counter
from dataclasses import dataclass, field

from assent.formats import Format, TaskWithJudgements
from assent.formats.files.results import ImportResult
from assent.records import Prompt, SkippedRow
from assent.registry import name_of
from assent.split import split
from assent.store.database import Counts
from assent.tools.output.printing import EXAMPLE_NAMES


@dataclass
class ImportSummary:
    """The numbers and ids of the chunks so far; their contents are in the store."""

    reader: Format
    held_out: float
    num_rows: int = 0
    num_used: int = 0
    num_held_out: int = 0
    """Prompts on the held-out side."""
    read: Counts = Counts(0, 0, 0, 0)
    new: Counts = Counts(0, 0, 0, 0)
    kinds: Counter[str] = field(default_factory=Counter)
    prompt_ids: set[str] = field(default_factory=set)
    sources: dict[str, str] = field(default_factory=dict)
    """What each annotator is."""
    skipped: list[SkippedRow] = field(default_factory=list)
    """Without the text of the rows."""
    copies: Counter[str] = field(default_factory=Counter)
    """Columns that repeat a response."""
    remarks: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    open_tasks: Counter[str] = field(default_factory=Counter)
    """Tasks without a judgement, by kind."""

    @property
    def holds_tasks(self) -> bool:
        return TaskWithJudgements in self.reader.record_types

    @property
    def holds_only_prompts(self) -> bool:
        return self.reader.record_types == (Prompt,)

    def add(self, chunk: ImportResult, new: Counts) -> None:
        """Count a chunk, of which `new` records were new in the store."""
        self.num_rows += chunk.num_rows
        self.num_used += chunk.num_used
        self.skipped += (SkippedRow(row.location, row.reason) for row in chunk.skipped)
        sizes = Counts(len(chunk.prompts), len(chunk.responses), len(chunk.tasks), len(chunk.feedback))
        self.read = Counts(*map(sum, zip(self.read, sizes, strict=True)))
        self.new = Counts(*map(sum, zip(self.new, new, strict=True)))
        prompts = [prompt for prompt in chunk.prompts if prompt.id not in self.prompt_ids]
        self.num_held_out += len(split(prompts, self.held_out).held_out)
        self.prompt_ids.update(prompt.id for prompt in prompts)
        self.categories.update(prompt.category for prompt in prompts if prompt.category)
        self.remarks.update(chunk.remarks)
        self.copies.update(chunk.copies)
        judged = {event.task for event in chunk.feedback}
        self.open_tasks.update(task.kind for task in chunk.tasks if task.id not in judged)
        self.sources.update((event.annotator, event.source) for event in chunk.feedback)
        if self.holds_tasks:
            self.kinds.update(f"{name_of(event.judgement)}s" for event in chunk.feedback)
            return
        self.kinds.update(
            name for kind, name in EXAMPLE_NAMES for example in chunk.examples if isinstance(example, kind)
        )
        # Critiques, and judgements to evaluate on, are no training examples.
        trained = {event_id for example in chunk.examples for event_id in example.feedback_ids}
        purposes = {task.id: task.purpose for task in chunk.tasks}
        self.kinds.update(
            f"{name_of(event.judgement)}s{' for evaluation' * (purposes.get(event.task) == 'evaluate')}"
            for event in chunk.feedback
            if event.id not in trained and not self.reader.lossless
        )

    @property
    def content(self) -> str:
        """The records of the file in one line."""
        if self.reader.lossless:
            return format_counts(self.read, only_positive=False)
        if not self.holds_tasks:
            kinds = ", ".join(f"{count} {name}" for name, count in self.kinds.items())
            return (
                f"{kinds} on {len(self.prompt_ids)} prompts" if kinds else f"{len(self.prompt_ids)} different prompts"
            )
        kinds = ", ".join(f"{count} {name}" for name, count in self.kinds.most_common()) or "tasks without a judgement"
        annotators = f" by {len(self.sources)} annotators" if self.sources else ""
        return f"{kinds}{annotators} on {len(self.prompt_ids)} prompts"


def format_counts(counts: Counts, only_positive: bool = True) -> str:
    """Return counts of records in words."""
    named = zip(Counts._fields, counts, strict=True)
    return ", ".join(f"{count} {name}" for name, count in named if count or not only_positive)
