"""A table for spreadsheets, RFC 4180: a row for each answer, under a header that says what its cells are."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count, takewhile
from string import ascii_lowercase
from typing import Any, ClassVar

from assent.errors import AssentError
from assent.records import Feedback
from assent.store.ballots import (
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
from assent.store.formats import Format, Inquiry, Row, Shape, get, is_plain, messages
from assent.store.sheets import Sheet, fields_of, screen

ANSWER = "response"
"""The column of an answer that stands alone; several are a, b, c, ..."""
AXIS = "rating:"
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

    holds: ClassVar[tuple[type, ...]] = (Inquiry,)
    shape: ClassVar[Shape] = "table"

    scale: str = "1-7"
    """Ratings of the file."""

    def fits(self, row: Row) -> int:
        return int("prompt" in row)

    def decode(self, row: Row, source: str) -> Iterable[Inquiry]:
        sheet = _sheet(row, source)
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
        who = pseudonym(row.get("annotator", "").strip()) or f"imported:{source}"
        at = time_of({"at": row.get("at", "").strip()}, "at")
        yield from heard(sheet, Ballot(**told), Voice(who, at, _number(row, "seconds", 0.0), row.get("id", "").strip()))

    def _stars(self, row: Row, name: str) -> float:
        return stretched(_number(row, name, 0.0), self.scale)

    def encode(self, thing: Inquiry) -> Iterable[Row]:
        if not thing.answers:
            raise AssentError("a question without an answer, and a row of a table is an answer")
        ids = list(thing.query.items)
        items = {item.id: item for item in thing.items}
        alone = len(ids) == 1
        names = [ANSWER] if alone else [letters(place) for place in range(len(ids))]
        prompt = thing.prompt.text if is_plain(thing.prompt) else _dumped(fields_of(Sheet(thing.prompt))["messages"])
        question = {
            "prompt": prompt,
            **{name: items[item].text for name, item in zip(names, ids, strict=True)},
            "purpose": thing.query.purpose,
            "instruction": thing.query.instruction,
            "mode": thing.prompt.mode,
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
    ballot = Ballot.of(event, ids)
    cells = {
        "preference": names[ballot.better] if ballot.better is not None else ballot.verdict,
        "ranking": " > ".join(" = ".join(names[place] for place in tier) for tier in ballot.tiers),
        "approved": "" if ballot.approved is None else "yes" if ballot.approved else "no",
        **{name: getattr(ballot, name) for name in ("correction", "critique", "quote", "demonstration", "note")},
        "flags": ", ".join(ballot.flags),
        "annotator": event.annotator,
        "at": demand_time(event),
        "seconds": _spelt(event.seconds, 0.0),
        "shown": " ".join(names[ids.index(item)] for item in event.shown),
        "id": seal(event),
        **{name: _spelt(getattr(ballot, name), getattr(Ballot, name)) for name in ("certainty", "margin", "weight")},
    }
    if ballot.better is not None:
        cells["strength"] = str(ballot.strength)
    return cells | {("rating" if axis == "overall" else AXIS + axis): _spelt(value) for axis, value in ballot.axes}


def _sheet(row: Row, source: str) -> Sheet:
    facts: dict[str, Any] = {name: row[name] for name in ("purpose", "instruction", "mode") if row.get(name)}
    names = list(takewhile(row.get, map(letters, count())))
    if row.get(ANSWER) and names:
        raise AssentError(f"answers both under '{ANSWER}' and under '{names[0]}'")
    names = names or [ANSWER] * bool(row.get(ANSWER))
    told = _prompt(row)
    asked = {"messages": told} if isinstance(told, list) else {"prompt": told}
    sheet = screen(asked, {**facts, "shown": False}, source, {name: row[name] for name in names})
    cut = {sheet.place(name) for name in _words(row, "cut")}
    items = tuple(replace(item, finished=place not in cut) for place, item in enumerate(sheet.items))
    shown = tuple(sheet.place(name) for name in _words(row, "shown"))
    if shown and sorted(shown) != list(range(len(items))):
        raise AssentError(f"'shown' is '{row['shown']}', which does not name each of {len(items)} answers once")
    sheet = replace(sheet, items=items, shown=shown)
    # A file of ours has the answers in the order of their question; of others that order may tell which is the better.
    ours = replace(sheet, order=tuple(range(len(items))))
    kinds = ("comparison", "ranking", "demonstration")
    return ours if row.get("query") in [ours.ask(kind).id for kind in kinds] else sheet


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
    word = row.get("preference", "").strip()
    if not word:
        return {}
    if verdict := verdict_of(word):
        return {"verdict": verdict}
    strength = _number(row, "strength", 1)
    return {"better": sheet.place(word.lower()), "strength": strength}


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
    try:
        value = float(cell if "." in cell else cell.replace(",", "."))
    except ValueError:
        raise AssentError(f"'{key}' is '{cell}', not a number") from None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _spelt(value: float, usual: float | None = None) -> str:
    return "" if value == usual else repr(value)


def _dumped(found: Any) -> str:
    return json.dumps(found, ensure_ascii=False)
