"""Connections to SQLite and PostgreSQL, and the migration of what they open."""

import json
import sqlite3
import threading
import time
from functools import partial
from pathlib import Path
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from assent.errors import AssentError
from assent.store import schema

ADVISORY_LOCK = 0x617373656E74
"""PostgreSQL has no BEGIN IMMEDIATE: writers queue at this number instead."""
MIGRATING = threading.Lock()
"""Alembic keeps its context in a global, so two threads that open two new files take turns."""


def parse_url(location: str | Path) -> sa.URL:
    """Return the URL of a SQLite file or a database URL.

    Raises:
        AssentError: the file's folder does not exist, or the URL is invalid.
    """
    if "://" not in str(location):
        path = Path(location).absolute()
        if not path.parent.is_dir():
            raise AssentError(f"no folder {path.parent} for the store {path.name}: make it first")
        return sa.URL.create("sqlite", database=str(path))
    try:
        return sa.make_url(str(location))
    except (ArgumentError, ValueError) as error:
        raise AssentError(f"invalid database URL '{location}'; write a path, or postgresql://user@host/name") from error


def connect(url: sa.URL, timeout: float) -> sa.Engine:
    """Return an engine whose transactions with the execution option `writes` take turns.

    Args:
        timeout: seconds to wait for another writer.

    Raises:
        AssentError: the driver of the database is not installed.
    """
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = sa.create_engine(
            url,
            json_serializer=partial(json.dumps, ensure_ascii=False, separators=(",", ":")),
            connect_args={"timeout": timeout} if is_sqlite else {},
            pool_pre_ping=not is_sqlite,
            hide_parameters=True,  # what annotators wrote must not appear in an error
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        if url.drivername in ("postgres", "postgresql"):
            remedy = "write postgresql+psycopg://..."
        elif url.drivername == "postgresql+psycopg":
            remedy = "pip install 'assent[postgresql]', or use a SQLite file"
        else:
            remedy = "install it, or use a SQLite file"
        raise AssentError(f"no driver for {url.drivername}: {error}; {remedy}") from error

    if is_sqlite:

        @sa.event.listens_for(engine, "connect")
        def configure(connection: sqlite3.Connection, _: object) -> None:
            # The driver's own BEGIN comes late and takes no lock; `begin` below replaces it.
            connection.isolation_level = None
            _enable_write_ahead_log(connection, timeout)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")  # erased names do not stay in free pages

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        if is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))

    return engine


def _enable_write_ahead_log(connection: sqlite3.Connection, timeout: float) -> None:
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


def migrate(engine: sa.Engine, name: str) -> None:
    """Create the tables of a new database, or bring those of an older one up to date.

    Raises:
        AssentError: a database of another program, or one of a newer assent.
    """
    with engine.connect() as connection:
        if _revision(connection, name) == schema.HEAD:
            return
    # Imported here: an up-to-date store opens without Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with MIGRATING, engine.execution_options(writes=True).begin() as connection:
        if _revision(connection, name) != schema.HEAD:
            config.attributes["connection"] = connection
            command.upgrade(config, schema.HEAD)


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
