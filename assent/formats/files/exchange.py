"""Files in and out: which format a file has, what it tells the store, and which of its rows were refused and why."""

import gzip
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from assent.errors import AssentError, did_you_mean, warn
from assent.feedback import body, check
from assent.feedback.approval import Approval
from assent.feedback.comparison import Comparison
from assent.feedback.demonstration import Demonstration
from assent.feedback.ranking import Ranking
from assent.feedback.rating import Rating
from assent.formats import EMPTY, Format, Remark, Row, TaskWithJudgements, Thing, from_cells
from assent.formats.files.annotation import UNKNOWN_TIME, going_out, looks_judged, scale_of
from assent.formats.files.arrow import is_arrow
from assent.formats.files.rows import Layout, Line, demand_utf8, dump, layout, recode, rows_of, splits_of, without
from assent.formats.files.splits import Place, find
from assent.formats.rating import stars
from assent.records import (
    Completion,
    Example,
    Feedback,
    Preference,
    Prompt,
    Purpose,
    RankedCompletions,
    Response,
    ScoredCompletion,
    SFTExample,
    SkippedRow,
    Task,
    content_id,
)
from assent.registry import name_of, names, resolve
from assent.store.database import Counts, Store

FOLDER = "formats"
FORMATS: dict[str, Format] = {name.replace("_", "-"): resolve(FOLDER, name)() for name in names(FOLDER)}
"""By the names that people write."""
LOOK = 20
"""Good rows by whose keys the format is told."""
CHUNK = 1_000
"""Rows that are passed on together; the rest of a file is not held."""
TABLES = (".csv", ".tsv")
TWICE = "repeated under one id, counted once"
CHANGED = "this format would give it back as something else"
WEIGHTLESS = "a weight of 0: nothing is trained on it"


@dataclass(frozen=True)
class Reading:
    """What a file holds, as answers for the store and as examples to train on; and what it holds in vain."""

    format: str
    examples: tuple[Example, ...]
    """Made from the feedback below; empty for `events`, which `preferences.convert` turns into examples."""
    prompts: tuple[Prompt, ...]
    responses: tuple[Response, ...]
    queries: tuple[Task, ...]
    feedback: tuple[Feedback, ...]
    rejected: tuple[SkippedRow, ...]
    """Rows, and parts of rows."""
    rows: int
    """Good and broken ones; blank lines are none."""
    used: int
    """Rows of which at least a part was good."""
    remarks: tuple[str, ...] = ()
    """What was assumed, once for each answer."""

    def __str__(self) -> str:
        line = f"{self.used} of {self.rows} rows read as {self.format}"
        reasons = Counter(row.reason for row in self.rejected).most_common()
        return line + "".join(f"; {count} rejected: {reason}" for reason, count in reasons)


class Written(NamedTuple):
    """Rows written, and what the format cannot hold."""

    rows: int
    left_out: tuple[SkippedRow, ...]


Refusal = Callable[[Prompt, Sequence[Completion]], str]
"""Why a prompt with completions of it is of no use; empty if it is of use."""


@dataclass(frozen=True)
class Source:
    """A file whose format is known."""

    place: Place
    """Where its bytes lie: of a pipe, in a copy."""
    format: str
    layout: Layout
    made: Format
    ignore: tuple[str, ...] = ()
    rows: int = 0
    """Good and broken ones."""
    unread: Counter[str] = field(default_factory=Counter)
    """Keys that the format does not read, and how many rows say something there."""
    copy: IO[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.place.name


def look(
    path: str | Path, format: str = "auto", scale: str = "", encoding: str = "utf-8", ignore: Collection[str] = ()
) -> Source:
    """Find out how a file is to be read, and look through it before anything of it is stored.

    Args:
        format: a name in `FORMATS`, or `auto`: told from the keys of the first good rows.
        scale: of ratings, such as `1-5`, for formats that do not tell it.
        ignore: columns to leave out, whatever they hold; `messages.KEY` for a key of messages.

    Raises:
        AssentError: a file that cannot be read, is empty, whose encoding or format is another one, or that holds
            judgements which its format does not read.
    """
    path = Path(path)
    place = find(path)
    if format not in (*FORMATS, "auto"):
        raise AssentError(f"no format '{format}'{did_you_mean(format, FORMATS)}")
    copy = _copy(place.paths[0], encoding)
    place = place._replace(paths=(Path(copy.name),)) if copy else place
    how = _layout(place, FORMATS.get(format))
    if how == "splits":
        place = place.choose(splits_of(place.paths[0]), path.parent if place.split else path)
    elif place.split and not place.splits:
        raise AssentError(f"{path.parent} is a file without splits: name it alone")
    known = _detect(path, _kept(rows_of(place, how), ignore), how, wanted=format)
    made = FORMATS[known]
    if scale:
        scale_of(scale)
        if "scale" not in [each.name for each in fields(made)]:  # type: ignore[arg-type]  # formats are dataclasses
            raise AssentError(f"{known} tells the scale of its ratings: leave --scale out")
        made = replace(made, scale=scale)  # type: ignore[type-var]
    count, unread = _survey(rows_of(place, how), path, known, made, ignore)
    return Source(place, known, how, made, tuple(ignore), count, unread, copy)


def stream(source: Source, chunk: int | None = CHUNK, refusal: Refusal | None = None) -> Iterator[Reading]:
    """Read a file some rows at a time; nothing but ids is remembered from one reading to the next.

    Args:
        chunk: rows of a reading; None: one reading of all.
        refusal: says why a prompt with completions of it is of no use, or nothing; such rows are rejected.
    """
    known, lines = _Known(), _in_turn(source)
    while rows := list(islice(lines, chunk)):
        yield _reading(source.format, _things(rows, source), source.name, known, source.made, refusal)


def read(path: str | Path, format: str = "auto", scale: str = "") -> Reading:
    """Read a whole file, as `look` and `stream` do.

    Raises:
        AssentError: a file that cannot be read, is empty, or whose format is unknown. Broken rows are in `rejected`.
    """
    source = look(path, format, scale)
    if split := str(source.place):
        warn(f"{path}: {split}")
    return next(stream(source, None))


def load(path: str | Path, store: Store, format: str = "auto", scale: str = "") -> Reading:
    """Read a file into the store; a second time changes nothing.

    A preference becomes a comparison of two responses, a label an approval, an imitation a demonstration, all of them
    by annotator `imported:<file name>` and policy of the same name.
    """
    reading = read(path, format, scale)
    put(reading, store)
    return reading


def add(examples: Iterable[Example], store: Store, source: str) -> Reading:
    """Put examples into the store as `load` would those of a file of that name.

    Raises:
        AssentError: one that no answer stands for, such as a preference between a completion and itself.
    """
    things = list(examples)
    for number, thing in enumerate(things, 1):
        if isinstance(thing, Preference) and replace(thing.chosen, finished=thing.rejected.finished) == thing.rejected:
            raise AssentError(f"example {number} prefers a completion to itself: {thing.chosen.text[:60]!r}")
        if isinstance(thing, ScoredCompletion) and not 0 <= thing.value <= 1:
            raise AssentError(
                f"example {number} is a label of {thing.value:g}, not from 0 (disapproved) to 1 (approved)"
            )
    found = ((Line(f"example {number}", {}, "", ""), (thing,)) for number, thing in enumerate(things, 1))
    reading = _reading("examples", found, source, _Known())
    put(reading, store)
    return reading


def put(reading: Reading, store: Store) -> Counts:
    """Add what was read, and return how much of it is new.

    Raises:
        AssentError: an answer is there already with another body.
    """
    there = {event.id: event for event in store.feedback(ids=(event.id for event in reading.feedback))}
    known = {item.id for item in store.responses(ids=(item.id for item in reading.responses))}
    made = FORMATS.get(reading.format)
    # A file of questions does not say who wrote the answers that it shows: one that is there needs no other writer.
    every = made is None or TaskWithJudgements not in made.holds
    return Counts(
        store.add_prompts(reading.prompts),
        store.add_responses(item for item in reading.responses if every or item.id not in known),
        store.add_tasks(reading.queries),
        store.add_feedback(event for event in reading.feedback if not _same(event, there.get(event.id))),
    )


def _same(event: Feedback, stored: Feedback | None) -> bool:
    """Whether an answer is there, although a file did not tell all about it."""
    return stored is not None and going_out(event) == going_out(stored)


def questions(store: Store, purpose: Purpose | None = None) -> Iterator[TaskWithJudgements]:
    """The questions of a store, in the order in which they were asked, each with the answers that stand.

    Answers that a later one supersedes are left out. Of all answers only ids are held.
    """
    said: dict[str, list[str]] = {}
    superseded: set[str] = set()
    for event in store.feedback():
        said.setdefault(event.task, []).append(event.id)
        superseded.add(event.supersedes)
    asked = store.tasks(purpose)
    while some := list(islice(asked, CHUNK)):
        prompts = {prompt.id: prompt for prompt in store.prompts(ids=(query.prompt for query in some))}
        wanted = {item for query in some for item in query.items}
        items = {item.id: item for item in store.responses(ids=wanted)}
        ids = [name for query in some for name in said.get(query.id, ()) if name not in superseded]
        events = {event.id: event for event in store.feedback(ids=ids)}
        for query in some:
            answers = tuple(events[name] for name in said.get(query.id, ()) if name in events)
            yield TaskWithJudgements(prompts[query.prompt], tuple(items[item] for item in query.items), query, answers)


def write(
    source: Store | Iterable[Example | Prompt | TaskWithJudgements],
    path: str | Path,
    format: str,
    watch: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> Written:
    """Write examples, prompts, inquiries or a whole store; gzipped if the name ends in `.gz`.

    Each row is read back before it is written: what a format cannot hold is left out, and named by its position.

    Args:
        watch: what the things go through on their way, to show how far they are.

    Raises:
        AssentError: an unknown format, a store in a format of examples, or a file that cannot be written.
    """
    path, left_out = Path(path), list[SkippedRow]()
    if format not in FORMATS:
        raise AssentError(f"no format '{format}'{did_you_mean(format, FORMATS)}")
    made = FORMATS[format]
    found = chain.from_iterable(_encoded(place, thing, made, left_out) for place, thing in watch(_held(source, made)))
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            if path.suffix == ".gz":
                # No time in the header: the same examples make the same bytes.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as pack:
                    count = dump(pack, found, made.shape, made.header)  # type: ignore[arg-type]  # it writes bytes
            else:
                count = dump(file, found, made.shape, made.header)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise AssentError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return Written(count, tuple(left_out))


# Which format a file has


def _copy(path: Path, encoding: str) -> IO[bytes] | None:
    """What comes through a pipe, which cannot be read twice, or in another encoding; None for a file that is read."""
    other = encoding.lower().replace("_", "-") not in ("utf-8", "utf8") and not is_arrow(path)
    if path.is_dir() or not path.exists() or (path.is_file() and not other):
        return None
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 (it is there as long as its source is)
    if other:
        recode(path, path.name, encoding, copy)
    else:
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
    copy.flush()
    return copy


def _layout(place: Place, wanted: Format | None) -> Layout:
    """How files are laid out."""
    if is_arrow(place.paths[0]):
        return "arrow"
    demand_utf8(place.paths[0], place.name)
    named = any(place.name.lower().removesuffix(".gz").endswith(end) for end in TABLES)
    return layout(place.paths[0], named if wanted is None or wanted.tabular else wanted.shape == "table")


def _kept(lines: Iterable[Line], ignore: Collection[str]) -> Iterator[Line]:
    """Rows without what is to be ignored."""
    for line in lines:
        yield line._replace(row=without(line.row, ignore)) if ignore and line.row is not None else line


def _detect(path: Path, found: Iterable[Line], how: Layout, wanted: str) -> str:
    """The format of the first good rows, those that no format knows aside; or the one that is wanted."""
    table = how == "table"
    candidates = {n: f for n, f in FORMATS.items() if (f.shape == "table") == table or (table and f.tabular)}
    broken: Line | None = None
    keys: str | None = None
    votes: Counter[str] = Counter()
    for line in found:
        if line.row is None:
            broken = broken or line
            continue
        keys = keys if keys is not None else ", ".join(line.row) or "no keys"
        if wanted != "auto":
            return wanted
        fit, name = max((made.fits(line.row), -place) for place, made in enumerate(candidates.values()))
        votes[list(candidates)[-name]] += bool(fit)
        if votes.total() >= LOOK:
            break
    if keys is None and broken is None:
        raise AssentError(f"{path} is empty")
    if keys is None and broken is not None:
        what = "no row under its header" if how == "table" else "no JSON object"
        raise AssentError(f"{path} holds {what}; first {broken.where}: {broken.reason}")
    if not votes.total():
        raise AssentError(f"{path}: no format has rows of {keys}; known: {', '.join(candidates)}")
    return votes.most_common(1)[0][0]


def _survey(
    lines: Iterable[Line], path: Path, format: str, made: Format, ignore: Collection[str]
) -> tuple[int, Counter[str]]:
    """How many rows a file has, and which of their keys nobody reads.

    Raises:
        AssentError: judgements are among these keys, or rows would be misread.
    """
    count, unread, judged, there = 0, Counter[str](), Counter[str](), set[str]()
    sides = {"chosen", "rejected"} <= made.reads or made.shape == "table"
    for line in lines:
        count += 1
        if line.row is None:
            continue
        row = without(line.row, ignore)
        ignored = {key: line.row.get(key) for key in ignore if without(line.row, (key,)) != line.row}
        there.update(ignored)
        made.demand_clear(row)
        try:
            rest = made.unread(row)
        except AssentError:
            continue  # the row is refused for the same reason
        unread.update(key for key, value in ignored.items() if value not in EMPTY or key not in line.row)
        said = {key: value for key, value in rest.items() if value not in EMPTY}
        unread.update(said.keys())
        judged.update(key for key, value in said.items() if looks_judged(key, value, sides))
    if strange := [key for key in ignore if key not in unread and key not in there]:
        raise AssentError(f"{path}: no key '{strange[0]}' to ignore{did_you_mean(strange[0], unread)}")
    if judged.keys() - set(ignore):
        whole = ",".join({**dict.fromkeys(ignore), **judged})
        keys = ", ".join(f"'{key}' ({count_of(rows)})" for key, rows in judged.items() if key not in ignore)
        raise AssentError(
            f"{path}: {format} does not read {keys}, which look like judgements or deletions: "
            f"rename or remove them, name another --format, or import the rest with --ignore {whole}"
        )
    return count, unread


def count_of(rows: int) -> str:
    """Rows in words."""
    return f"{rows} row{'' if rows == 1 else 's'}"


# Rows of a file and what they stand for


@dataclass
class _Known:
    """What a file has told so far, by ids alone."""

    prompts: set[str] = field(default_factory=set)
    responses: set[tuple[str, str]] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    queries: dict[str, Task] = field(default_factory=dict)
    feedback: dict[str, int] = field(default_factory=dict)
    """Hashes of bodies."""
    told: Counter[str] = field(default_factory=Counter)
    """Equal answers of one annotator count as often as they stand in the file."""
    origins: dict[tuple[str, ...], tuple[str, set[str]]] = field(default_factory=dict)
    """Where the answers stood first that have an id in the file, and what they were."""


@dataclass
class _Pile:
    """What some rows stand for."""

    examples: list[Example] = field(default_factory=list)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    responses: dict[tuple[str, str], Response] = field(default_factory=dict)
    queries: dict[str, Task] = field(default_factory=dict)
    feedback: list[Feedback] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def _in_turn(source: Source) -> Iterator[Line]:
    """The rows of a file; those that refer to others come after them, and wait in a file until then."""
    later: dict[int, IO[str]] = {}
    for line in _kept(rows_of(source.place, source.layout), source.ignore):
        turn = source.made.turn(line.row) if line.row is not None else 0
        if not turn:
            yield line
            continue
        if turn not in later:
            later[turn] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed below)
        later[turn].write(json.dumps([line.where, line.raw]) + "\n")
    for _, kept in sorted(later.items()):
        with kept:
            kept.seek(0)
            for where, raw in map(json.loads, kept):
                yield Line(where, without(json.loads(raw), source.ignore), "", raw)


def _things(lines: Iterable[Line], source: Source) -> Iterator[tuple[Line, Sequence[Thing | SkippedRow | Remark]]]:
    """Rows and what they stand for; a broken one for the reason why it stands for nothing."""
    cells = source.layout == "table" and bool(source.made.reads)
    for line in lines:
        if line.row is None:
            yield line, (SkippedRow("", line.reason),)
            continue
        try:
            row = from_cells(line.row) if cells else line.row
            yield line, tuple(source.made.decode(row, source.name))
        except AssentError as error:
            yield line, (SkippedRow("", str(error)),)


def _reading(
    format: str,
    found: Iterable[tuple[Line, Sequence[Thing | SkippedRow | Remark]]],
    source: str,
    known: _Known,
    made: Format | None = None,
    refusal: Refusal | None = None,
) -> Reading:
    pile, rejected, total, used = _Pile(), list[SkippedRow](), 0, 0
    for line, things in found:
        total, good = total + 1, False
        for thing in things:
            try:
                if isinstance(thing, SkippedRow):
                    raise AssentError(thing.reason)
                if isinstance(thing, Remark):
                    pile.remarks.append(thing.text)
                elif made is not None and made.whole:
                    _lay_event(thing, known, pile)
                else:
                    if refusal is not None and (reason := refusal(*_asked_of(thing))):
                        raise AssentError(reason)
                    _lay(thing, line, source, known, pile, made.answer if made else "")
                good = True
            except AssentError as error:
                part = thing.where if isinstance(thing, SkippedRow) else ""
                rejected.append(SkippedRow(", ".join(filter(None, (line.where, part))), str(error), line.raw))
        used += good
    nouns = tuple(pile.prompts.values()), tuple(pile.responses.values()), tuple(pile.queries.values())
    remarks = tuple(pile.remarks)
    return Reading(format, tuple(pile.examples), *nouns, tuple(pile.feedback), tuple(rejected), total, used, remarks)


def _asked_of(thing: Thing) -> tuple[Prompt, list[Completion]]:
    """The prompt of a row, and the completions of it that may be trained."""
    match thing:
        case Prompt():
            return thing, []
        case TaskWithJudgements():
            return thing.prompt, [item.completion for item in thing.items]
        case Preference():
            return thing.prompt, [thing.chosen, thing.rejected]
        case RankedCompletions():
            return thing.prompt, [completion for tier in thing.tiers for completion in tier]
        case ScoredCompletion() | SFTExample():
            return thing.prompt, [thing.completion]
    raise TypeError(f"{type(thing).__name__} has no prompt")


def _lay(thing: Thing, line: Line, source: str, known: _Known, pile: _Pile, kind: str) -> None:
    """Put a thing on the pile, under the name of the file where it does not say where it is from."""
    if isinstance(thing, Prompt):
        pile.prompts.setdefault(thing.id, replace(thing, source=source))
        return
    assert not isinstance(thing, Response | Task | Feedback), "only whole formats tell these by themselves"
    prompt = thing.prompt if thing.prompt.source == source else replace(thing.prompt, source=source)
    prompt = pile.prompts.setdefault(prompt.id, prompt)
    if not isinstance(thing, TaskWithJudgements):
        thing = replace(thing, prompt=prompt)
        origin = str((line.row or {}).get("id") or "")
        told = _inquiry(thing, f"imported:{source}", kind)
        (event,) = told.answers
        # The id of a row may be that of its prompt: only the same answer under the same id is known.
        if _is_known(event, origin and f"{origin} {event.id}", line, known, pile):
            return
        if not thing.weight:
            pile.remarks.append(WEIGHTLESS)
        known.told[event.id] += 1
        event = replace(event, id=content_id(event.id, known.told[event.id]))
        told = told._replace(answers=(event,))
        pile.examples.append(replace(thing, feedback_ids=(event.id,)))
    else:
        fresh = [event for event in thing.answers if not _is_known(event, thing.origin, line, known, pile)]
        told = thing._replace(answers=tuple(_counted(event, known.told) for event in fresh))
        responses = {item.id: item for item in told.items}
        for event in told.answers if told.query.purpose == "train" else ():
            pile.examples += event.judgement.examples(told.query, prompt, responses, event.id, 1.0)
    pile.responses.update(((item.id, ""), item) for item in told.items)
    pile.queries[told.query.id] = told.query
    pile.feedback += told.answers


def _is_known(event: Feedback, origin: str, line: Line, known: _Known, pile: _Pile) -> bool:
    """Whether an answer stood in the file before, under the same id.

    Raises:
        AssentError: another answer stood there under that id.
    """
    if not origin:
        return False
    first, ids = known.origins.setdefault((origin, event.task, event.annotator), (line.where, set()))
    if event.id in ids:
        pile.remarks.append(TWICE)
        return True
    if first != line.where:
        raise AssentError("another answer stands in the file under the same id")
    ids.add(event.id)
    return False


def _counted(event: Feedback, told: Counter[str]) -> Feedback:
    """The same answer once more is another event."""
    told[event.id] += 1
    return event if told[event.id] == 1 else replace(event, id=content_id(event.id, told[event.id]))


def _inquiry(example: Example, who: str, kind: str) -> TaskWithJudgements:
    """The question and the answer that an imported example stands for."""
    prompt, weight = example.prompt.id, float(example.weight)
    answer: Comparison | Ranking | Approval | Rating | Demonstration
    match example:
        case Preference():
            items = [_response(prompt, each, who) for each in (example.chosen, example.rejected)]
            margin, p = float(example.margin), float(example.p_chosen)
            if p == 0.5:
                answer = Comparison(verdict="tie", weight=weight)  # equals have no margin
            else:
                answer = Comparison(items[p < 0.5].id, certainty=max(p, 1 - p), margin=margin, weight=weight)
        case RankedCompletions():
            tiers = [[_response(prompt, each, who) for each in tier] for tier in example.tiers]
            items = [item for tier in tiers for item in tier]
            answer = Ranking(tuple(tuple(item.id for item in tier) for tier in tiers), weight)
        case ScoredCompletion():
            items = [_response(prompt, example.completion, who)]
            rated = kind == "rating" or example.value not in (0, 1)
            answer = Rating((("overall", stars(example)),), weight) if rated else Approval(bool(example.value), weight)
        case SFTExample():
            extra = dict(example.completion.extra)
            spelt = json.dumps(extra, ensure_ascii=False, sort_keys=True) if extra else ""
            items, answer = [], Demonstration(example.completion.text, weight, spelt)
    # In the order of their ids: the order of the file would tell which is the better.
    query = Task(name_of(answer), prompt, tuple(sorted(item.id for item in items)))
    name = content_id("imported", who, query.id, body(answer))
    event = Feedback(query.id, who, answer, UNKNOWN_TIME, id=name)
    return TaskWithJudgements(example.prompt, tuple(items), query, (event,))


def _response(prompt: str, each: Completion, who: str) -> Response:
    return Response(prompt, each.text, who, each.finished, "", each.extra, each.token_ids, each.tokenizer)


def _lay_event(thing: Thing, known: _Known, pile: _Pile) -> None:
    """Put what a whole store held on the pile; it refers to what the file has told already."""
    match thing:
        case Prompt() if thing.id not in known.prompts:
            known.prompts.add(thing.id)
            pile.prompts[thing.id] = thing
        case Response() if (thing.id, thing.policy) not in known.responses:
            _demand_prompt(thing, known)
            known.responses.add((thing.id, thing.policy))
            known.items.add(thing.id)
            pile.responses[thing.id, thing.policy] = thing
        case Task() if thing.id not in known.queries:
            _demand_prompt(thing, known)
            if lost := set(thing.items) - known.items:
                raise AssentError(f"its item {min(lost)} is not in this file, or broken")
            known.queries[thing.id] = pile.queries[thing.id] = thing
        case Feedback():
            if thing.task not in known.queries:
                raise AssentError(f"its query {thing.task} is not in this file, or broken")
            check(thing.judgement, known.queries[thing.task])
            if known.feedback.get(thing.id, hash(thing)) != hash(thing):
                raise AssentError(f"feedback {thing.id} stands in this file with two bodies")
            if thing.id not in known.feedback:
                pile.feedback.append(thing)
            known.feedback[thing.id] = hash(thing)


def _demand_prompt(thing: Response | Task, known: _Known) -> None:
    if thing.prompt not in known.prompts:
        raise AssentError(f"its prompt {thing.prompt} is not in this file, or broken")


# Things as rows


def _held(source: Store | Iterable[Any], made: Format) -> Iterator[tuple[int, Any]]:
    """What is to be written, numbered."""
    found: Iterable[Any] = () if isinstance(source, Store) else source
    if isinstance(source, Store) and made.whole:
        found = chain(source.prompts(), source.responses(), source.tasks(), source.feedback())
    elif isinstance(source, Store) and TaskWithJudgements in made.holds:
        found = questions(source)
    elif isinstance(source, Store) and Prompt in made.holds:
        found = source.prompts()
    elif isinstance(source, Store) or made.whole:
        raise AssentError("'events' is for a store, the rest for examples: preferences.convert makes them of a store")
    return enumerate(found, 1)


def _encoded(place: int, thing: Any, made: Format, left_out: list[SkippedRow]) -> Iterator[Row]:
    """The rows of a thing, if they give it back."""
    if made.whole:
        yield from made.encode(thing)
        return
    if isinstance(thing, TaskWithJudgements) and TaskWithJudgements in made.holds:
        yield from _spoken(thing, made, left_out)
        return
    try:
        if not isinstance(thing, made.holds):
            raise AssentError(f"a {type(thing).__name__.lower()}, which this format does not hold")
        if isinstance(thing, Preference) and thing.p_chosen < 0.5:
            thing = replace(thing, chosen=thing.rejected, rejected=thing.chosen, p_chosen=1 - thing.p_chosen)
        mode = thing.category if isinstance(thing, Prompt) else thing.prompt.category
        (row,) = made.encode(thing)
        tools = (thing if isinstance(thing, Prompt) else thing.prompt).tools
        more = {"mode": mode, "tools": list(tools) if "tools" in made.reads else []}
        row = {**row, **{key: value for key, value in more.items() if value}}
        (back,) = _read_back(thing, [row], made)
        if _bare(back) != _bare(thing):
            raise AssentError(_lost(thing, [row]) or CHANGED)
    except AssentError as error:
        left_out.append(SkippedRow(f"example {place}", str(error)))
    else:
        yield row


def _bare(thing: Any) -> Any:
    if isinstance(thing, Prompt):
        return replace(thing, source="")
    return replace(thing, prompt=replace(thing.prompt, source=""), sources=())


def _read_back(thing: Any, written: list[Row], made: Format) -> list[Thing | SkippedRow | Remark]:
    """What the rows of a thing stand for."""
    try:
        return [back for row in written for back in made.decode(row, "")]
    except AssentError as error:
        raise AssentError(_lost(thing, written) or str(error)) from None


def _lost(thing: Prompt | Example | TaskWithJudgements, written: list[Row]) -> str:
    """What a format has no word for, of a thing that it gave back as something else; empty: nothing that is known."""
    prompt, shown = (thing if isinstance(thing, Prompt) else thing.prompt), list[Completion | Response]()
    match thing:
        case Preference():
            shown = [thing.chosen, thing.rejected]
        case RankedCompletions():
            shown = [each for tier in thing.tiers for each in tier]
        case ScoredCompletion() | SFTExample():
            shown = [thing.completion]
        case TaskWithJudgements():
            texts = [event.judgement for event in thing.answers if isinstance(event.judgement, Demonstration)]
            shown = [*thing.items, *(Completion("", extra=json.loads(each.extra or "{}")) for each in texts)]
    spelt = json.dumps(written)
    keys = [key for each in (*prompt.messages, *shown) for key in each.extra if key not in spelt]
    if keys:
        return f"a message with '{keys[0]}', which this format cannot hold"
    return "a prompt with tools, which this format cannot hold" if prompt.tools and "tools" not in spelt else ""


def _spoken(thing: TaskWithJudgements, made: Format, left_out: list[SkippedRow]) -> Iterator[Row]:
    """The rows of a question and its answers; where not all of them come back, of each answer that does."""
    try:
        yield from _rows_of(thing, made)
        return
    except AssentError as error:
        if len(thing.answers) < 2:
            where = f"answer {thing.answers[0].id}" if thing.answers else f"question {thing.query.id}"
            left_out.append(SkippedRow(where, str(error)))
            return
    for event in thing.answers:
        yield from _spoken(thing._replace(answers=(event,)), made, left_out)


def _rows_of(thing: TaskWithJudgements, made: Format) -> list[Row]:
    found = list(made.encode(thing))
    said: Counter[Feedback] = Counter()
    for back in _read_back(thing, found, made):
        if isinstance(back, SkippedRow):
            raise AssentError(_lost(thing, found) or back.reason)
        if isinstance(back, Remark):
            continue
        assert isinstance(back, TaskWithJudgements)
        same = back.query == thing.query and _bare(back.prompt) == _bare(thing.prompt)
        if not same or {item.id for item in back.items} != {item.id for item in thing.items}:
            raise AssentError(_lost(thing, found) or CHANGED)
        said.update(back.answers)
    if said != Counter(map(going_out, thing.answers)):
        raise AssentError(_lost(thing, found) or CHANGED)
    return found
