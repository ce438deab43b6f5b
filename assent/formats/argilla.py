"""Argilla 2.8: records as `dataset.records.to_json`, `to_list` and `to_dict` write them and `from_json` reads them."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, UUID, uuid5

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, Shape, TaskWithJudgements, get, number, text
from assent.formats.files.annotation import (
    YES,
    Ballot,
    Voice,
    called,
    demand_time,
    going_out,
    heard,
    joined,
    pseudonym,
    seal,
    stretched,
    time_of,
    verdict_of,
)
from assent.formats.files.layout import ANSWERS, Sheet, facts_of, fields_of, screen, sheets, unused, usual_kind
from assent.records import Feedback, SkippedRow, content_id

OURS = uuid5(NAMESPACE_OID, "assent")
"""Argilla knows annotators by UUIDs: a pseudonym that is none has one under this."""
FIELD = re.compile(r"(.+)\.responses(\.users|\.status)?")
"""Columns of a flattened record."""
SUGGESTED = re.compile(r".+\.suggestion(\.score|\.agent|\.type)?")
RECORD = frozenset(("id", "fields", "metadata", "responses", "suggestions", "vectors", "status", "_server_id"))
"""Parts of a record; of `suggestions`, `vectors` and whether it is finished the store keeps nothing."""


@dataclass(frozen=True)
class Argilla(Format):
    """Label, rating, ranking, text and span questions, told by the shape of their values and by their names."""

    holds: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "array"

    scale: str = "1-7"
    """Ratings of the file: records do not tell which values their question offers."""

    def fits(self, row: Row) -> int:
        if isinstance(row.get("fields"), dict | list):
            return 4 * ("responses" in row or "suggestions" in row)
        return 4 * any((*map(FIELD.fullmatch, row), _by_id(row)))

    def unread(self, row: Row) -> Row:
        if isinstance(row.get("id"), list) or _by_id(row):
            return {key: value for record in _unfolded(row) for key, value in self.unread(record).items()}
        fields, metadata, _ = _parts(row)
        if "fields" not in row:
            flat = {name for name in row if FIELD.fullmatch(name) or SUGGESTED.fullmatch(name)}
            more = {name: value for name, value in row.items() if "." in name and name not in flat}
            return {**unused({name: value for name, value in fields.items() if name not in RECORD}), **more}
        return {
            **{f"fields.{name}": value for name, value in unused(fields).items()},
            **{f"metadata.{name}": value for name, value in metadata.items() if name != "assent"},
            **{name: value for name, value in row.items() if name not in RECORD},
        }

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | SkippedRow | Remark]:
        if isinstance(row.get("id"), list) or _by_id(row):
            for place, record in enumerate(_unfolded(row), 1):
                try:
                    for thing in self.decode(record, source):
                        within = f"record {place}, {thing.where}" if isinstance(thing, SkippedRow) else ""
                        yield replace(thing, where=within) if isinstance(thing, SkippedRow) else thing
                except AssentError as error:
                    yield SkippedRow(f"record {place}", str(error))
            return
        fields, metadata, responses = _parts(row)
        facts = _facts(metadata)
        sheet = screen(fields, facts, source)
        people = _people(responses)
        if not people:
            yield sheet.unanswered(text(facts, "kind") if "kind" in facts else usual_kind(sheet))
        ours = {str(told.get("user")): told for told in facts.get("answers", []) if isinstance(told, dict)}
        for user, said in people.items():
            try:
                yield from heard(sheet, self._ballot(said, sheet), _voice(user, ours.get(user), row.get("id")))
            except AssentError as error:
                yield SkippedRow(f"responses of {user}", str(error))

    def _ballot(self, said: Mapping[str, Any], sheet: Sheet) -> Ballot:
        told: dict[str, Any] = {}
        for question, value in said.items():
            joined(told, self._word(question, value, sheet), question)
        return Ballot(**told)

    def _word(self, question: str, value: Any, sheet: Sheet) -> dict[str, Any]:
        """One response in the words of a ballot."""
        match value:
            case _Unfinished():
                raise AssentError(f"its status is '{value.status}', not submitted")
            case bool() | None:
                pass
            case int() | float() if question == "strength" and len(sheet.items) == 2:
                return {"strength": value}
            case int() | float():
                axis = "overall" if question == "rating" else question
                return {"axes": ((axis, stretched(value, self.scale)),)}
            case str():
                return _text(question, text({question: value}, question), sheet)
            case [{"start": _, "end": _}, *_] if len(sheet.items) == 1:
                return _spans(question, value, sheet.items[0].text)
            case [{"value": _}, *_]:
                return {"tiers": _ranked(value, sheet)}
            case [str(), *_] if question == "flags":
                return {"flags": tuple(text({question: word}, question) for word in value)}
            case [str(), *_]:  # the client leaves the ranks out, and with them the ties
                return {"tiers": tuple((sheet.place(str(name)),) for name in value)}
        raise AssentError(f"{json.dumps(value)[:60]} for '{question}', for which there is no kind of answer")

    def encode(self, thing: TaskWithJudgements) -> Iterable[Row]:
        names = [f"response_{place + 1}" for place in range(len(thing.items))] if len(thing.items) > 1 else ["response"]
        for sheet, events in sheets(thing, names):
            rounds: list[dict[str, Feedback]] = [{}]
            for event in map(going_out, events):
                # One answer a user: a second one of the same annotator needs a record of its own.
                user = _user(event.annotator)
                free = next((each for each in rounds if user not in each), None)
                if free is None:
                    rounds.append(free := {})
                free[user] = event
            for place, each in enumerate(rounds):
                order = [item.id for item in sheet.items]
                yield self._record(content_id("record", thing.query.id, order, sheet.shown, place), thing, sheet, each)

    def _record(self, name: str, thing: TaskWithJudgements, sheet: Sheet, said: Mapping[str, Feedback]) -> Row:
        facts = facts_of(sheet, thing.query.kind)
        responses: dict[str, list[Row]] = {}
        for user, event in said.items():
            ballot = Ballot.of(event, [item.id for item in sheet.items]).demand_usual("Argilla")
            for question, value in _values(ballot, sheet):
                responses.setdefault(question, []).append({"value": value, "user_id": user})
            about = {"user": user, "annotator": event.annotator, "at": demand_time(event), "seconds": event.duration}
            facts.setdefault("answers", []).append({**about, "seal": seal(event)})
        fields = fields_of(sheet) | {n: item.text for n, item in zip(sheet.names, sheet.items, strict=True)}
        told = {"id": name, "fields": fields, "metadata": {"assent": json.dumps(facts)}}
        return {**told, "suggestions": {}, "responses": responses, "vectors": {}}


def _values(ballot: Ballot, sheet: Sheet) -> Iterator[tuple[str, Any]]:
    """Questions and the values of their answers."""
    if ballot.better is not None:
        yield "preference", sheet.names[ballot.better]
        yield "strength", ballot.strength
    if ballot.verdict:
        yield "preference", ballot.verdict
    if ballot.tiers:
        # As the server keeps it: the next rank after a tie is that of the next place.
        ranks = [1 + sum(map(len, ballot.tiers[:place])) for place in range(len(ballot.tiers))]
        tiers = zip(ballot.tiers, ranks, strict=True)
        yield "ranking", [{"value": sheet.names[place], "rank": rank} for tier, rank in tiers for place in tier]
    for axis, value in ballot.axes:
        if value != int(value):
            raise AssentError(f"a rating of {value:g}, and Argilla gives whole numbers")
        yield "rating" if axis == "overall" else axis, value
    if ballot.approved is not None:
        yield "approval", "yes" if ballot.approved else "no"
    for name in ("correction", "critique", "demonstration", "note"):
        if words := getattr(ballot, name):
            yield name, words
    if ballot.quote:
        start = sheet.items[0].text.find(ballot.quote)
        if start < 0:
            raise AssentError("a quote that does not stand in its answer")
        yield "quote", [{"label": "quote", "start": start, "end": start + len(ballot.quote)}]
    if ballot.flags:
        yield "flags", list(ballot.flags)


def _by_id(row: Row) -> bool:
    """Whether it is what `to_dict(orient="index")` writes."""
    return bool(row) and all(isinstance(each, dict) and isinstance(each.get("fields"), dict) for each in row.values())


def _unfolded(row: Row) -> Iterator[Row]:
    """The records of `to_dict`: a list for each of their parts, or a record for each id."""
    if _by_id(row):
        yield from row.values()
        return
    parts = {name: column for name, column in row.items() if isinstance(column, list)}
    if len({len(column) for column in parts.values()}) > 1:
        raise AssentError("lists of different lengths: 'to_dict' writes one value a record in each")
    for values in zip(*parts.values(), strict=True):
        yield dict(zip(parts, values, strict=True))


def _parts(row: Row) -> tuple[Row, Row, Row]:
    """Fields, metadata and responses of a record; one that was flattened holds all three side by side."""
    if "fields" in row:
        fields, metadata, responses = (row.get(part) or {} for part in ("fields", "metadata", "responses"))
        if not all(isinstance(part, dict) for part in (fields, metadata, responses)):
            raise AssentError("'fields', 'metadata' and 'responses' are not all objects")
        return fields, metadata, responses
    said: dict[str, list[Row]] = {}
    for name, values in row.items():
        if (found := FIELD.fullmatch(name)) and not found[2] and values is not None:
            users, states = (row.get(f"{name}.{more}") for more in ("users", "status"))
            if not isinstance(values, list) or not isinstance(users, list) or len(values) != len(users):
                raise AssentError(f"'{name}' and '{name}.users' are not two lists of one length")
            states = states if isinstance(states, list) and len(states) == len(users) else [None] * len(users)
            together = zip(values, users, states, strict=True)
            said[found[1]] = [{"value": value, "user_id": user, "status": state} for value, user, state in together]
    rest = {name: value for name, value in row.items() if "." not in name and name not in ("id", "status")}
    return rest, {"assent": rest.pop("assent", None)}, said


def _facts(metadata: Row) -> dict[str, Any]:
    found = metadata.get("assent")
    if not found:
        return {}
    try:
        facts = json.loads(text(metadata, "assent"))
    except (ValueError, RecursionError):
        raise AssentError("'assent' in 'metadata' is broken JSON") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("answers", []), list):
        raise AssentError("'assent' in 'metadata' is not an object with a list of answers")
    return facts


def _people(responses: Row) -> dict[str, dict[str, Any]]:
    """What each user said, by question; drafts and what was discarded are left with their status."""
    people: dict[str, dict[str, Any]] = {}
    for question, answers in responses.items():
        if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
            raise AssentError(f"'{question}' in 'responses' is no list of objects")
        for answer in answers:
            user, state = str(get(answer, "user_id")), answer.get("status")
            said = people.setdefault(user, {})
            if question in said:
                raise AssentError(f"two answers of {user} to '{question}'")
            said[question] = get(answer, "value") if state in (None, "submitted") else _Unfinished(str(state))
    return people


@dataclass(frozen=True)
class _Unfinished:
    status: str


def _voice(user: str, ours: Row | None, record: Any) -> Voice:
    if ours is None:
        return Voice(f"argilla:{pseudonym(user)}", origin=f"record {record}" if record is not None else "")
    who = pseudonym(text(ours, "annotator"))
    return Voice(who, time_of(ours, "at").at, number(ours, "seconds", 0.0), text(ours, "seal"))


def _user(annotator: str) -> str:
    """The UUID of an annotator: their own if they came from Argilla, else one that is always the same."""
    try:
        return str(UUID(annotator.removeprefix("argilla:")))
    except ValueError:
        return str(uuid5(OURS, annotator))


def _text(question: str, word: str, sheet: Sheet) -> dict[str, Any]:
    """A label or a text, which have the same shape: the names of the question and of the answers tell them apart."""
    if kind := called(question):
        return {kind: word}
    if question in ("approval", "approved") and word.lower() in YES:
        return {"approved": YES[word.lower()]}
    if len(sheet.items) == 2:
        verdict = verdict_of(word)
        return {"verdict": verdict} if verdict else {"better": sheet.place(word)}
    if not sheet.items and question in ANSWERS:
        return {"demonstration": word}
    raise AssentError(f"a text called '{question}': call it correction, critique, demonstration or note")


def _spans(question: str, values: list[Any], whole: str) -> dict[str, Any]:
    """Passages of the answer: the one that a critique is about, or labels that are a critique each."""
    found = []
    for each in values:
        start, end = (each.get("start"), each.get("end")) if isinstance(each, dict) else (None, None)
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(whole):
            raise AssentError(f"'{question}' marks {start} to {end} of an answer of {len(whole)} letters")
        found.append((text(each, "label"), whole[start:end]))
    if question == "quote" and len(found) == 1:
        return {"quote": found[0][1]}
    return {"spans": tuple(found)}


def _ranked(values: list[Any], sheet: Sheet) -> tuple[tuple[int, ...], ...]:
    """Options with their ranks, equal ones tied; without ranks, as the client reads them, they stand in their order."""
    ranks: dict[Any, list[int]] = {}
    for place, each in enumerate(values):
        if not isinstance(each, dict):
            raise AssentError("a ranking of options and of something else")
        rank = place if each.get("rank") is None else number(each, "rank", 0)
        ranks.setdefault(rank, []).append(sheet.place(text(each, "value")))
    return tuple(tuple(ranks[rank]) for rank in sorted(ranks))
