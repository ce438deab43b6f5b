"""Data protection: export what is stored about a user, or erase who a user is."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from assent.labelling.accounts import Accounts
from assent.labelling.user_names import ERASED_PREFIX
from assent.labelling.users import User
from assent.store import schema
from assent.store.database import Store


def export_user(accounts: Accounts, id: str, stores: Sequence[Store] = ()) -> dict[str, Any]:
    """Return everything that is stored about a user as JSON-able values: account, audit log, feedback.

    Args:
        id: a user id or a name.
        stores: further stores in which the user may have given judgements.
    """
    user = accounts.get(id)
    audit_log = schema.audit_log.c
    is_about = sa.or_(audit_log.author == user.id, audit_log.details.contains(f'"{user.id}"', autoescape=True))
    with accounts.store.reading() as connection:
        log = connection.execute(
            sa.select(audit_log.created_at, audit_log.author, audit_log.action, audit_log.details)
            .where(is_about)
            .order_by(audit_log.seq)
        ).all()
    feedback = schema.feedback
    by_user = sa.select(feedback).where(feedback.c.annotator == user.id).order_by(feedback.c.seq)
    rows: list[sa.Row[Any]] = []
    for store in (accounts.store, *stores):
        with store.reading() as connection:
            rows += connection.execute(by_user).all()
    return {
        "account": vars(user),
        "audit_log": [dict(row._mapping) for row in log],
        "feedback": [
            {name: value for name, value in row._mapping.items() if name not in ("seq", "digest")} for row in rows
        ],
    }


def erase_user(accounts: Accounts, author: str, id: str) -> User:
    """Erase a user's name, password, external id and credentials; the judgements stay under the pseudonym.

    Raises:
        AssentError: there is no such user, or it is the only owner.
    """
    user = accounts.get(id)
    users = schema.users
    with accounts.store.writing() as connection:
        accounts.check_other_owner(connection, user)
        values = {"name": f"{ERASED_PREFIX}{user.id}", "password_hash": "", "external_id": "", "state": "erased"}
        connection.execute(sa.update(users).where(users.c.id == user.id).values(**values))
        accounts.credentials.delete(connection, user.id)
        _erase_invites(connection, user)
        _erase_from_log(connection, user)
        accounts.audit_log.add(connection, author, "erase", {"person": user.id})
    accounts.store.flush()
    return accounts.get(user.id)


def _erase_invites(connection: sa.Connection, user: User) -> None:
    """Delete unused invites with the user's external id."""
    credentials = schema.credentials
    if not user.external_id:
        return
    for row in connection.execute(
        sa.select(credentials.c.seq, credentials.c.comment).where(credentials.c.kind == "invite")
    ).all():
        if json.loads(row.comment)["external"] == user.external_id:
            connection.execute(sa.delete(credentials).where(credentials.c.seq == row.seq))


def _erase_from_log(connection: sa.Connection, user: User) -> None:
    """Replace the user's name and external id by the pseudonym in the audit log."""
    audit_log = schema.audit_log
    words = [word for word in (user.name, user.external_id) if word]
    for row in connection.execute(sa.select(audit_log.c.seq, audit_log.c.details)).all():
        details = json.loads(row.details)
        for name, value in details.items():
            if isinstance(value, str):
                for word in words:
                    value = value.replace(word, user.id)
                details[name] = value
        text = json.dumps(details, ensure_ascii=False)
        if text != row.details:
            connection.execute(sa.update(audit_log).where(audit_log.c.seq == row.seq).values(details=text))
