"""The audit log: what was done to accounts, links and tokens, when and by whom.

The words of actions and the keys of their details are stored, so they stay as they were in version 0.1.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from assent.records import utc_now
from assent.store import schema
from assent.store.database import Store

PAGE_SIZE = 500


@dataclass(frozen=True)
class AuditLog:
    """The audit log of a store."""

    store: Store

    def record(self, author: str, action: str, details: Mapping[str, Any]) -> None:
        """Add an entry in a transaction of its own."""
        with self.store.writing() as connection:
            self.add(connection, author, action, details)

    def add(self, connection: sa.Connection, author: str, action: str, details: Mapping[str, Any]) -> None:
        """Add an entry within the caller's transaction."""
        text = json.dumps(dict(details), ensure_ascii=False)
        row = {"created_at": utc_now(), "author": author, "action": action, "details": text}
        connection.execute(sa.insert(schema.audit_log), row)

    def entries(self) -> Sequence[sa.Row[Any]]:
        """Return the latest entries, the newest first."""
        log = schema.audit_log
        with self.store.reading() as connection:
            return connection.execute(sa.select(log).order_by(log.c.seq.desc()).limit(PAGE_SIZE)).all()

    def activated_at(self, user_id: str) -> str:
        """Return when an admin or the screening last made a user active; empty if never."""
        log = schema.audit_log.c
        is_change = (log.action == "change", log.details.contains(f'"{user_id}"', autoescape=True))
        with self.store.reading() as connection:
            rows = connection.execute(
                sa.select(log.created_at, log.details).where(*is_change).order_by(log.seq.desc())
            ).all()
        for row in rows:
            details = json.loads(row.details)
            if details["person"] == user_id and details.get("state") == "active":
                return str(row.created_at)
        return ""
