"""Import a file of prompts, demonstrations, comparisons or ratings into the run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

from assent.errors import AssentError, did_you_mean, warn
from assent.formats.files.annotation import pseudonym
from assent.formats.files.builder import Attribution
from assent.formats.files.importing import insert, iter_chunks
from assent.formats.files.results import ImportResult, count_rows
from assent.formats.files.sniffing import DetectedFile, sniff
from assent.protocols import Tool
from assent.records import Source
from assent.run import Run, Setup
from assent.tools.output.import_summary import ImportSummary, format_counts
from assent.tools.output.preview import preview
from assent.tools.output.printing import append_skipped, format_reasons, printable, with_progress

if TYPE_CHECKING:
    from assent.models.tokenizer import ChatTokenizer

CATEGORIES = ("grounded", "knowledge", "creative")
"""Other categories are kept too, and printed: the column may mean something else."""

MAX_ANNOTATORS = 3
"""Annotators that are no humans, by name; the others are in the store."""


@dataclass(frozen=True)
class Import(Tool):
    """Read a file into the run's store; a second time changes nothing."""

    needs_run: ClassVar[bool] = False
    positional: ClassVar[str] = "file"
    file: str = ""
    """The data set to read: a file (JSON lines, a JSON array, .csv, .tsv, Parquet, Arrow), a folder of such files or of
    `datasets`, or hf://owner/name of the hub. Of several splits it reads train, unless FILE/SPLIT or
    hf://owner/name:SPLIT names another."""
    format: str = "auto"
    """hh-rlhf, preference, preference-implicit, ranking, rating, unpaired, prompt-completion, language-modelling,
    prompt-only, prompt-responses, sharegpt, alpaca, events, label-studio, argilla, csv, openai-preference, lmarena,
    ultrafeedback, helpsteer, saferlhf, oasst, prism, shp, summarize-feedback or webgpt; auto detects it from the first
    rows."""
    scale: str = ""
    """Scale of the ratings in label-studio, argilla and csv, such as 1-5; they are rescaled to 1-7. Empty: 1-7."""
    encoding: str = "utf-8"
    """Encoding of the file, such as windows-1252 or utf-16."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out, such as category,score; messages.KEY leaves out a key of messages."""
    category: str = ""
    """Category (grounded, knowledge, creative) of the prompts for which the file names none."""
    annotator: str = ""
    """Annotator of the judgements for which the file names none, such as ai:gpt-4. Empty: imported: and the file's
    name."""
    source: str = ""
    """What that annotator is: human, model, simulated or scorer (not trained on). Empty: model if its name begins with
    ai:, else human."""
    apply_chat_template: bool = True
    """For files of prompts alone: give plain text to a chat model as a user's turn; false: text to be continued."""

    def __call__(self, run: Run, key: str) -> None:
        skipped_path = run.folder / f"skipped-{Path(self.file.removesuffix('.gz')).stem}.jsonl"
        file = self._file
        summary = ImportSummary(file.reader, run.setup.held_out)
        tokenizer = _load_tokenizer(run)
        has_template = tokenizer is None or tokenizer.tokenizer.chat_template is not None
        as_chat = self.apply_chat_template and has_template and summary.holds_only_prompts
        self._print_reading(file, as_chat)
        for chunk in self._read_chunks(key, file, tokenizer, as_chat):
            if chunk.skipped:
                append_skipped(chunk.skipped, skipped_path)
            summary.add(chunk, insert(chunk, run.store))
        self._print_rows(file, summary, skipped_path)
        if not summary.prompt_ids:
            raise AssentError(
                f"no row of {self.file} is valid {file.format}: correct the file, or name another --format"
            )
        self._print_records(run, summary)
        self._print_annotators(summary)
        self._print_next_steps(run, summary)

    def check(self) -> None:
        """Check the file before a run folder is created for it.

        Raises:
            AssentError: there is no file, it cannot be read, or a setting has no such value.
        """
        if self.source not in ("", *get_args(Source)):
            suggestion = did_you_mean(self.source, get_args(Source))
            raise AssentError(f"no source '{self.source}'{suggestion}: human, model, simulated or scorer")
        _ = self._file

    @cached_property
    def _file(self) -> DetectedFile:
        if not self.file:
            raise AssentError("name the file to read: assent import FILE --run FOLDER")
        return sniff(self.file, self.format, self.scale, self.encoding, self.ignore)

    def _read_chunks(
        self, key: str, file: DetectedFile, tokenizer: "ChatTokenizer | None", as_chat: bool
    ) -> Iterator[ImportResult]:
        refuse = None if tokenizer is None else tokenizer.refusal_reason
        chunks = iter_chunks(file, refuse=refuse, attribution=self._attribution)
        for chunk in with_progress(chunks, key, file.num_rows, lambda chunk: chunk.num_rows):
            prompts = [replace(prompt, category=prompt.category or self.category) for prompt in chunk.prompts]
            yield replace(chunk, prompts=tuple(prompt.as_chat() if as_chat else prompt for prompt in prompts))

    @property
    def _attribution(self) -> Attribution:
        return Attribution(pseudonym(self.annotator), self.source)

    def _print_reading(self, file: DetectedFile, as_chat: bool) -> None:
        """Print how the first row is read, before anything is stored."""
        chunks = iter_chunks(file, 1, attribution=self._attribution)
        first = next((chunk for chunk in chunks if chunk.num_used), None)
        if first is not None:
            if as_chat:
                first = replace(first, prompts=tuple(prompt.as_chat() for prompt in first.prompts))
            print(f"{self.file}: the first row, read as {file.format}:")
            print("".join(f"    {line}\n" for line in preview(first)), end="", flush=True)

    def _print_rows(self, file: DetectedFile, summary: ImportSummary, skipped_path: Path) -> None:
        detected = " (detected)" if self.format == "auto" else ""
        print(f"{self.file}: {summary.num_used} of {summary.num_rows} rows read as {file.format}{detected}")
        if split := str(file.location):
            print(f"  {split}")
        kept, unread = file.meta_counts - summary.copies, file.unread_counts + summary.copies
        for label, counts in (("kept as meta", kept), ("not read", unread)):
            if counts:
                print(f"  {label}: {', '.join(f'{printable(key)} ({count_rows(n)})' for key, n in counts.items())}")
        for category, count in summary.categories.items():
            if category not in (*CATEGORIES, self.category):
                print(
                    f"  category {printable(category)} of {count} prompts: if the column is not a category, "
                    "leave it out with --ignore category"
                )
        for remark, count in summary.remarks.items():
            print(f"  {count} judgement{'' if count == 1 else 's'}: {remark}")
        if summary.skipped:
            print(f"  {len(summary.skipped)} skipped, saved in {skipped_path}:")
            for line in format_reasons(summary.skipped):
                print(f"    {line}")

    def _print_records(self, run: Run, summary: ImportSummary) -> None:
        print(f"  {summary.content}")
        new = format_counts(summary.new)
        print(f"  new in {run.folder}: {new}" if new else f"  nothing new: {run.folder} already has all of it")
        num_stored = len(summary.prompt_ids) - summary.new.prompts
        if self.category and num_stored > 0:
            print(f"  {num_stored} prompts were stored before and keep their category")

    def _print_annotators(self, summary: ImportSummary) -> None:
        models = [f"{printable(name)} ({source})" for name, source in summary.sources.items() if source != "human"]
        if models:
            print(f"  judged by {', '.join(models[:MAX_ANNOTATORS])}{', ...' * (len(models) > MAX_ANNOTATORS)}")
        wanted = pseudonym(self.annotator)
        if wanted and summary.sources and not any(f"{name}:".startswith(f"{wanted}:") for name in summary.sources):
            print("  the file names its annotators: --annotator changes nothing")

    def _print_next_steps(self, run: Run, summary: ImportSummary) -> None:
        if summary.holds_only_prompts:
            num_train = len(summary.prompt_ids) - summary.num_held_out
            print(
                f"  {num_train} prompts to train on, {summary.num_held_out} held out; "
                f"next, generate responses: assent generate --run {run.folder}"
            )
        for kind, count in summary.open_tasks.items() if not summary.reader.lossless else ():
            flag = "" if kind == "comparison" else f" --kind {kind}"
            print(
                f"  {count} {kind}s without a judgement; "
                f"next, label them: assent label --annotator human{flag} --run {run.folder}"
            )


def _load_tokenizer(run: Run) -> "ChatTokenizer | None":
    """Return the tokenizer of the model that the run starts from; None: no model was named or trained.

    It refuses rows that it cannot render.
    """
    model = run.policy(run.initial_policy)
    if model == Setup.model:
        return None
    from assent.models.tokenizer import load_chat_tokenizer

    try:
        return load_chat_tokenizer(model, run.rendering)
    except AssentError as error:
        warn(f"rows are not checked against the chat template of the run's model: {error}")
        return None
