"""Credentials: sessions, tokens, invites and reset links; the store holds only hashes of their secrets."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa

from assent.labelling.audit_log import AuditLog
from assent.labelling.users import AccessDenied, User
from assent.records import utc_now
from assent.store import schema
from assent.store.database import Store

SESSION_DAYS = 30
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Credential:
    """A link or a token that was given out, without its secret."""

    seq: int
    kind: str
    """`invite`, `reset` or `token`."""
    user_id: str
    """The owner; empty for an invite that is unused."""
    role: str
    comment: str
    external_id: str
    """The id of the invited user on a crowd platform."""
    expires_at: str  # ISO 8601, UTC
    used_at: str
    """The day on which a token was last used; empty if never."""

    @classmethod
    def of_row(cls, row: sa.Row[Any]) -> "Credential":
        """Return the credential in a row of the table of credentials."""
        note = json.loads(row.comment) if row.kind == "invite" else {"note": row.comment, "external": ""}
        expires_at = datetime.fromtimestamp(row.expires_at, UTC).isoformat(timespec="minutes")
        return cls(row.seq, row.kind, row.user_id, row.role, note["note"], note["external"], expires_at, row.used_at)


@dataclass(frozen=True)
class Credentials:
    """The credentials of a store."""

    store: Store
    clock: Callable[[], float] = field(default=time.time)

    def open_session(self, user: User) -> str:
        """Return a secret for a user's cookie."""
        with self.store.writing() as connection:
            self._delete_expired(connection)
            return self.issue(connection, "session", user.role, user.id, days=SESSION_DAYS)

    def issue_token(self, user: User, comment: str, days: float = 365) -> str:
        """Return a secret for programs that act for a user."""
        with self.store.writing() as connection:
            AuditLog(self.store).add(connection, user.id, "token", {"note": comment})
            return self.issue(connection, "token", user.role, user.id, comment, days)

    def issue(
        self, connection: sa.Connection, kind: str, role: str, user_id: str = "", comment: str = "", days: float = 1.0
    ) -> str:
        """Store a new credential within the caller's transaction and return its secret."""
        secret = secrets.token_urlsafe(32)
        row = {
            "digest": _digest(secret),
            "kind": kind,
            "user_id": user_id,
            "role": role,
            "comment": comment,
            "expires_at": self.clock() + days * SECONDS_PER_DAY,
            "used_at": "",
        }
        connection.execute(sa.insert(schema.credentials), row)
        return secret

    def authenticate(self, secret: str, kind: Literal["session", "token"] = "session") -> User | None:
        """Return the user whose session or token this is; None if it is unknown or expired."""
        if not secret:
            return None
        credentials = schema.credentials
        users = schema.users
        has_digest = credentials.c.digest == _digest(secret)
        is_valid = (
            has_digest,
            credentials.c.kind == kind,
            credentials.c.expires_at > self.clock(),
            users.c.state != "erased",
        )
        owner = (
            sa.select(users, credentials.c.used_at.label("day"))
            .join(credentials, credentials.c.user_id == users.c.id)
            .where(*is_valid)
        )
        with self.store.reading() as connection:
            row = connection.execute(owner).first()
        if row is None:
            return None
        today = utc_now()[:10]
        if kind == "token" and row.day != today:
            with self.store.writing() as connection:
                connection.execute(sa.update(credentials).where(has_digest).values(used_at=today))
        return User.of_row(row)

    def revoke(self, secret: str) -> None:
        """End one session or token."""
        with self.store.writing() as connection:
            connection.execute(sa.delete(schema.credentials).where(schema.credentials.c.digest == _digest(secret)))

    def active(self, user_id: str = "") -> list[Credential]:
        """Return the usable links and tokens, the newest first; those of one user if `user_id` is given."""
        credentials = schema.credentials.c
        is_usable = sa.or_(
            credentials.kind == "token", sa.and_(credentials.kind.in_(("invite", "reset")), credentials.used_at == "")
        )
        conditions = [is_usable, credentials.expires_at > self.clock()]
        if user_id:
            conditions.append(credentials.user_id == user_id)
        with self.store.reading() as connection:
            rows = connection.execute(
                sa.select(schema.credentials).where(*conditions).order_by(credentials.seq.desc())
            ).all()
        return [Credential.of_row(row) for row in rows]

    def withdraw(self, user: User, seqs: Iterable[int]) -> int:
        """Delete links and tokens, and return how many were deleted.

        A user without the permission `manage` can delete only their own; only an owner can delete those of owners.
        """
        credentials = schema.credentials.c
        selected: list[sa.ColumnElement[bool]] = [
            credentials.seq.in_(list(seqs)),
            credentials.kind.in_(("invite", "reset", "token")),
        ]
        if not user.can("manage"):
            selected.append(credentials.user_id == user.id)
        elif user.role != "owner":
            owners = sa.select(schema.users.c.id).where(schema.users.c.role == "owner")
            selected += [credentials.role != "owner", credentials.user_id.not_in(owners)]
        with self.store.writing() as connection:
            rows = connection.execute(
                sa.select(credentials.seq, credentials.kind, credentials.user_id).where(*selected)
            ).all()
            connection.execute(sa.delete(schema.credentials).where(credentials.seq.in_([row.seq for row in rows])))
            for kind in sorted({row.kind for row in rows}):
                of_kind = [row for row in rows if row.kind == kind]
                user_ids = sorted({row.user_id for row in of_kind if row.user_id})
                details = {"count": len(of_kind), "person": ", ".join(user_ids)}
                AuditLog(self.store).add(connection, user.id, f"withdraw {kind}", details)
        return len(rows)

    def unused(self, connection: sa.Connection, secret: str, *kinds: str) -> sa.Row[Any]:
        """Return the row of an unused link of these kinds; by default an invite or the set-up link.

        Raises:
            AccessDenied: the link is unknown, used or expired.
        """
        credentials = schema.credentials
        is_link = (credentials.c.digest == _digest(secret), credentials.c.kind.in_(kinds or ("invite", "setup")))
        row = connection.execute(sa.select(credentials).where(*is_link)).first()
        if row is None:
            raise AccessDenied("this link is unknown; ask for a new one")
        if row.used_at:
            raise AccessDenied("this link was used already; ask for a new one")
        if row.expires_at < self.clock():
            raise AccessDenied("this link has expired; ask for a new one")
        return row

    def mark_used(self, connection: sa.Connection, seq: int, **values: str) -> None:
        """Mark a link as used within the caller's transaction."""
        is_link = schema.credentials.c.seq == seq
        connection.execute(sa.update(schema.credentials).where(is_link).values(used_at=utc_now(), **values))

    def delete(self, connection: sa.Connection, user_id: str, *kinds: str) -> None:
        """Delete a user's credentials of these kinds within the caller's transaction; all of them if none is given."""
        credentials = schema.credentials.c
        of_kind = [credentials.kind.in_(kinds)] if kinds else []
        connection.execute(sa.delete(schema.credentials).where(credentials.user_id == user_id, *of_kind))

    def _delete_expired(self, connection: sa.Connection) -> None:
        credentials = schema.credentials.c
        is_expired = (credentials.kind.in_(("session", "invite", "reset")), credentials.expires_at < self.clock())
        connection.execute(sa.delete(schema.credentials).where(*is_expired))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
