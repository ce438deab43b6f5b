"""Annotations of other labelling tools in terms of our judgements; annotators go out under pseudonyms."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast, get_args

from assent.errors import AssentError, did_you_mean
from assent.feedback import check
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison, Verdict
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats import Remark, Row, TaskWithJudgements
from assent.formats.files.fields import LONE_SURROGATE, read_text, require_distinct, require_prompt_text
from assent.formats.files.layout import TaskLayout
from assent.records import Feedback, Judgement, Source, content_id, implied_source
from assent.registry import name_of

UNKNOWN_TIME = "1970-01-01T00:00:00Z"
"""The time of judgements whose file names none: a constant, so that a second import makes the same event."""
TEXT_ROLES: dict[str, str] = {
    **dict.fromkeys(("note", "comment", "reason", "rationale", "explanation", "why"), "comment"),
    **dict.fromkeys(("correction", "corrected", "edit", "rewrite"), "correction"),
    **dict.fromkeys(("critique", "criticism", "feedback"), "critique"),
    **dict.fromkeys(("demonstration", "ideal", "written"), "demonstration"),
}
"""The role of a free text by a word in the name of its question."""
CHECKSUM_LENGTH = 8
"""Characters of the checksum by which an unchanged judgement is recognised."""
AMBIGUOUS_DATE = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}(,?\s+\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp][Mm])?)?")
"""A date of a spreadsheet: 02/03/2026 is in February or in March."""
NO_TIME_ZONE = "the time has no time zone and is taken as UTC"
AMBIGUOUS_TIME = "the date could be day/month or month/day, such as 02/03/2026: the time stays unknown"
BOOLEANS = {"yes": True, "true": True, "good": True, "no": False, "false": False, "bad": False}


class Provenance(NamedTuple):
    """The annotator and the time of an annotation, and its ids."""

    annotator: str
    created_at: str = UNKNOWN_TIME
    duration: float = 0.0
    roundtrip_id: str = ""
    """The id that `roundtrip_id` gave a judgement that we exported."""
    origin_id: str = ""
    """The id that the other tool gave it."""
    source: Source | str = ""
    """What the annotator is; empty: the annotator's prefix says it."""


class Timestamp(NamedTuple):
    """The time of an annotation, and what was assumed to read it."""

    created_at: str
    remark: str = ""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        return (Remark(self.remark),) if self.remark else ()


@dataclass(frozen=True)
class Annotation:
    """Everything that one annotator said about a task; items are indices into its layout."""

    preferred: int | None = None
    verdict: str = ""
    """A verdict without a better item: tie, both bad, cannot tell."""
    strength: int = 1
    certainty: float = 1.0
    margin: float = 0.0
    tiers: tuple[tuple[int, ...], ...] = ()
    axes: tuple[tuple[str, float], ...] = ()
    approved: bool | None = None
    correction: str = ""
    critique: str = ""
    quote: str = ""
    spans: tuple[tuple[str, str], ...] = ()
    """Label and passage; each becomes a critique."""
    demonstration: str = ""
    weight: float = 1.0
    comment: str = ""
    flags: tuple[str, ...] = ()

    def judgements(self, layout: TaskLayout) -> Iterator[Judgement]:
        """Yield the judgements of the annotation."""
        ids = [item.id for item in layout.items]
        if self.preferred is not None and self.verdict:
            raise AssentError(f"both '{layout.item_names[self.preferred]}' and '{self.verdict}' were chosen")
        if self.preferred is not None:
            preferred = ids[self.preferred]
            yield Comparison(preferred, self.strength, "better", self.certainty, self.margin, self.weight)
        elif self.verdict:
            yield Comparison(verdict=cast(Verdict, self.verdict), weight=self.weight)
        if self.tiers:
            yield Ranking(tuple(tuple(ids[index] for index in tier) for tier in self.tiers), self.weight)
        if self.axes:
            yield Rating(self.axes, self.weight)
        if self.approved is not None:
            yield Approval(self.approved, self.weight)
        if self.correction:
            yield Correction(self.correction)
        if self.critique:
            yield Critique(self.critique, self.quote)
        elif self.quote:
            raise AssentError("a quote without the critique that it belongs to")
        for label, passage in self.spans:
            yield Critique(label, passage)
        if self.demonstration:
            yield Demonstration(self.demonstration, self.weight)

    @classmethod
    def from_feedback(cls, event: Feedback, ids: Sequence[str]) -> "Annotation":
        """Return the annotation of stored feedback, whose items the file has in this order."""
        values: dict[str, Any] = {"comment": event.comment, "flags": event.flags}
        match event.judgement:
            case Comparison() as judgement if judgement.verdict == "better":
                values |= {"preferred": ids.index(judgement.preferred), "strength": judgement.strength}
                values |= {"certainty": judgement.certainty, "margin": judgement.margin, "weight": judgement.weight}
            case Comparison() as judgement:
                values |= {"verdict": judgement.verdict, "weight": judgement.weight}
            case Ranking() as judgement:
                tiers = tuple(tuple(map(ids.index, tier)) for tier in judgement.tiers)
                values |= {"tiers": tiers, "weight": judgement.weight}
            case Rating() as judgement:
                values |= {"axes": judgement.axes, "weight": judgement.weight}
            case Approval() as judgement:
                values |= {"approved": judgement.approved, "weight": judgement.weight}
            case Critique() as judgement:
                values |= {"critique": judgement.text, "quote": judgement.quote}
            case Correction() as judgement:
                values["correction"] = judgement.text
            case Demonstration() as judgement:
                values |= {"demonstration": judgement.text, "weight": judgement.weight}
            case judgement:
                raise AssentError(f"this format cannot hold a {name_of(judgement)}")
        return cls(**values)

    def require_supported(self, tool: str) -> "Annotation":
        """Return the annotation, and refuse what labelling tools cannot store."""
        defaults = Annotation()
        for name, value, default in (
            ("certainty", self.certainty, defaults.certainty),
            ("margin", self.margin, defaults.margin),
            ("weight", self.weight, defaults.weight),
        ):
            if value != default:
                raise AssentError(f"{tool} cannot store a {name} ({value:g})")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts that the annotator wrote."""
        axes = (axis for axis, _ in self.axes)
        return (self.comment, *self.flags, *axes, self.correction, self.critique, self.quote, self.demonstration)


def to_feedback(layout: TaskLayout, annotation: Annotation, provenance: Provenance) -> Iterator[TaskWithJudgements]:
    """Yield each judgement of an annotation with its task.

    Raises:
        AssentError: there is no judgement, or one that does not fit the task.
    """
    if any(map(LONE_SURROGATE.search, (provenance.annotator, *annotation.texts))):
        raise AssentError("a text contains an unpaired surrogate")
    source = provenance.source or implied_source(provenance.annotator)
    if source not in get_args(Source):
        raise AssentError(f"no source '{source}'{did_you_mean(source, get_args(Source))}")
    is_empty = True
    for judgement in annotation.judgements(layout):
        is_empty = False
        kind = name_of(judgement)
        if len(layout.items) not in judgement.num_items:
            raise AssentError(f"a {kind} of {len(layout.items)} responses")
        task = layout.to_task(kind)
        event = Feedback(
            task=task.id,
            annotator=provenance.annotator,
            judgement=check(judgement, task),
            created_at=provenance.created_at,
            duration=provenance.duration,
            display_order=tuple(layout.items[index].id for index in layout.display_order),
            comment=annotation.comment,
            id="-",
            flags=annotation.flags,
            source=cast(Source, source),
        )
        new_id = _judgement_id(event)
        stored_id, _, checksum = provenance.roundtrip_id.rpartition("_")
        if stored_id and checksum == new_id[:CHECKSUM_LENGTH]:
            unchanged = replace(event, id=stored_id)
            yield TaskWithJudgements(layout.prompt, layout.items, task, (unchanged,), provenance.roundtrip_id)
            continue
        if layout.items:  # a demonstration of bare text has no prompt
            require_prompt_text(layout.prompt)
        require_distinct(item.completion for item in layout.items)
        yield TaskWithJudgements(layout.prompt, layout.items, task, (replace(event, id=new_id),), provenance.origin_id)
    if is_empty:
        raise AssentError("no judgement")


def roundtrip_id(event: Feedback) -> str:
    """Return the id of feedback and a checksum of its content, by which it is recognised if it returns unchanged."""
    return f"{event.id}_{_judgement_id(event)[:CHECKSUM_LENGTH]}"


def _judgement_id(event: Feedback) -> str:
    """Return the id of feedback by its content; whole numbers become integers, since some tools write 4.0 as 4."""
    judgement = {
        name: _normalise_numbers(value) for name, value in vars(event.judgement).items() if value or name != "extra"
    }
    content = (event.created_at, _normalise_numbers(event.duration), event.display_order, event.comment, event.flags)
    # The first word is part of the id: it stays as it was in version 0.1.
    return content_id("said", event.task, event.annotator, name_of(event.judgement), judgement, *content)


def _normalise_numbers(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_normalise_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def anonymised(event: Feedback) -> Feedback:
    """Return feedback as files may hold it: the annotator under a pseudonym, without the id of what it superseded."""
    return replace(event, annotator=pseudonym(event.annotator), supersedes="")


def pseudonym(name: str) -> str:
    """Return an e-mail address as `person-` and ten digits of its hash; other names are pseudonyms already."""
    return f"person-{content_id('person', name.strip().lower())[:10]}" if "@" in name else name


def source_field(event: Feedback) -> dict[str, str]:
    """Return the source of feedback as a field, unless the annotator's prefix implies it."""
    return {"source": event.source} if event.source != implied_source(event.annotator) else {}


# Values


def read_time(row: Row, key: str) -> Timestamp:
    """Return a time in UTC, unchanged if it is UTC already; unknown where day and month are ambiguous."""
    text = row.get(key)
    if not text:
        return Timestamp(UNKNOWN_TIME)
    if AMBIGUOUS_DATE.fullmatch(read_text(row, key).strip()):
        return Timestamp(UNKNOWN_TIME, AMBIGUOUS_TIME)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise AssentError(f"'{key}' is {text!r}, not a time such as 2026-11-20T10:00:00Z") from None
    if time.tzinfo is None:
        return Timestamp(text, NO_TIME_ZONE)
    if not time.utcoffset():
        return Timestamp(text)
    return Timestamp(time.astimezone(UTC).isoformat().replace("+00:00", "Z"))


def format_time(event: Feedback) -> str:
    """Return the time of feedback, empty if unknown.

    Raises:
        AssentError: the time would not be read back.
    """
    if read_time({"created_at": event.created_at}, "created_at").created_at != event.created_at:
        raise AssentError(f"the time {event.created_at!r} is not in UTC")
    return "" if event.created_at == UNKNOWN_TIME else event.created_at


def parse_scale(text: str) -> tuple[float, float]:
    """Return the lowest and the highest rating of a scale such as `1-5`.

    Raises:
        AssentError: it is not a scale.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", text)
    if not match or not float(match[1]) < float(match[2]):
        raise AssentError(f"a scale is the lowest and the highest rating, such as 1-5, not '{text}'")
    return float(match[1]), float(match[2])


def rescale(value: Any, scale: str) -> float:
    """Return a rating on its scale as one from 1 to 7."""
    low, high = parse_scale(scale)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise AssentError(f"a rating of {value!r} on a scale of {scale}: name the right one with --scale")
    return value if (low, high) == (1, 7) else round(1 + 6 * (value - low) / (high - low), 9)


def parse_verdict(text: str) -> str:
    """Return the verdict of a choice that prefers no item, or an empty text."""
    verdict = " ".join(re.split(r"[-_ ]+", text.strip().lower()))
    return verdict if verdict in get_args(Verdict) and verdict != "better" else ""


def text_role(name: str) -> str:
    """Return the role of a free text by its name: comment, correction, critique, demonstration; empty: unknown."""
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    return next((TEXT_ROLES[word] for word in words if word in TEXT_ROLES), "")


def merge(values: dict[str, Any], fields: Mapping[str, Any], question: str) -> None:
    """Add fields to those of an annotation, each of which can be given once.

    Raises:
        AssentError: a field is there already.
    """
    for name, value in fields.items():
        if name in ("axes", "spans"):
            value = (*values.get(name, ()), *value)
        elif name in values:
            raise AssentError(f"'{question}' gives a second {name}: each needs an annotation of its own")
        values[name] = value
