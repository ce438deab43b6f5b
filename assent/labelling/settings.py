"""The settings of a project: every value that was ever set stays in the store, and the newest one holds."""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from assent.records import utc_now
from assent.store import schema
from assent.store.database import Store

SALT = "salt"
"""The name of the setting that holds the store's secret."""


class SettingChange(NamedTuple):
    """One change of a setting."""

    created_at: str  # ISO 8601, UTC
    author: str
    """The user id of the author, or the name of the program."""
    value: Any


def read_settings(store: Store) -> Mapping[str, Any]:
    """Return the newest value of each setting, by name."""
    settings = schema.settings.c
    newest = sa.select(sa.func.max(settings.seq)).group_by(settings.name)
    with store.reading() as connection:
        rows = connection.execute(sa.select(settings.name, settings.value).where(settings.seq.in_(newest))).all()
    return {row.name: row.value for row in rows}


def setting_history(store: Store, name: str) -> list[SettingChange]:
    """Return every change of a setting, the newest first."""
    settings = schema.settings.c
    changes = (
        sa.select(settings.created_at, settings.author, settings.value)
        .where(settings.name == name)
        .order_by(settings.seq.desc())
    )
    with store.reading() as connection:
        return [SettingChange(row.created_at, row.author, row.value) for row in connection.execute(changes)]


def change_setting(store: Store, name: str, value: Any, author: str, created_at: str) -> None:
    """Set a value; the values before it stay in the history."""
    with store.writing() as connection:
        row = {"name": name, "value": value, "author": author, "created_at": created_at}
        connection.execute(sa.insert(schema.settings), row)


def read_salt(store: Store) -> str:
    """Return the store's secret, and create it if the store has none yet.

    Random places, display orders and page aliases are hashes of it: without it, nobody can compute them.
    """
    settings = schema.settings.c
    with store.writing() as connection:
        salt = connection.scalar(sa.select(settings.value).where(settings.name == SALT).order_by(settings.seq).limit(1))
        if salt is None:
            salt = secrets.token_hex(16)
            row = {"name": SALT, "value": salt, "author": "server", "created_at": utc_now()}
            connection.execute(sa.insert(schema.settings), row)
    return str(salt)
