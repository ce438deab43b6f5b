"""Summaries that OpenAI's labellers compared, or rated from 1 to 7: learning to summarize from human feedback.

Stiennon et al. 2020 (arXiv:2009.01325); card: https://huggingface.co/datasets/openai/summarize_from_feedback. The text
of a prompt is TRL's: https://github.com/huggingface/trl/blob/main/examples/datasets/tldr_preference.py
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, pseudonym, rescale, to_feedback
from assent.formats.files.fields import count_keys, read_text, require, require_object, require_objects
from assent.formats.files.layout import Reply, TaskLayout, lay_out
from assent.records import Completion, Prompt

AXES = ("overall", "accuracy", "coverage", "coherence")
"""The axes with a scale; `compatible` is yes or no."""
STRENGTH = "the strength 1, 2 or 3 is the distance of 'confidence', from 1 to 9, from 5"


@dataclass(frozen=True)
class SummarizeFeedback(Format):
    """`summaries` and `choice` make a comparison, `summary` with its axes a rating; each by its worker."""

    known_keys: ClassVar[frozenset[str]] = frozenset(("info", "summaries", "choice", "summary", "worker", "extra"))

    def match_score(self, row: Row) -> int:
        if not isinstance(row.get("info"), dict):
            return 0
        has_axes = isinstance(row.get("summary"), dict) and "axes" in row["summary"]
        return 2 * (count_keys(row, "info", "summaries", "choice") or has_axes * count_keys(row, "info", "summary"))

    def unread_fields(self, row: Row) -> Row:
        if not self.match_score(row):
            return {}
        return {**super().unread_fields(row), "info.id": row["info"].get("id")}

    def meta_keys(self, row: Row) -> dict[str, str]:
        return {key: key for key in self.unread_fields(row)}

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("prompt", "chosen", "rejected")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        worker = row.get("worker")
        provenance = Provenance(f"summarize:{pseudonym(str(worker))}" if worker else f"imported:{source}")
        if "summary" in row:
            summary = require_object(row, "summary")
            yield from to_feedback(_lay_out(row, [summary], source), _rating(summary), provenance)
            return
        summaries, choice = require_objects(row, "summaries"), require(row, "choice")
        if len(summaries) != 2:
            raise AssentError(f"'summaries' holds {len(summaries)} summaries, not two")
        if isinstance(choice, bool) or choice not in (0, 1):
            raise AssentError(f"'choice' is {choice!r}, not 0 or 1")
        layout = _lay_out(row, summaries, source)
        confidence = row["extra"].get("confidence") if isinstance(row.get("extra"), dict) else None
        strength = 1
        if isinstance(confidence, int) and 1 <= confidence <= 9:
            strength = min(3, max(1, abs(confidence - 5)))
            yield Remark(STRENGTH)
        notes = [str(summary["note"]) for summary in summaries if summary.get("note")]
        annotation = Annotation(preferred=int(choice), strength=strength, comment="\n".join(notes))
        yield from to_feedback(layout, annotation, provenance)


def _lay_out(row: Row, summaries: list[Row], source: str) -> TaskLayout:
    replies = {
        f"summary {number}": Reply(
            Completion(read_text(summary, "text")), str(summary.get("policy") or f"imported:{source}")
        )
        for number, summary in enumerate(summaries, 1)
    }
    return lay_out(Prompt.plain(_prompt_text(require_object(row, "info"))), replies)


def _prompt_text(info: Row) -> str:
    title = read_text(info, "title") if info.get("title") else ""
    if info.get("article"):
        article = read_text(info, "article").replace("\n\n", "\n")
        return f"TITLE: {title}\n\n{article}\n\nTL;DR:"
    post = read_text(info, "post").replace("\n\n", "\n")
    return f"SUBREDDIT: r/{info.get('subreddit') or ''}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"


def _rating(summary: Row) -> Annotation:
    axes = require_object(summary, "axes")
    rated = tuple((axis, rescale(axes[axis], "1-7")) for axis in AXES if axes.get(axis) is not None)
    return Annotation(axes=rated, comment=str(summary.get("note") or ""))
