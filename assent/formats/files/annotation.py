"""What people say with other labelling tools, in words that all of these have; and who says it, under a pseudonym."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast, get_args

from assent.errors import AssentError
from assent.feedback import check
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison, Verdict
from assent.feedback.correction import Correction
from assent.feedback.critique import Critique
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats import HALF, Remark, Row, TaskWithJudgements, asked, demand_apart, text
from assent.formats.files.layout import Sheet
from assent.records import Feedback, Judgement, content_id
from assent.registry import name_of

UNKNOWN_TIME = "1970-01-01T00:00:00Z"
"""When an imported judgement was made: many files do not tell, and a second import must make the same event."""
TEXTS: dict[str, str] = {
    **dict.fromkeys(("note", "comment", "reason", "rationale", "explanation", "why"), "note"),
    **dict.fromkeys(("correction", "corrected", "edit", "rewrite"), "correction"),
    **dict.fromkeys(("critique", "criticism", "feedback"), "critique"),
    **dict.fromkeys(("demonstration", "ideal", "written"), "demonstration"),
}
"""What a free text is, by the name of its question."""
MARK = 8
"""Letters by which an answer is known again."""
JUDGEMENTS = frozenset(
    (
        *("comparison", "comparisons", "preference", "preferences", "preferred", "dispreferred", "chosen", "rejected"),
        *("choice", "selected", "winner", "winners", "loser", "better", "worse", "verdict", "verdicts"),
        *("label", "labels", "rating", "ratings", "stars", "score", "scores", "reward", "rewards", "likert"),
        *("rank", "ranks", "ranking", "rankings", "vote", "votes", "upvotes", "downvotes", "thumb", "thumbs"),
        *("judgement", "judgements", "judgment", "judgments", "approval", "approved", "accepted", "liked", "disliked"),
        *("feedback", "annotation", "annotations", "critique", "critiques", "correction", "corrections", "corrected"),
        *("helpful", "helpfulness", "harmful", "harmless", "harmlessness", "safe", "unsafe", "toxic", "toxicity"),
        *("correctness", "quality", "status"),
    )
)
"""Words in the name of a key that holds what somebody thought of an answer."""
REJECTIONS = frozenset(
    (
        *("deleted", "removed", "discarded", "dismissed", "withdrawn", "hidden", "invalid", "spam", "reported"),
        *("cancelled", "canceled", "skipped", "flag", "flags", "flagged"),
    )
)
"""Words in the name of a key that takes a row back, unless it holds no, false or 0."""
NO = ("", "0", "0.0", "no", "false", "none", "null", "nan", "n", "f")
OF_SIDE = frozenset(
    (
        *("score", "scores", "rating", "ratings", "rank", "reward", "rewards", "avg", "average", "mean"),
        *("model", "policy", "source", "length", "tokens", "logp", "logps"),
    )
)
"""What `score_chosen` and its like tell about a side of a preference that is read."""
DAY_OR_MONTH = re.compile(r"\d{1,2}[./]\d{1,2}[./]\d{2,4}(,?\s+\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp][Mm])?)?")
"""A time of a spreadsheet: 02/03/2026 is in February or in March."""
WITHOUT_ZONE = "a time without a zone, taken as UTC"
UNCLEAR_TIME = "a time such as 02/03/2026, in February or in March: left unknown"
YES = {"yes": True, "true": True, "good": True, "no": False, "false": False, "bad": False}


class Voice(NamedTuple):
    """Who spoke, when, for how long; the seal under which an answer of ours went out, the id that others gave it."""

    annotator: str
    at: str = UNKNOWN_TIME
    seconds: float = 0.0
    seal: str = ""
    origin: str = ""


class Moment(NamedTuple):
    """When something was said, and what had to be assumed for it."""

    at: str
    remark: str = ""

    @property
    def remarks(self) -> tuple[Remark, ...]:
        return (Remark(self.remark),) if self.remark else ()


@dataclass(frozen=True)
class Ballot:
    """What one annotator said about a sheet; items are named by their place on it."""

    better: int | None = None
    verdict: str = ""
    """tie, both bad, cannot tell"""
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
    """Label and passage: a critique each."""
    demonstration: str = ""
    weight: float = 1.0
    note: str = ""
    flags: tuple[str, ...] = ()

    def answers(self, sheet: Sheet) -> Iterator[Judgement]:
        """What was said, as our kinds of answer."""
        ids = [item.id for item in sheet.items]
        if self.better is not None and self.verdict:
            raise AssentError(f"both '{sheet.names[self.better]}' and '{self.verdict}' were chosen")
        if self.better is not None:
            yield Comparison(ids[self.better], self.strength, "better", self.certainty, self.margin, self.weight)
        elif self.verdict:
            yield Comparison(verdict=cast(Verdict, self.verdict), weight=self.weight)
        if self.tiers:
            yield Ranking(tuple(tuple(ids[place] for place in tier) for tier in self.tiers), self.weight)
        if self.axes:
            yield Rating(self.axes, self.weight)
        if self.approved is not None:
            yield Approval(self.approved, self.weight)
        if self.correction:
            yield Correction(self.correction)
        if self.critique:
            yield Critique(self.critique, self.quote)
        elif self.quote:
            raise AssentError("a quote, and no critique that it belongs to")
        for label, passage in self.spans:
            yield Critique(label, passage)
        if self.demonstration:
            yield Demonstration(self.demonstration, self.weight)

    @classmethod
    def of(cls, event: Feedback, ids: Sequence[str]) -> "Ballot":
        """What a stored answer says, of items that the file has in this order."""
        told: dict[str, Any] = {"weight": getattr(event.judgement, "weight", 1.0), "note": event.comment}
        match event.judgement:
            case Comparison() as a if a.verdict == "better":
                told |= {"better": ids.index(a.preferred), "strength": a.strength}
                told |= {"certainty": a.certainty, "margin": a.margin}
            case Comparison() as a:
                told["verdict"] = a.verdict
            case Ranking() as a:
                told["tiers"] = tuple(tuple(map(ids.index, tier)) for tier in a.tiers)
            case Rating() as a:
                told["axes"] = a.axes
            case Approval() as a:
                told["approved"] = a.approved
            case Critique() as a:
                told |= {"critique": a.text, "quote": a.quote}
            case Correction() | Demonstration() as a:
                told[name_of(a)] = a.text
            case a:
                raise AssentError(f"a {name_of(a)}, which this format has no word for")
        return cls(flags=event.flags, **told)

    def demand_usual(self, tool: str) -> "Ballot":
        """Refuse what labelling tools have no word for."""
        for name in ("certainty", "margin", "weight"):
            value = getattr(self, name)
            if value != getattr(Ballot, name):
                raise AssentError(f"a {name} of {value:g}, which {tool} has no word for")
        return self


def heard(sheet: Sheet, ballot: Ballot, voice: Voice) -> Iterator[TaskWithJudgements]:
    """Everything that an annotator said about a sheet, each answer under its own question.

    Raises:
        AssentError: nothing was said, or something that cannot be said about such a sheet.
    """
    words = (voice.annotator, ballot.note, *ballot.flags, *(axis for axis, _ in ballot.axes))
    if any(map(HALF.search, (*words, ballot.correction, ballot.critique, ballot.quote, ballot.demonstration))):
        raise AssentError("half a character, a lone surrogate")
    shown = tuple(sheet.items[place].id for place in sheet.shown)
    nothing = True
    for answer in ballot.answers(sheet):
        kind, nothing = name_of(answer), False
        if len(sheet.items) not in answer.num_items:
            raise AssentError(f"a {kind} about {len(sheet.items)} answers")
        query = sheet.ask(kind)
        told = (voice.at, voice.seconds, shown, ballot.note, "", "-", ballot.flags)
        event = Feedback(query.id, voice.annotator, check(answer, query), *told)
        content = _content(event)
        name, _, mark = voice.seal.rpartition("_")
        if name and mark == content[:MARK]:
            yield TaskWithJudgements(sheet.prompt, sheet.items, query, (replace(event, id=name),), voice.seal)
            continue
        if sheet.items:  # bare text to imitate has no prompt
            asked(sheet.prompt)
        demand_apart(item.completion for item in sheet.items)
        yield TaskWithJudgements(sheet.prompt, sheet.items, query, (replace(event, id=content),), voice.origin)
    if nothing:
        raise AssentError("no answer")


def seal(event: Feedback) -> str:
    """The id of an answer and a mark of what it says, by which it is known when it comes back unchanged."""
    return f"{event.id}_{_content(event)[:MARK]}"


def _content(event: Feedback) -> str:
    """The id that an answer has by what it says; numbers are written in one way, since some tools write 4.0 as 4."""
    said_so = {name: _whole(value) for name, value in vars(event.judgement).items() if value or name != "extra"}
    told = (event.created_at, _whole(event.duration), event.display_order, event.comment, event.flags)
    return content_id("said", event.task, event.annotator, name_of(event.judgement), said_so, *told)


def _whole(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def going_out(event: Feedback) -> Feedback:
    """An answer as a file for others may tell it: who said it under a pseudonym, and nothing of what it replaced."""
    return replace(event, annotator=pseudonym(event.annotator), supersedes="")


def pseudonym(name: str) -> str:
    """An e-mail address as `person-` and ten digits of its hash; other names are pseudonyms already."""
    return f"person-{content_id('person', name.strip().lower())[:10]}" if "@" in name else name


def time_of(row: Row, key: str) -> Moment:
    """A time in UTC, as it is spelt if it is UTC already; unknown where day and month cannot be told apart."""
    spelt = row.get(key)
    if not spelt:
        return Moment(UNKNOWN_TIME)
    if DAY_OR_MONTH.fullmatch(text(row, key).strip()):
        return Moment(UNKNOWN_TIME, UNCLEAR_TIME)
    try:
        moment = datetime.fromisoformat(spelt)
    except ValueError:
        raise AssentError(f"'{key}' is {spelt!r}, not a time such as 2026-11-20T10:00:00Z") from None
    if moment.tzinfo is None:
        return Moment(spelt, WITHOUT_ZONE)
    if not moment.utcoffset():
        return Moment(spelt)
    return Moment(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))


def demand_time(event: Feedback) -> str:
    """The time of an answer, empty if unknown; refused if it would not be read back."""
    if time_of({"at": event.created_at}, "at").at != event.created_at:
        raise AssentError(f"an answer of {event.created_at!r}, which is no time in UTC")
    return "" if event.created_at == UNKNOWN_TIME else event.created_at


def scale_of(spelt: str) -> tuple[float, float]:
    """The ends of a scale, spelt as in `1-5`.

    Raises:
        AssentError: it is no scale.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", spelt)
    if not found or not float(found[1]) < float(found[2]):
        raise AssentError(f"a scale of ratings is its lowest and highest, such as 1-5, not '{spelt}'")
    return float(found[1]), float(found[2])


def stretched(value: Any, scale: str) -> float:
    """A rating brought from its scale to 1 .. 7."""
    low, high = scale_of(scale)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise AssentError(f"a rating of {value!r} on a scale of {scale}: name the right one with --scale")
    return value if (low, high) == (1, 7) else round(1 + 6 * (value - low) / (high - low), 9)


def verdict_of(word: str) -> str:
    """The verdict that a choice stands for, if it is one without a better side."""
    word = " ".join(re.split(r"[-_ ]+", word.strip().lower()))
    return word if word in get_args(Verdict) and word != "better" else ""


def looks_judged(key: str, value: Any, sides: bool) -> bool:
    """Whether a key that nobody reads seems to hold a judgement, or takes a row back.

    Args:
        sides: whether the row holds a preference that is read: what is told about its sides is no other one.
    """
    named = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", key.rpartition("[].")[2]).lower()
    words = set(re.split(r"[^a-z]+", named))
    about = words & {"chosen", "rejected"}
    if sides and about and words - about and words - about <= OF_SIDE:
        return False
    if words == {"language", "score"}:  # how surely a detector knows the language, as in FineWeb
        return False
    return bool(words & JUDGEMENTS or (words & REJECTIONS and str(value).strip().lower() not in NO))


def called(name: str) -> str:
    """What a free text is by the name that it stands under: note, correction, critique, demonstration, or unknown."""
    words = re.sub(r"[^a-z]+", " ", name.lower()).split()
    return next((TEXTS[word] for word in words if word in TEXTS), "")


def joined(told: dict[str, Any], more: Mapping[str, Any], where: str) -> None:
    """Put more into the words of a ballot, of which each can be said once.

    Raises:
        AssentError: it was said before.
    """
    for name, value in more.items():
        if name in ("axes", "spans"):
            value = (*told.get(name, ()), *value)
        elif name in told:
            raise AssentError(f"'{where}' is a second {name}: each needs an annotation of its own")
        told[name] = value
