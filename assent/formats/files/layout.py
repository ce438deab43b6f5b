"""What lies before people in other labelling tools: a prompt and answers under names of all sorts, in one order."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, get_args

from assent.errors import AssentError, did_you_mean
from assent.formats import Row, TaskWithJudgements, messages, plain, said, talk, text
from assent.records import Completion, Feedback, Prompt, Purpose, Response, Task
from assent.registry import resolve

PROMPTS = ("prompt", "question", "instruction", "query", "input", "document", "chat", "conversation")
"""Fields that hold what was asked; the first that is there does."""
ANSWERS = ("response", "answer", "completion", "output", "generation", "reply", "summary", "text", "")
"""Fields that hold an answer, alone or numbered: `response`, `answer1`, `reply-2`, `text_a`, `b`."""
NUMBERED = re.compile(r"(?P<stem>.*?)[-_ ]?(?P<number>\d+)|(?:(?P<before>.*)[-_ ])?(?P<letter>[a-z]|left|right)")


@dataclass(frozen=True)
class Sheet:
    """What lay before an annotator."""

    prompt: Prompt
    items: tuple[Response, ...] = ()
    """In the order of the file."""
    names: tuple[str, ...] = ()
    """What the file calls the items."""
    order: tuple[int, ...] | None = None
    """Places of the items in the query; None: by their ids, for the order of a file may tell which is the better."""
    shown: tuple[int, ...] = ()
    """Places of the items as they stood on the screen; empty if nobody knows."""
    purpose: Purpose = "train"
    instruction: str = ""

    def ask(self, kind: str) -> Task:
        """The question that somebody answered in this way."""
        ids = [item.id for item in self.items]
        if len(set(ids)) < len(ids):
            raise AssentError("identical replies")
        items = sorted(ids) if self.order is None else [ids[place] for place in self.order]
        return Task(kind, self.prompt.id, tuple(items), self.purpose, self.instruction)

    def unanswered(self, kind: str) -> TaskWithJudgements:
        """The question alone."""
        if len(self.items) not in resolve("feedback", kind).num_items:
            raise AssentError(f"a {kind} about {len(self.items)} answers")
        return TaskWithJudgements(self.prompt, self.items, self.ask(kind))

    def place(self, name: str) -> int:
        """Where the item stands that a tool calls so, or by its number alone."""
        if name in self.names:
            return self.names.index(name)
        wanted = _bare(name)
        ends = [NUMBERED.fullmatch(each.lower()) for each in self.names]
        found = [
            place
            for place, (each, end) in enumerate(zip(self.names, ends, strict=True))
            if wanted and (_bare(each) == wanted or (end and wanted in (end["number"], end["letter"])))
        ]
        if len(found) != 1:
            raise AssentError(f"no answer '{name}' among {', '.join(self.names) or 'none'}")
        return found[0]


def fields_of(sheet: Sheet) -> dict[str, Any]:
    """The prompt as text to look at, and as messages if it is a conversation."""
    prompt = sheet.prompt
    if prompt.is_plain:
        return {"prompt": prompt.text}
    alone = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    whole = prompt.text if alone else "\n\n".join(f"{turn.role}: {turn.content}" for turn in prompt.messages)
    return {"prompt": whole, "messages": [turn.to_dict() for turn in prompt.messages]}


def screen(fields: Row, facts: Row, source: str, answers: Mapping[str, Completion] | None = None) -> Sheet:
    """The sheet that named fields were.

    Args:
        facts: what `facts_of` wrote; empty in files of others.
        answers: names and contents of the items, where the fields hold them as a list.
    """
    key = next((name for name in PROMPTS if fields.get(name)), "prompt")
    if fields.get("messages"):
        prompt = talk(facts, messages(fields, "messages"))
    elif isinstance(fields.get(key), list):
        prompt = talk(facts, messages(fields, key))
    elif key in fields:
        prompt = plain(facts, text(fields, key))
    else:
        raise AssentError(f"no prompt among {', '.join(fields) or 'no fields'}: name one of them 'prompt'")
    prompt = replace(prompt, source=source)
    if answers is None:
        texts = answer_fields({k: v for k, v in fields.items() if k != key})
        answers = {name: Completion(text(texts, name)) for name in texts}
    cut = places(facts, "cut", len(answers))
    who = f"imported:{source}"
    items = [
        Response(prompt.id, each.text if each.extra else said(each.text, name), who, place not in cut, extra=each.extra)
        for place, (name, each) in enumerate(answers.items())
    ]
    shown = facts.get("shown", len(items) > 1)
    purpose = facts.get("purpose", "train")
    if purpose not in get_args(Purpose):
        raise AssentError(f"no purpose '{purpose}'{did_you_mean(str(purpose), get_args(Purpose))}")
    instruction = text(facts, "instruction") if "instruction" in facts else ""
    order = places(facts, "order", len(items)) if "order" in facts else None
    if order is not None and sorted(order) != list(range(len(items))):
        raise AssentError(f"'order' is {list(order)}, which does not name each of {len(items)} answers once")
    return Sheet(
        prompt, tuple(items), tuple(answers), order, tuple(range(len(items))) * bool(shown), purpose, instruction
    )


def unused(fields: Row, answers: Mapping[str, Completion] | None = None) -> Row:
    """The fields that `screen` does not look at."""
    key = next((name for name in PROMPTS if fields.get(name)), "prompt")
    rest = {name: value for name, value in fields.items() if name not in ("messages", key)}
    try:
        read = answer_fields(rest) if answers is None else {}
    except AssentError:
        return {}  # the row is refused
    return {name: value for name, value in rest.items() if name not in read}


def usual_kind(sheet: Sheet) -> str:
    """What is asked about so many answers, where nobody says."""
    return ("demonstration", "rating", "comparison", "ranking")[min(len(sheet.items), 3)]


def facts_of(sheet: Sheet, kind: str) -> dict[str, Any]:
    """What other tools have no word for, but carry along; `screen` reads it."""
    told: dict[str, Any] = {"kind": kind, "shown": bool(sheet.shown)}
    if len(sheet.items) > 1 and sheet.order is not None:
        told["order"] = list(sheet.order)
    if cut := [place for place, item in enumerate(sheet.items) if not item.finished]:
        told["cut"] = cut
    if sheet.prompt.tools:
        told["tools"] = list(sheet.prompt.tools)
    more = {"mode": sheet.prompt.category, "instruction": sheet.instruction}
    more["purpose"] = "" if sheet.purpose == "train" else sheet.purpose
    return told | {name: value for name, value in more.items() if value}


def sheets(thing: TaskWithJudgements, names: Iterable[str]) -> Iterator[tuple[Sheet, list[Feedback]]]:
    """A question as the sheets that were filled in, and who filled in each: on one sheet all saw one order."""
    items = {item.id: item for item in thing.items}
    orders: dict[tuple[str, ...], list[Feedback]] = {}
    for event in thing.answers:
        orders.setdefault(event.display_order, []).append(event)
    for shown, events in orders.items() or [((), [])]:
        ids = list(shown or thing.query.items)
        if sorted(ids) != sorted(thing.query.items):
            raise AssentError("it was shown with other items than its question names")
        order = tuple(ids.index(item) for item in thing.query.items)
        told = (thing.query.purpose, thing.query.instruction)
        seen = tuple(range(len(ids))) if shown else ()
        called_so = tuple(name for name, _ in zip(names, ids, strict=False))
        yield Sheet(thing.prompt, tuple(items[item] for item in ids), called_so, order, seen, *told), events


def places(row: Row, key: str, count: int) -> tuple[int, ...]:
    """A list of places of items."""
    found = row.get(key, [])
    if not isinstance(found, list) or not all(type(each) is int and 0 <= each < count for each in found):
        raise AssentError(f"'{key}' is {found!r}, not places of {count} answers")
    return tuple(found)


def _bare(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def answer_fields(fields: Row, known: bool = False) -> dict[str, str]:
    """The fields that are answers: a numbered set of them, or one of a name that we know.

    Args:
        known: whether a numbered set has to have such a name too.
    """
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    sets: dict[str, dict[str, str]] = {}
    for name in texts:
        if found := NUMBERED.fullmatch(name.lower()):
            stem = found["stem"] or found["before"] or ""
            sets.setdefault(stem, {})[found["number"] or found["letter"]] = name
    whole = {stem: named for stem, named in sets.items() if _complete(list(named))}
    stems = [stem for stem in ANSWERS if stem in whole] or ([] if known else list(whole))
    if len(stems) > 1 and stems[0] not in ANSWERS:
        raise AssentError(f"answers could be any of {', '.join(chain(*(whole[stem].values() for stem in stems)))}")
    if stems:
        named = whole[stems[0]]
        return {named[number]: texts[named[number]] for number in sorted(named, key=lambda each: (len(each), each))}
    return next(({name: texts[name]} for name in ANSWERS if name in texts), {})


def _complete(numbers: list[str]) -> bool:
    """Whether these are 1 .. n, 0 .. n, a .. z or left and right, two or more."""
    ends = sorted(numbers, key=lambda each: (len(each), each))
    letters: list[list[str]] = [["left", "right"]]
    letters += [[str(place + start) for place in range(len(ends))] for start in (0, 1)]
    letters += [[chr(ord("a") + place) for place in range(min(len(ends), 26))]]
    return len(ends) > 1 and ends in letters
