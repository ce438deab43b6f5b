"""One database holds what was asked and answered: many processes read and add, nobody takes anything back."""

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from assent.errors import AssentError
from assent.feedback import body, check, parse
from assent.records import MACHINES, Feedback, Message, Prompt, Purpose, Response, Task
from assent.registry import name_of
from assent.store import schema

BATCH = 5_000
"""Rows a transaction: a crash costs an unacknowledged batch at most, and other writers get their turn between two."""
IDS = 500
"""Ids a question: databases bound the number of parameters."""
ADVISORY_LOCK = 0x617373656E74
"""PostgreSQL has no BEGIN IMMEDIATE: writers queue at this number instead."""
MIGRATING = threading.Lock()
"""Alembic keeps its context in a global: of two threads that open two new files, one waits."""

Values = dict[str, Any]
Thing = TypeVar("Thing")


class Conflict(AssentError):
    """The same id was stored before, with another body."""


class Unusable(AssentError):
    """The database cannot be read or written."""


class Busy(Unusable):
    """Another process held the lock for longer than the time-out."""


class DiskFull(Unusable):
    """Nothing more can be stored; what was acknowledged is safe."""


class Counts(NamedTuple):
    """Rows of each table."""

    prompts: int
    responses: int
    tasks: int
    feedback: int


class Arrival(NamedTuple):
    """An event as it was stored, and what it answers."""

    seq: int
    digest: str
    """Of this event and of all before it: another one at this `seq` is of another history."""
    event: Feedback
    task: Task


class PromptPage(NamedTuple):
    """A page of the prompts that match a search."""

    prompts: list[Prompt]
    total: int


class Store:
    """What stages, pages and annotators share; any thread of any process may call, and commits what it adds."""

    def __init__(self, engine: sa.Engine, name: str, timeout: float = 30.0) -> None:
        self.name = name
        """Path or URL, without a password."""
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._timeout = timeout
        self._line = threading.Lock()

    @classmethod
    def open(cls, where: str | Path, timeout: float = 30.0) -> Self:
        """Open a SQLite file or a database URL; create it, or bring it up to date, if need be.

        Args:
            timeout: seconds to wait for another writer.

        Raises:
            AssentError: not to be opened, damaged, no store of ours, or written by a newer assent.
        """
        url = _url(where)
        name = url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string()
        with _told(name):
            store = cls(_engine(url, timeout), name, timeout)
            try:
                store._upgrade()
            except BaseException:
                store.close()
                raise
            return store

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add those that are not there yet, and return how many; mode and source stay as they were first told."""
        return self._add(schema.prompts, map(_prompt_row, prompts))

    def add_responses(self, responses: Iterable[Response]) -> int:
        """Add those that are not there yet (by id and policy), and return how many; their prompts come first."""
        return self._add(schema.responses, map(_response_row, responses))

    def add_tasks(self, queries: Iterable[Task]) -> int:
        """Add those that are not there yet, and return how many; their prompts come first."""
        return self._add(schema.queries, map(_query_row, queries))

    def add_feedback(self, feedback: Iterable[Feedback]) -> int:
        """Append events and return how many are new; once this returns they outlive a crash of process or machine.

        Raises:
            Conflict: an id is there already, with another body; the same body again changes nothing.
            AssentError: an event whose query is unknown, or that its query did not ask for.
        """
        return sum(self._append(batch) for batch in _batches(feedback, BATCH))

    def prompts(self, source: str = "", mode: str = "", ids: Iterable[str] | None = None) -> Iterator[Prompt]:
        """Stream prompts in the order of arrival; an empty argument means any."""
        return map(_prompt, self._read(schema.prompts, ids, source=source, mode=mode))

    def responses(self, policy: str = "", prompt: str = "", ids: Iterable[str] | None = None) -> Iterator[Response]:
        """Stream responses in the order of arrival, those of a policy or to a prompt (id) if one is named."""
        return map(_response, self._read(schema.responses, ids, policy=policy, prompt=prompt))

    def tasks(
        self, purpose: Purpose | None = None, unanswered_by: str = "", ids: Iterable[str] | None = None
    ) -> Iterator[Task]:
        """Stream queries in the order of arrival, those of a purpose, and those that an annotator has yet to answer."""
        q, f = schema.queries.c, schema.feedback.c
        answered = sa.exists().where(f.query == q.id, f.annotator == unanswered_by)
        return map(
            as_task, self._read(schema.queries, ids, *([~answered] if unanswered_by else []), purpose=purpose or "")
        )

    def feedback(self, annotator: str = "", query: str = "", ids: Iterable[str] | None = None) -> Iterator[Feedback]:
        """Stream events in the order of arrival, superseded ones too."""
        return map(_event, self._read(schema.feedback, ids, annotator=annotator, query=query))

    def arrivals(self, after: int = 0, purpose: str = "") -> Iterator[Arrival]:
        """Stream events beyond a `seq` in the order of arrival, with their queries, of a purpose if one is named."""
        f, q = schema.feedback, schema.queries
        asked = (q.c.kind.label("asked"), q.c.prompt, q.c["items"].label("of"), q.c.purpose, q.c.instruction)
        rows = sa.select(f, *asked).join(q, f.c.query == q.c.id).order_by(f.c.seq).limit(4096)
        rows = rows.where(q.c.purpose == purpose) if purpose else rows
        while True:
            with self.reading() as connection:
                page = connection.execute(rows.where(f.c.seq > after)).all()
            for row in page:
                query = Task(row.asked, row.prompt, tuple(row.of), row.purpose, row.instruction)
                yield Arrival(row.seq, row.digest, _event(row), query)
            if len(page) < 4096:
                return
            after = page[-1].seq

    def last_arrival(self, until: int | None = None) -> tuple[int, str]:
        """`seq` and digest of the newest event, or of the newest up to a `seq`; (0, "") if there is none."""
        f = schema.feedback.c
        newest = sa.select(f.seq, f.digest).order_by(f.seq.desc()).limit(1)
        with self.reading() as connection:
            row = connection.execute(newest if until is None else newest.where(f.seq <= until)).first()
        return (row.seq, row.digest) if row else (0, "")

    def search_prompts(self, words: str, start: int, count: int) -> PromptPage:
        """A page of the prompts in which these words stand, in whatever case, in the order of arrival."""
        p = schema.prompts
        where = [self.messages_contain(p.c.messages, words)] if words else []
        page = sa.select(p).where(*where).order_by(p.c.seq).offset(start).limit(count)
        with self.reading() as connection:
            total = connection.scalar(sa.select(sa.func.count()).select_from(p).where(*where)) or 0
            return PromptPage([_prompt(row) for row in connection.execute(page)], total)

    def contains(self, text: sa.ColumnElement[str], words: str) -> sa.ColumnElement[bool]:
        """That the words stand in a text, in whatever case."""
        if self._engine.dialect.name == "postgresql":
            return text.icontains(words, autoescape=True)
        return text.op("GLOB")(_glob(words))  # SQLite's LIKE knows the case of ASCII alone

    def messages_contain(self, messages: sa.ColumnElement[Any], words: str) -> sa.ColumnElement[bool]:
        """That the words stand in what some message says."""
        if self._engine.dialect.name == "postgresql":
            each = sa.func.json_array_elements(messages).table_valued(sa.column("value", sa.JSON), name="each")
            return sa.exists().where(each.c.value["content"].as_string().icontains(words, autoescape=True))
        # SQLite's LIKE knows the case of ASCII alone, so each letter is looked for in both; the text as it is stored,
        # which names roles too, is looked through first, for that is quick.
        inside = json.dumps(words, ensure_ascii=False)[1:-1]
        each = sa.func.json_each(messages).table_valued("value", name="each")
        content = sa.func.json_extract(each.c.value, "$.content")
        exact = sa.exists().where(content.op("GLOB")(_glob(words)))
        return sa.and_(sa.cast(messages, sa.Text).op("GLOB")(_glob(inside)), exact)

    def counts(self) -> Counts:
        tables = (schema.prompts, schema.responses, schema.queries, schema.feedback)
        with self.reading() as connection:
            return Counts(*(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables))

    def verify(self) -> int:
        """Walk the hash chain of the feedback and return its length.

        Raises:
            AssentError: an event was changed, removed or put in since it was stored.
        """
        digest, length = "", 0
        for row in self._read(schema.feedback, None):
            values = row._asdict()
            digest = _digest(digest, values)
            if digest != values["digest"]:
                raise AssentError(f"{self.name}: feedback {values['id']} is not what was stored: restore a backup")
            length += 1
        return length

    def copy(self, path: Path) -> int:
        """Write a SQLite copy of everything to a new file while others go on, audit it, and return its length.

        Raises:
            AssentError: a PostgreSQL store (`pg_dump` copies that), no room, or a copy that does not hold.
        """
        if self._engine.dialect.name != "sqlite":
            raise AssentError(f"{self.name} is on a server: copy it with pg_dump")
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            with _told(self.name), closing(sqlite3.connect(self.name)) as connection:
                connection.execute("VACUUM INTO ?", [str(partial)])
            with Store.open(partial) as copied:
                length = copied.verify()
            for left in (f"{partial}-wal", f"{partial}-shm"):
                Path(left).unlink(missing_ok=True)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return length

    def flush(self) -> None:
        """Bring SQLite's log into its file, so that what was deleted stands nowhere any more."""
        if self._engine.dialect.name == "sqlite":
            with _told(self.name), closing(sqlite3.connect(self.name, timeout=self._timeout)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def restore(self, path: Path) -> int:
        """Go back to a copy, while others may have the store open, and return its length.

        Raises:
            AssentError: a PostgreSQL store, or a copy that does not hold.
        """
        if self._engine.dialect.name != "sqlite":
            raise AssentError(f"{self.name} is on a server: restore it with pg_restore")
        if not path.is_file():
            raise AssentError(f"no copy {path}")
        with Store.open(path) as copied:
            length = copied.verify()
        with _told(self.name), closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(self.name)) as target:
            source.backup(target)
        return length

    def _add(self, table: sa.Table, rows: Iterable[Values]) -> int:
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        added = 0
        for batch in _batches(rows, BATCH):
            with self.writing(f"one of these {table.name} names a prompt that is not there: add prompts first") as on:
                added += on.execute(insert.on_conflict_do_nothing(), batch).rowcount
        return added

    def _append(self, batch: Sequence[Feedback]) -> int:
        with self.writing("an event names a query that is not there: add queries first") as connection:
            return self.append(connection, batch)

    def append(self, connection: sa.Connection, batch: Sequence[Feedback]) -> int:
        """As `add_feedback`, within a transaction of the caller's."""
        stored = {row["id"]: row for row in _by_id(connection, schema.feedback, (event.id for event in batch))}
        asked = {row["id"]: row for row in _by_id(connection, schema.queries, (event.task for event in batch))}
        fresh: list[Values] = []
        for event in batch:
            row = _event_row(event)
            before = stored.setdefault(event.id, row)
            if any(before[name] != value for name, value in row.items() if name != "at"):
                raise Conflict(f"feedback {event.id} is stored with another body: give a new answer a new id")
            if before is not row:
                continue
            if event.task not in asked:
                raise AssentError(f"feedback {event.id} answers query '{event.task}', which is not in {self.name}")
            check(event.judgement, as_task(asked[event.task]))
            fresh.append(row)
        f = schema.feedback.c
        digest = connection.scalar(sa.select(f.digest).order_by(f.seq.desc()).limit(1)) or ""
        for row in fresh:
            digest = row["digest"] = _digest(digest, row)
        if fresh:
            connection.execute(sa.insert(schema.feedback), fresh)
        return len(fresh)

    def _read(
        self, table: sa.Table, ids: Iterable[str] | None, *conditions: sa.ColumnElement[bool], **equal: str
    ) -> Iterator[sa.Row[Any]]:
        where = [*conditions, *(table.c[name] == value for name, value in equal.items() if value)]
        if ids is None:
            return self._pages(table, where)
        return chain.from_iterable(self._named(table, where, batch) for batch in _batches(dict.fromkeys(ids), IDS))

    def _named(self, table: sa.Table, where: list[sa.ColumnElement[bool]], ids: Sequence[str]) -> Sequence[sa.Row[Any]]:
        with self.reading() as connection:
            some = sa.select(table).where(*where, table.c.id.in_(ids))
            return connection.execute(some.order_by(table.c.seq)).all()

    def _pages(self, table: sa.Table, where: list[sa.ColumnElement[bool]]) -> Iterator[sa.Row[Any]]:
        """Rows by growing pages, each its own short transaction: a slow reader holds nobody up.

        Rows that arrive while the reading goes on are left for the next one.
        """
        seq, last, size = table.c.seq, 0, 64
        with self.reading() as connection:
            top = connection.scalar(sa.select(sa.func.max(seq))) or 0
        while last < top:
            page = sa.select(table).where(*where, seq > last, seq <= top).order_by(seq).limit(size)
            with self.reading() as connection:
                rows = connection.execute(page).all()
            yield from rows
            last, size = (rows[-1].seq if len(rows) == size else top), min(4 * size, 4096)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with _told(self.name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, orphan: str = "something names what is not there") -> Iterator[sa.Connection]:
        # SQLite waits by trial, longer each time, and PostgreSQL with a connection; threads rather stand in line.
        if not self._line.acquire(timeout=self._timeout):
            raise Busy(f"{self.name} is locked by another thread: try again")
        try:
            with _told(self.name, orphan), self._writer.begin() as connection:
                yield connection
        finally:
            self._line.release()

    def _upgrade(self) -> None:
        with self._engine.connect() as connection:
            if _revision(connection, self.name) == schema.HEAD:
                return
        # Imported here: an up-to-date store opens without Alembic.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with MIGRATING, self._writer.begin() as connection:
            if _revision(connection, self.name) != schema.HEAD:
                config.attributes["connection"] = connection
                command.upgrade(config, schema.HEAD)


def _url(where: str | Path) -> sa.URL:
    if "://" not in str(where):
        path = Path(where).absolute()
        if not path.parent.is_dir():
            raise AssentError(f"no folder {path.parent} for the store {path.name}: make it first")
        return sa.URL.create("sqlite", database=str(path))
    try:
        return sa.make_url(str(where))
    except (ArgumentError, ValueError) as error:
        raise AssentError(f"no database URL: '{where}'; write a path, or postgresql://user@host/name") from error


def _engine(url: sa.URL, timeout: float) -> sa.Engine:
    lite = url.get_backend_name() == "sqlite"
    writer = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    try:
        engine = sa.create_engine(
            url,
            json_serializer=writer,
            connect_args={"timeout": timeout} if lite else {},
            pool_pre_ping=not lite,
            hide_parameters=True,  # of what people said, nothing stands in an error
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        like = "; write postgresql+psycopg://..." if url.drivername in ("postgres", "postgresql") else ""
        raise AssentError(
            f"no driver for {url.drivername}: {error}{like or '; install it, or use a SQLite file'}"
        ) from error

    if lite:

        @sa.event.listens_for(engine, "connect")
        def settle(connection: sqlite3.Connection, _: object) -> None:
            # The driver's own BEGIN comes late and takes no lock; ours is below.
            connection.isolation_level = None
            _write_ahead(connection, timeout)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # who is erased is not left in free pages

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        if lite:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))

    return engine


def _write_ahead(connection: sqlite3.Connection, timeout: float) -> None:
    # SQLite does not wait for the lock while it changes the mode, so two processes that open a new file would collide.
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _revision(connection: sa.Connection, name: str) -> str:
    tables = sa.inspect(connection).get_table_names()
    if not tables:
        return ""
    if schema.VERSION_TABLE not in tables:
        raise AssentError(f"{name} is a database of something else, with tables {', '.join(tables[:3])}: name another")
    revision = connection.scalar(sa.text(f"SELECT version_num FROM {schema.VERSION_TABLE}")) or ""
    if revision > schema.HEAD:
        raise AssentError(f"{name} has version {revision}, this assent knows {schema.HEAD}: install a newer assent")
    return cast(str, revision)


@contextmanager
def _told(name: str, orphan: str = "") -> Iterator[None]:
    """Tell what the database says in one line."""
    try:
        yield
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X}"
        raise AssentError(f"text with a lone surrogate ({found}) cannot be stored: mend it") from error
    except (DBAPIError, sqlite3.Error) as error:
        said = str(error.orig if isinstance(error, DBAPIError) else error).strip().split("\n")[0]
        raise _explained(said, name, orphan) from error


def _explained(said: str, name: str, orphan: str) -> AssentError:
    kinds: tuple[tuple[str, type[AssentError], str], ...] = (
        ("locked", Busy, f"{name} is locked by another process: wait for it or end it, then try again"),
        (
            "no space left",
            DiskFull,
            f"no space left for {name}: free some and send again; what was acknowledged is safe",
        ),
        ("terminating connection", Busy, f"the server of {name} has hung up: try again"),
        ("connection", Busy, f"the server of {name} cannot be reached ({said}): start it, then try again"),
        ("full", DiskFull, f"no space left for {name}: free some and send again; what was acknowledged is safe"),
        ("malformed", Unusable, f"{name} is damaged ({said}): restore a backup"),
        ("not a database", Unusable, f"{name} is not a database, or damaged: name another file or restore a backup"),
        ("unable to open", Unusable, f"cannot open {name}: check that it is a file that you may write"),
        ("readonly", Unusable, f"cannot write to {name}: give yourself the right to, or copy it"),
        ("append-only", AssentError, f"{name}: {said}"),
        ("foreign key", AssentError, f"{name}: {orphan}"),
    )
    for words, kind, line in kinds:
        if words in said.lower():
            return kind(line)
    return Unusable(f"{name}: {said}")


def by_person() -> list[sa.ColumnElement[bool]]:
    """That an answer is a person's, as `Feedback.by_person` says: conditions on a row of `feedback`."""
    return [~schema.feedback.c.annotator.startswith(machine, autoescape=True) for machine in MACHINES]


def _glob(words: str) -> str:
    """A pattern of SQLite's GLOB for texts that hold these words in whatever case."""
    letters = ("".join(sorted({c, *(v for v in (c.lower(), c.upper()) if len(v) == 1)})) for c in words)
    return "*" + "".join(f"[{letter}]" if len(letter) > 1 or letter in "*?[" else letter for letter in letters) + "*"


def _batches(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    stream = iter(things)
    while batch := list(islice(stream, size)):
        yield batch


def _by_id(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> Iterator[Values]:
    for batch in _batches(dict.fromkeys(ids), IDS):
        for row in connection.execute(sa.select(table).where(table.c.id.in_(batch))):
            yield row._asdict()


def _digest(before: str, row: Values) -> str:
    told = [
        before,
        *(row[column.name] for column in schema.feedback.c if column.name not in ("seq", "digest", "flags")),
    ]
    if row["flags"]:  # there were none before version 0003, and the digests of then hold
        told.append(row["flags"])
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _prompt_row(prompt: Prompt) -> Values:
    messages = [message.to_dict() for message in prompt.messages]
    tools = list(prompt.tools) or None
    return {"id": prompt.id, "messages": messages, "mode": prompt.category, "source": prompt.source, "tools": tools}


def _prompt(row: sa.Row[Any]) -> Prompt:
    return Prompt(tuple(map(Message.from_dict, row.messages)), row.mode, row.source, tuple(row.tools or ()))


def _response_row(response: Response) -> Values:
    optional = {"extra": dict(response.extra) or None, "token_ids": list(response.token_ids) or None}
    return {"id": response.id, **asdict(response), **optional}


def _response(row: sa.Row[Any]) -> Response:
    drawn = tuple(row.token_ids or ()), row.tokenizer
    return Response(row.prompt, row.text, row.policy, row.finished, row.sampling, row.extra or {}, *drawn)


def _query_row(query: Task) -> Values:
    return {"id": query.id, **asdict(query), "items": list(query.items)}


def as_task(row: Any) -> Task:
    """A query from its row, or from the row's values."""
    values = row if isinstance(row, dict) else row._asdict()
    items = tuple(values["items"])
    return Task(values["kind"], values["prompt"], items, values["purpose"], values["instruction"])


def _event_row(event: Feedback) -> Values:
    return {
        "id": event.id,
        "query": event.task,
        "annotator": event.annotator,
        "kind": name_of(event.judgement),
        "answer": body(event.judgement),
        "at": event.created_at,
        "seconds": float(event.duration),
        "shown": list(event.display_order),
        "note": event.comment,
        "supersedes": event.supersedes,
        "flags": list(event.flags) or None,
    }


def _event(row: sa.Row[Any]) -> Feedback:
    told = (row.at, row.seconds, tuple(row.shown), row.note, row.supersedes, row.id, tuple(row.flags or ()))
    return Feedback(row.query, row.annotator, parse(row.kind, row.answer), *told)
