"""A table for spreadsheets, RFC 4180: a row for each answer, under a header that says what its cells are."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count, takewhile
from string import ascii_lowercase
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.formats import Format, Remark, Row, Shape, TaskWithJudgements, get, messages
from assent.formats.files.annotation import (
    YES,
    Ballot,
    Voice,
    demand_time,
    going_out,
    heard,
    pseudonym,
    seal,
    stretched,
    time_of,
    verdict_of,
)
from assent.formats.files.layout import Sheet, fields_of, screen, usual_kind
from assent.records import Completion, Feedback, content_id

ANSWER = "response"
"""The column of an answer that stands alone; several are a, b, c, ..."""
PAIR = ("chosen", "rejected")
"""The columns of a pair that say by their names which is the better."""
AXIS = "rating:"
SAID = frozenset(("preference", "ranking", "rating", "approved", "correction", "critique", "demonstration"))
"""The columns of judgements: a table without any of them asks."""
SIDE = re.compile(
    r"(?:(?:model|response|answer|completion|output|option|assistant)[-_ ]?)?(?:([a-z])|(\d+)|(left|right))"
)
"""What other tools call a side in the column `preference`."""
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
BEFORE = ("prompt", ANSWER)
AFTER = (
    *("preference", "strength", "certainty", "margin", "ranking", "rating"),
    *("approved", "correction", "critique", "quote", "demonstration", "weight", "note", "flags"),
    *("annotator", "at", "seconds", "shown", "purpose", "instruction", "mode", "cut", "query", "id"),
)
"""The columns behind the answers, in the order in which they are written."""


@dataclass(frozen=True)
class CSV(Format):
    """Comparisons, rankings, ratings, approvals and texts in one table; empty cells say nothing."""

    holds: ClassVar[tuple[type, ...]] = (TaskWithJudgements,)
    shape: ClassVar[Shape] = "table"

    scale: str = "1-7"
    """Ratings of the file."""

    def fits(self, row: Row) -> int:
        answers = (ANSWER, "a", *PAIR, *SAID)
        return int("prompt" in row and any(name in answers or name.startswith(AXIS) for name in row))

    def unread(self, row: Row) -> Row:
        read = {"prompt", *AFTER, *_names(row)}
        return {name: cell for name, cell in row.items() if name not in read and not name.startswith(AXIS)}

    def demand_clear(self, row: Row) -> None:
        word = row.get("preference", "").strip().lower()
        if (side := SIDE.fullmatch(word)) and side[2] and not int(side[2]):
            raise AssentError(f"a preference '{word}': whether 1 is then the first or the second answer, write a or b")

    def decode(self, row: Row, source: str) -> Iterable[TaskWithJudgements | Remark]:
        sheet = _sheet(row, source)
        if not _is_judged(row) and sheet.items:
            if len(sheet.items) == 1:
                raise AssentError(f"no judgement of '{sheet.names[0]}': a text to imitate stands under 'demonstration'")
            yield sheet.unanswered(usual_kind(sheet))
            return
        told = {
            **_choice(row, sheet),
            "tiers": _tiers(row, sheet),
            "axes": tuple(
                (name.removeprefix(AXIS) if name != "rating" else "overall", self._stars(row, name))
                for name in row
                if name.startswith(AXIS) or name == "rating"
                if row[name].strip()
            ),
            "approved": _yes(row),
            **{name: row.get(name, "") for name in ("correction", "critique", "quote", "demonstration", "note")},
            **{name: _number(row, name, getattr(Ballot, name)) for name in ("certainty", "margin", "weight")},
            "flags": _words(row, "flags"),
        }
        named, name = row.get("annotator", "").strip(), row.get("id", "").strip()
        moment = time_of({"at": row.get("at", "").strip()}, "at")
        # The id of a row may be that of its question: only a row that is the same throughout is the same answer.
        origin = content_id(sorted(row.items())) if named and name else ""
        who = pseudonym(named) or f"imported:{source}"
        voice = Voice(who, moment.at, _number(row, "seconds", 0.0), name, origin)
        yield from heard(sheet, Ballot(**told), voice)
        yield from moment.remarks

    def _stars(self, row: Row, name: str) -> float:
        return stretched(_number(row, name, 0.0), self.scale)

    def encode(self, thing: TaskWithJudgements) -> Iterable[Row]:
        if not thing.answers:
            raise AssentError("a question without an answer, and a row of a table is an answer")
        ids = list(thing.query.items)
        items = {item.id: item for item in thing.items}
        alone = len(ids) == 1
        names = [ANSWER] if alone else [letters(place) for place in range(len(ids))]
        prompt = thing.prompt.text if thing.prompt.is_plain else _dumped(fields_of(Sheet(thing.prompt))["messages"])
        question = {
            "prompt": prompt,
            **{name: items[item].text for name, item in zip(names, ids, strict=True)},
            "purpose": thing.query.purpose,
            "instruction": thing.query.instruction,
            "mode": thing.prompt.category,
            "cut": " ".join(name for name, item in zip(names, ids, strict=True) if not items[item].finished),
            "query": thing.query.id,
        }
        for event in map(going_out, thing.answers):
            yield {
                name: cell for name, cell in (question | _said(event, ids, names)).items() if cell or name == "prompt"
            }

    def header(self, columns: Iterable[str]) -> list[str]:
        found = set(columns)
        answers = list(takewhile(found.__contains__, map(letters, count())))
        axes = sorted(name for name in found if name.startswith(AXIS))
        ordered = [*BEFORE, *answers]
        for name in AFTER:
            ordered += [name, *axes] if name == "rating" else [name]
        return [name for name in ordered if name in found]


def letters(place: int) -> str:
    """The name of a column of a spreadsheet: a .. z, aa, ab, ..."""
    return (letters(place // 26 - 1) if place >= 26 else "") + ascii_lowercase[place % 26]


def _said(event: Feedback, ids: list[str], names: list[str]) -> dict[str, str]:
    """The cells of an answer."""
    if not set(event.display_order) <= set(ids):
        raise AssentError("it was shown with other items than its question names")
    ballot = Ballot.of(event, ids)
    cells = {
        "preference": names[ballot.better] if ballot.better is not None else ballot.verdict,
        "ranking": " > ".join(" = ".join(names[place] for place in tier) for tier in ballot.tiers),
        "approved": "" if ballot.approved is None else "yes" if ballot.approved else "no",
        **{name: getattr(ballot, name) for name in ("correction", "critique", "quote", "demonstration", "note")},
        "flags": ", ".join(ballot.flags),
        "annotator": event.annotator,
        "at": demand_time(event),
        "seconds": _spelt(event.duration, 0.0),
        "shown": " ".join(names[ids.index(item)] for item in event.display_order),
        "id": seal(event),
        **{name: _spelt(getattr(ballot, name), getattr(Ballot, name)) for name in ("certainty", "margin", "weight")},
    }
    if ballot.better is not None:
        cells["strength"] = str(ballot.strength)
    return cells | {("rating" if axis == "overall" else AXIS + axis): _spelt(value) for axis, value in ballot.axes}


def _sheet(row: Row, source: str) -> Sheet:
    facts: dict[str, Any] = {name: row[name] for name in ("purpose", "instruction", "mode") if row.get(name)}
    names = _names(row)
    told = _prompt(row)
    asked = {"messages": told} if isinstance(told, list) else {"prompt": told}
    sheet = screen(asked, {**facts, "shown": False}, source, {name: Completion(row[name]) for name in names})
    cut = {sheet.place(name) for name in _words(row, "cut")}
    items = tuple(replace(item, finished=False) if place in cut else item for place, item in enumerate(sheet.items))
    shown = tuple(sheet.place(name) for name in _words(row, "shown"))
    if shown and sorted(shown) != list(range(len(items))):
        raise AssentError(f"'shown' is '{row['shown']}', which does not name each of {len(items)} answers once")
    sheet = replace(sheet, items=items, shown=shown)
    # A file of ours has the answers in the order of their question; of others that order may tell which is the better.
    if not row.get("query"):
        return sheet
    ours = replace(sheet, order=tuple(range(len(items))))
    return (
        ours if any(ours.ask(kind).id == row["query"] for kind in ("comparison", "ranking", "demonstration")) else sheet
    )


def _names(row: Row) -> list[str]:
    """The columns of the answers."""
    sets = [list(takewhile(row.get, map(letters, count()))), [ANSWER] * bool(row.get(ANSWER))]
    filled = [names for names in (*sets, list(PAIR) * _is_pair(row)) if names]
    if len(filled) > 1:
        raise AssentError(f"answers both under '{filled[1][0]}' and under '{filled[0][0]}'")
    return filled[0] if filled else []


def _is_pair(row: Row) -> bool:
    return all(name in row for name in PAIR) and any(row[name].strip() for name in PAIR)


def _is_judged(row: Row) -> bool:
    """Whether the table has a column for what was said, filled in here or not."""
    return _is_pair(row) or any(name in SAID or name.startswith(AXIS) for name in row)


def _prompt(row: Row) -> str | list[Any]:
    """Text, or the messages of a conversation if the cell is a JSON array of them."""
    cell: str = get(row, "prompt")
    if re.match(r"\s*\[\s*\{", cell):
        try:
            messages({"prompt": json.loads(cell)}, "prompt")
        except (ValueError, RecursionError, AssentError):
            return cell
        found: list[Any] = json.loads(cell)
        return found
    return cell


def _choice(row: Row, sheet: Sheet) -> dict[str, Any]:
    word = row.get("preference", "").strip() or (PAIR[0] if _is_pair(row) else "")
    if not word:
        return {}
    if verdict := verdict_of(word):
        return {"verdict": verdict}
    strength = _number(row, "strength", 1)
    return {"better": _side(word.lower(), sheet), "strength": strength}


def _side(word: str, sheet: Sheet) -> int:
    """The place of an answer that is called by its column, or by its side as in other tools."""
    side = SIDE.fullmatch(word)
    if word in sheet.names or side is None or len(sheet.items) != 2:
        return sheet.place(word)
    letter, number, hand = side.groups()
    place = int(number) - 1 if number else ord(letter) - ord("a") if letter else ("left", "right").index(hand)
    return place if place in (0, 1) else sheet.place(word)


def _tiers(row: Row, sheet: Sheet) -> tuple[tuple[int, ...], ...]:
    """`b > a = c`, best first."""
    spelt = row.get("ranking", "").strip().lower()
    return tuple(tuple(sheet.place(n.strip()) for n in tier.split("=")) for tier in spelt.split(">")) if spelt else ()


def _yes(row: Row) -> bool | None:
    word = row.get("approved", "").strip().lower()
    if word and word not in YES:
        raise AssentError(f"'approved' is '{word}', not yes or no")
    return YES.get(word)


def _words(row: Row, key: str) -> tuple[str, ...]:
    """What a cell lists: letters apart by spaces, or words apart by commas."""
    cell = row.get(key, "")
    return tuple(word.strip() for word in (cell.split(",") if key == "flags" else cell.lower().split()) if word.strip())


def _number(row: Row, key: str, usual: float) -> float:
    """A number, with a point or with a decimal comma."""
    cell = row.get(key, "").strip()
    if not cell:
        return usual
    if THOUSANDS.fullmatch(cell):
        raise AssentError(f"'{key}' is '{cell}', which may be {cell.replace(',', '')} or {cell.replace(',', '.')}")
    try:
        value = float(cell if "." in cell else cell.replace(",", "."))
    except ValueError:
        raise AssentError(f"'{key}' is '{cell}', not a number") from None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _spelt(value: float, usual: float | None = None) -> str:
    return "" if value == usual else repr(value)


def _dumped(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False)
