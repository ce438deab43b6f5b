"""UltraFeedback: completions of several models, which GPT-4 rated from 1 to 5 along four axes and criticised.

Cui et al. 2023 (arXiv:2310.01377); card: https://huggingface.co/datasets/openbmb/UltraFeedback.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, TaskWithJudgements
from assent.formats.files.annotation import Annotation, Provenance, rescale, to_feedback
from assent.formats.files.fields import chat_prompt, count_keys, read_text, require_object, require_objects, user_turn
from assent.formats.files.layout import Reply, lay_out
from assent.records import Completion, SkippedRow

JUDGE = "ai:gpt-4"
SCALE = "1-5"
AXES_COUNT = (
    f"the ratings along the axes are read, not overall_score and fine-grained_score; judged by {JUDGE}, --annotator "
    "names another"
)


@dataclass(frozen=True)
class UltraFeedback(Format):
    """Each completion becomes a rating with the axes that have a number, and a critique."""

    known_keys: ClassVar[frozenset[str]] = frozenset(("instruction", "completions"))
    assumed_annotators: ClassVar[frozenset[str]] = frozenset((JUDGE,))

    def match_score(self, row: Row) -> int:
        completions = row.get("completions")
        if not isinstance(completions, list):
            return 0
        is_rated = all(isinstance(entry, dict) and {"response", "annotations"} <= entry.keys() for entry in completions)
        return 2 * is_rated * count_keys(row, "instruction", "completions")

    def discarded_keys(self, row: Row) -> Collection[str]:
        return ("models",)

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        completions = require_objects(row, "completions")
        if not completions:
            raise AssentError("no completions")
        prompt = chat_prompt(row, user_turn(read_text(row, "instruction")))
        for number, entry in enumerate(completions, 1):
            try:
                reply = Reply(Completion(read_text(entry, "response")), _policy(entry, source), _sampling(entry))
                annotation = Annotation(axes=tuple(_axes(entry)), critique=_critique(entry))
                layout = lay_out(prompt, {"response": reply})
                yield from to_feedback(layout, annotation, Provenance(JUDGE))
            except AssentError as error:
                yield SkippedRow(f"completion {number}", str(error))
            else:
                yield Remark(AXES_COUNT)


def _policy(entry: Row, source: str) -> str:
    return str(entry.get("model") or f"imported:{source}")


def _sampling(entry: Row) -> str:
    """Return the principle of the system's message under which a completion was sampled."""
    return f"principle {entry['principle']}" if entry.get("principle") else ""


def _critique(entry: Row) -> str:
    return read_text(entry, "critique") if entry.get("critique") else ""


def _axes(entry: Row) -> Iterator[tuple[str, float]]:
    """Yield the axes with a rating; some have none (`N/A`), a few the number 0."""
    for axis, value in require_object(entry, "annotations").items():
        number = _to_number(value.get("Rating")) if isinstance(value, dict) else 0.0
        if number:
            yield axis, rescale(number, SCALE)


def _to_number(value: Any) -> float:
    """Return a rating, which the files hold as text; 0: none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
