"""The store of a run: prompts, responses, tasks and feedback, which many processes read and add to.

Nothing that was added is changed or deleted.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from assent.errors import AssentError
from assent.feedback import check
from assent.files import replacing_file
from assent.records import Feedback, Prompt, Purpose, Response, Task
from assent.store import schema
from assent.store.engine import connect, migrate, parse_url
from assent.store.errors import Busy, Conflict, translate_errors
from assent.store.rows import (
    Row,
    chain_digest,
    feedback_to_row,
    prompt_to_row,
    response_to_row,
    row_to_feedback,
    row_to_prompt,
    row_to_response,
    row_to_task,
    task_to_row,
)

TRANSACTION_ROWS = 5_000
"""A crash loses at most one unacknowledged batch, and other writers get their turn between two batches."""
IDS_PER_STATEMENT = 500
"""Databases limit the number of parameters."""
PAGE_ROWS = 4096

Element = TypeVar("Element")


class Counts(NamedTuple):
    """Rows of each table."""

    prompts: int
    responses: int
    tasks: int
    feedback: int


class Arrival(NamedTuple):
    """A stored event and its task."""

    seq: int
    digest: str
    """Digest of this event and of all before it: it differs at the same `seq` if the history differs."""
    event: Feedback
    task: Task


class PromptPage(NamedTuple):
    """One page of the prompts that match a search."""

    prompts: list[Prompt]
    total: int


class Store:
    """An open database; any thread of any process may call its methods, and each addition is committed."""

    def __init__(self, engine: sa.Engine, name: str, timeout: float = 30.0) -> None:
        self.name = name
        """Path or URL, without a password."""
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._timeout = timeout
        self._write_lock = threading.Lock()

    @classmethod
    def open(cls, location: str | Path, timeout: float = 30.0) -> Self:
        """Open a SQLite file or a database URL; create or migrate it where needed.

        Args:
            timeout: seconds to wait for another writer.

        Raises:
            AssentError: it cannot be opened, is damaged, is no store, or was written by a newer assent.
        """
        url = parse_url(location)
        name = url.database or "" if url.get_backend_name() == "sqlite" else url.render_as_string()
        with translate_errors(name):
            store = cls(connect(url, timeout), name, timeout)
            try:
                migrate(store._engine, name)
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
        """Add new prompts and return their number; a stored prompt keeps its first category, source and meta."""
        return self._add(schema.prompts, map(prompt_to_row, prompts))

    def add_responses(self, responses: Iterable[Response]) -> int:
        """Add responses that are new by id and policy, and return their number; their prompts are added first."""
        return self._add(schema.responses, map(response_to_row, responses))

    def add_tasks(self, tasks: Iterable[Task]) -> int:
        """Add new tasks and return their number; their prompts are added first."""
        return self._add(schema.tasks, map(task_to_row, tasks))

    def add_feedback(self, feedback: Iterable[Feedback]) -> int:
        """Append events and return the number of new ones; after that they survive a crash of process or machine.

        Raises:
            Conflict: an id is stored with another body; the same body again changes nothing.
            AssentError: an event whose task is not stored, or that its task did not ask for.
        """
        return sum(self._append(batch) for batch in _batches(feedback, TRANSACTION_ROWS))

    def prompts(self, source: str = "", category: str = "", ids: Iterable[str] | None = None) -> Iterator[Prompt]:
        """Stream prompts in the order of arrival; an empty argument matches all."""
        return map(row_to_prompt, self._read(schema.prompts, ids, source=source, category=category))

    def responses(self, policy: str = "", prompt: str = "", ids: Iterable[str] | None = None) -> Iterator[Response]:
        """Stream responses in the order of arrival, of one policy or to one prompt (id) if given."""
        return map(row_to_response, self._read(schema.responses, ids, policy=policy, prompt=prompt))

    def tasks(
        self, purpose: Purpose | None = None, not_judged_by: str = "", ids: Iterable[str] | None = None
    ) -> Iterator[Task]:
        """Stream tasks in the order of arrival, of one purpose and without a judgement of one annotator if given."""
        t, f = schema.tasks.c, schema.feedback.c
        is_judged = sa.exists().where(f.task == t.id, f.annotator == not_judged_by)
        conditions = [~is_judged] if not_judged_by else []
        return map(row_to_task, self._read(schema.tasks, ids, *conditions, purpose=purpose or ""))

    def feedback(
        self, annotator: str = "", task: str = "", ids: Iterable[str] | None = None, current: bool = False
    ) -> Iterator[Feedback]:
        """Stream events in the order of arrival.

        Args:
            current: leave out events that another one supersedes.
        """
        conditions = [schema.is_current()] if current else []
        return map(row_to_feedback, self._read(schema.feedback, ids, *conditions, annotator=annotator, task=task))

    def arrivals(self, after: int = 0, purpose: str = "") -> Iterator[Arrival]:
        """Stream events after a `seq` in the order of arrival, with their tasks, of one purpose if given."""
        f, t = schema.feedback, schema.tasks
        of_task = (
            t.c.kind.label("task_kind"),
            t.c.prompt,
            t.c["items"].label("task_items"),
            t.c.purpose,
            t.c.instruction,
        )
        rows = sa.select(f, *of_task).join(t, f.c.task == t.c.id).order_by(f.c.seq).limit(PAGE_ROWS)
        rows = rows.where(t.c.purpose == purpose) if purpose else rows
        while True:
            with self.reading() as connection:
                page = connection.execute(rows.where(f.c.seq > after)).all()
            for row in page:
                task = Task(row.task_kind, row.prompt, tuple(row.task_items), row.purpose, row.instruction)
                yield Arrival(row.seq, row.digest, row_to_feedback(row), task)
            if len(page) < PAGE_ROWS:
                return
            after = page[-1].seq

    def last_arrival(self, until: int | None = None) -> tuple[int, str]:
        """Return `seq` and digest of the newest event, or of the newest up to a `seq`; (0, "") if there is none."""
        f = schema.feedback.c
        newest = sa.select(f.seq, f.digest).order_by(f.seq.desc()).limit(1)
        with self.reading() as connection:
            row = connection.execute(newest if until is None else newest.where(f.seq <= until)).first()
        return (row.seq, row.digest) if row else (0, "")

    def search_prompts(self, words: str, offset: int, limit: int) -> PromptPage:
        """Return a page of the prompts that contain the words, in any case, in the order of arrival."""
        p = schema.prompts
        conditions = [self.messages_contain(p.c.messages, words)] if words else []
        page = sa.select(p).where(*conditions).order_by(p.c.seq).offset(offset).limit(limit)
        with self.reading() as connection:
            total = connection.scalar(sa.select(sa.func.count()).select_from(p).where(*conditions)) or 0
            return PromptPage([row_to_prompt(row) for row in connection.execute(page)], total)

    def contains(self, text: sa.ColumnElement[str], words: str) -> sa.ColumnElement[bool]:
        """Return the condition that a text contains the words, in any case."""
        if self._engine.dialect.name == "postgresql":
            return text.icontains(words, autoescape=True)
        return text.op("GLOB")(_glob(words))  # SQLite's LIKE folds the case of ASCII alone

    def messages_contain(self, messages: sa.ColumnElement[Any], words: str) -> sa.ColumnElement[bool]:
        """Return the condition that the content of a message contains the words, in any case."""
        if self._engine.dialect.name == "postgresql":
            message = sa.func.json_array_elements(messages).table_valued(sa.column("value", sa.JSON), name="message")
            content = message.c.value["content"].as_string()
            return sa.exists().where(content.icontains(words, autoescape=True))
        # SQLite's LIKE folds the case of ASCII alone, so GLOB looks for both cases of each letter. The JSON as it is
        # stored, which holds roles too, is searched first, because that is fast.
        in_json = json.dumps(words, ensure_ascii=False)[1:-1]
        message = sa.func.json_each(messages).table_valued("value", name="message")
        content = sa.func.json_extract(message.c.value, "$.content")
        is_exact = sa.exists().where(content.op("GLOB")(_glob(words)))
        return sa.and_(sa.cast(messages, sa.Text).op("GLOB")(_glob(in_json)), is_exact)

    def counts(self) -> Counts:
        """Return the number of rows of each table."""
        tables = (schema.prompts, schema.responses, schema.tasks, schema.feedback)
        with self.reading() as connection:
            return Counts(*(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0 for table in tables))

    def verify(self) -> int:
        """Check the hash chain of the feedback and return its length.

        Raises:
            AssentError: an event was changed, removed or inserted since it was stored.
        """
        digest, length = "", 0
        for row in self._read(schema.feedback, None):
            values = row._asdict()
            digest = chain_digest(digest, values)
            if digest != values["digest"]:
                raise AssentError(
                    f"{self.name}: feedback {values['id']} was changed after it was stored: restore a backup"
                )
            length += 1
        return length

    def copy(self, path: Path) -> int:
        """Write a SQLite copy of everything to a new file, verify it and return its length; others may go on meanwhile.

        Raises:
            AssentError: a PostgreSQL store (`pg_dump` copies that), no room, or a copy that is damaged.
        """
        if self._engine.dialect.name != "sqlite":
            raise AssentError(f"{self.name} is on a server: copy it with pg_dump")
        with replacing_file(path) as partial:
            with translate_errors(self.name), closing(sqlite3.connect(self.name)) as connection:
                connection.execute("VACUUM INTO ?", [str(partial)])
            with Store.open(partial) as copied:
                length = copied.verify()
            for leftover in (f"{partial}-wal", f"{partial}-shm"):
                Path(leftover).unlink(missing_ok=True)
        return length

    def flush(self) -> None:
        """Write SQLite's log into its file, so that deleted rows remain nowhere."""
        if self._engine.dialect.name == "sqlite":
            with translate_errors(self.name), closing(sqlite3.connect(self.name, timeout=self._timeout)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def restore(self, path: Path) -> int:
        """Replace everything by a copy and return its length; others may have the store open.

        Raises:
            AssentError: a PostgreSQL store, or a copy that is missing or damaged.
        """
        if self._engine.dialect.name != "sqlite":
            raise AssentError(f"{self.name} is on a server: restore it with pg_restore")
        if not path.is_file():
            raise AssentError(f"no copy {path}")
        with Store.open(path) as copied:
            length = copied.verify()
        with (
            translate_errors(self.name),
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(self.name)) as target,
        ):
            source.backup(target)
        return length

    def _add(self, table: sa.Table, rows: Iterable[Row]) -> int:
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(table)
        added = 0
        for batch in _batches(rows, TRANSACTION_ROWS):
            with self.writing(f"one of these {table.name} names a prompt that is not stored: add prompts first") as on:
                added += on.execute(insert.on_conflict_do_nothing(), batch).rowcount
        return added

    def _append(self, batch: Sequence[Feedback]) -> int:
        with self.writing("an event names a task that is not stored: add tasks first") as connection:
            return self.append(connection, batch)

    def append(self, connection: sa.Connection, batch: Sequence[Feedback]) -> int:
        """Do what `add_feedback` does, within a transaction of the caller."""
        rows_by_id = {row["id"]: row for row in _by_id(connection, schema.feedback, (event.id for event in batch))}
        task_rows = {row["id"]: row for row in _by_id(connection, schema.tasks, (event.task for event in batch))}
        new_rows: list[Row] = []
        for event in batch:
            row = feedback_to_row(event)
            stored = rows_by_id.setdefault(event.id, row)
            if any(stored[name] != value for name, value in row.items() if name != "created_at"):
                raise Conflict(f"feedback {event.id} is stored with another body: give a new judgement a new id")
            if stored is not row:
                continue
            if event.task not in task_rows:
                raise AssentError(f"feedback {event.id} judges task '{event.task}', which is not in {self.name}")
            check(event.judgement, row_to_task(task_rows[event.task]))
            new_rows.append(row)
        f = schema.feedback.c
        digest = connection.scalar(sa.select(f.digest).order_by(f.seq.desc()).limit(1)) or ""
        for row in new_rows:
            digest = row["digest"] = chain_digest(digest, row)
        if new_rows:
            connection.execute(sa.insert(schema.feedback), new_rows)
        return len(new_rows)

    def _read(
        self, table: sa.Table, ids: Iterable[str] | None, *conditions: sa.ColumnElement[bool], **equal: str
    ) -> Iterator[sa.Row[Any]]:
        filters = [*conditions, *(table.c[name] == value for name, value in equal.items() if value)]
        if ids is None:
            return self._pages(table, filters)
        return chain.from_iterable(
            self._rows_of_ids(table, filters, batch) for batch in _batches(dict.fromkeys(ids), IDS_PER_STATEMENT)
        )

    def _rows_of_ids(
        self, table: sa.Table, conditions: list[sa.ColumnElement[bool]], ids: Sequence[str]
    ) -> Sequence[sa.Row[Any]]:
        with self.reading() as connection:
            rows = sa.select(table).where(*conditions, table.c.id.in_(ids))
            return connection.execute(rows.order_by(table.c.seq)).all()

    def _pages(self, table: sa.Table, conditions: list[sa.ColumnElement[bool]]) -> Iterator[sa.Row[Any]]:
        """Yield rows in growing pages, each in its own short transaction, so that a slow reader blocks no writer.

        Rows that arrive during the reading are left out.
        """
        seq = table.c.seq
        last, size = 0, 64
        with self.reading() as connection:
            top = connection.scalar(sa.select(sa.func.max(seq))) or 0
        while last < top:
            page = sa.select(table).where(*conditions, seq > last, seq <= top).order_by(seq).limit(size)
            with self.reading() as connection:
                rows = connection.execute(page).all()
            yield from rows
            last, size = (rows[-1].seq if len(rows) == size else top), min(4 * size, PAGE_ROWS)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection to read."""
        with translate_errors(self.name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, orphan: str = "a row names another one that is not stored") -> Iterator[sa.Connection]:
        """Open a transaction to write; writers of all threads and processes take turns.

        Args:
            orphan: what to say of a row that names another one which is not stored.
        """
        # SQLite waits by polling, longer each time, and PostgreSQL with a connection; threads wait for a lock instead.
        if not self._write_lock.acquire(timeout=self._timeout):
            raise Busy(f"{self.name} is locked by another thread: try again")
        try:
            with translate_errors(self.name, orphan), self._writer.begin() as connection:
                yield connection
        finally:
            self._write_lock.release()


def _glob(words: str) -> str:
    """Return a pattern of SQLite's GLOB that matches texts with these words in any case."""
    letters = ("".join(sorted({c, *(v for v in (c.lower(), c.upper()) if len(v) == 1)})) for c in words)
    return "*" + "".join(f"[{letter}]" if len(letter) > 1 or letter in "*?[" else letter for letter in letters) + "*"


def _batches(elements: Iterable[Element], size: int) -> Iterator[list[Element]]:
    stream = iter(elements)
    while batch := list(islice(stream, size)):
        yield batch


def _by_id(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> Iterator[Row]:
    for batch in _batches(dict.fromkeys(ids), IDS_PER_STATEMENT):
        for row in connection.execute(sa.select(table).where(table.c.id.in_(batch))):
            yield row._asdict()
