"""Accounts: users with a role and a password, and the links with which they join or choose a new password."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import sqlalchemy as sa

from assent.errors import AssentError, did_you_mean
from assent.labelling.audit_log import AuditLog
from assent.labelling.credentials import Credentials
from assent.labelling.passwords import hash_password, is_password
from assent.labelling.user_names import PSEUDONYM_PREFIX, check_name, normalise_name
from assent.labelling.users import STATES, AccessDenied, User, check_role
from assent.records import utc_now
from assent.store import schema
from assent.store.database import Store

ACCOUNTS_FILE = "people.db"
"""The database of accounts in a folder of runs; a run that is served alone has them in its own store."""
INVITE_DAYS = 14
RESET_DAYS = 2


class Accounts:
    """The accounts of a store.

    Args:
        clock: returns seconds since 1970, for expiry.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.credentials = Credentials(store, clock)
        self.audit_log = AuditLog(store)

    def issue_setup(self) -> str:
        """Return a single-use secret with which the first owner joins; empty if there is an owner already."""
        users = schema.users.c
        with self.store.writing() as connection:
            is_owner = (users.role == "owner", users.state != "erased")
            if connection.scalar(sa.select(users.id).where(*is_owner).limit(1)):
                return ""
            connection.execute(sa.delete(schema.credentials).where(schema.credentials.c.kind == "setup"))
            return self.credentials.issue(connection, "setup", "owner", days=1)

    def invite(self, inviter: User, role: str, external_ids: Sequence[str] = ("",), comment: str = "") -> list[str]:
        """Return single-use secrets, one for each external id, with which users join in this role.

        Raises:
            AssentError: there is no such role, or the inviting user may not give it.
        """
        check_role(role)
        if not inviter.can("manage"):
            raise AccessDenied(f"a {inviter.role} cannot invite users; ask an admin")
        if role == "owner" and inviter.role != "owner":
            raise AccessDenied("only an owner can invite an owner")
        notes = [json.dumps({"external": external_id, "note": comment}) for external_id in external_ids]
        with self.store.writing() as connection:
            invites = [
                self.credentials.issue(connection, "invite", role, comment=note, days=INVITE_DAYS) for note in notes
            ]
            details = {"role": role, "count": len(invites), "note": comment}
            self.audit_log.add(connection, inviter.id, "invite", details)
            return invites

    def invited_role(self, secret: str) -> str:
        """Return the role of an unused invite or set-up link.

        Raises:
            AccessDenied: the link is unknown, used or expired.
        """
        with self.store.reading() as connection:
            return cast(str, self.credentials.unused(connection, secret).role)

    def join(self, secret: str, name: str, password: str, is_screened: bool = True) -> User:
        """Create an account with an invite or the set-up link, which can be used once.

        Args:
            is_screened: whether a labeller may start at once; if not, their state is `new`.

        Raises:
            AccessDenied: the link is unknown, used or expired.
            AssentError: the name is taken or not permitted, or the password is too short.
        """
        name = check_name(" ".join(name.split()))
        hashed = hash_password(password)
        with self.store.writing() as connection:
            link = self.credentials.unused(connection, secret)
            if self._find_id(connection, name):
                raise AssentError(f"the name '{name}' is taken; choose another")
            external_id = json.loads(link.comment)["external"] if link.kind == "invite" else ""
            state = "active" if is_screened or link.role != "labeller" else "new"
            user_id = PSEUDONYM_PREFIX + secrets.token_hex(5)
            user = User(user_id, name, link.role, external_id, state, utc_now())
            self._insert(connection, user, hashed)
            self.credentials.mark_used(connection, link.seq, user_id=user.id)
            self.audit_log.add(connection, user.id, "join", {"role": user.role})
            return user

    def _insert(self, connection: sa.Connection, user: User, hashed: str) -> None:
        row = {
            "id": user.id,
            "name": user.name,
            "role": user.role,
            "external_id": user.external_id,
            "state": user.state,
            "created_at": user.created_at,
            "password_hash": hashed,
        }
        connection.execute(sa.insert(schema.users), row)

    def sign_in(self, name: str, password: str) -> User:
        """Return the user with this name and password.

        Raises:
            AccessDenied: there is none; the message does not say which of the two is wrong.
        """
        users = schema.users
        with self.store.reading() as connection:
            has_name = users.c.id == self._find_id(connection, name)
            can_sign_in = (has_name, users.c.state != "erased", users.c.password_hash != "")
            row = connection.execute(sa.select(users).where(*can_sign_in)).first()
        if not is_password(password, row.password_hash if row else None) or row is None:
            raise AccessDenied("no account with this name and password")
        return User.of_row(row)

    def change_password(self, user: User, old: str, new: str) -> None:
        """Change a user's password and end their sessions and reset links.

        Raises:
            AccessDenied: the old password is wrong.
            AssentError: the new password is too short.
        """
        self.sign_in(user.name, old)
        hashed = hash_password(new)
        with self.store.writing() as connection:
            self._set_password(connection, user.id, hashed)
            self.credentials.delete(connection, user.id, "session", "reset")
            self.audit_log.add(connection, user.id, "change password", {"person": user.id})

    def issue_reset(self, author: str, id: str) -> str:
        """Return a single-use secret with which a user chooses a new password; earlier ones end.

        Args:
            id: a user id or a name.

        Raises:
            AssentError: there is no such user, or they are erased.
        """
        user = self.get(id)
        _check_not_erased(user)
        with self.store.writing() as connection:
            self.credentials.delete(connection, user.id, "reset")
            self.audit_log.add(connection, author, "reset link", {"person": user.id})
            return self.credentials.issue(connection, "reset", user.role, user.id, days=RESET_DAYS)

    def user_of_reset(self, secret: str) -> User:
        """Return the user whose password a reset link changes.

        Raises:
            AccessDenied: the link is unknown, used or expired.
        """
        with self.store.reading() as connection:
            user_id = self.credentials.unused(connection, secret, "reset").user_id
        return self.get(user_id)

    def reset_password(self, secret: str, password: str) -> User:
        """Set a new password with a reset link, which can be used once; all sessions and tokens end.

        Raises:
            AccessDenied: the link is unknown, used or expired.
            AssentError: the password is too short.
        """
        hashed = hash_password(password)
        with self.store.writing() as connection:
            link = self.credentials.unused(connection, secret, "reset")
            self.credentials.mark_used(connection, link.seq)
            self._set_password(connection, link.user_id, hashed)
            self.credentials.delete(connection, link.user_id, "session", "token")
            self.audit_log.add(connection, link.user_id, "reset password", {"person": link.user_id})
        return self.get(link.user_id)

    def _set_password(self, connection: sa.Connection, user_id: str, hashed: str) -> None:
        is_user = schema.users.c.id == user_id
        connection.execute(sa.update(schema.users).where(is_user).values(password_hash=hashed))

    def get(self, id: str) -> User:
        """Return the user with this id, or else with this name.

        Raises:
            AssentError: there is none.
        """
        users = schema.users
        with self.store.reading() as connection:
            is_user = sa.or_(users.c.id == id, users.c.name == id)
            row = connection.execute(sa.select(users).where(is_user)).first()
            if row is None:
                names = connection.scalars(sa.select(users.c.name).where(users.c.state != "erased")).all()
                raise AssentError(f"no user '{id}'{did_you_mean(id, names)}")
            return User.of_row(row)

    def all(self) -> Iterator[User]:
        """Return all users in the order in which they joined."""
        users = schema.users
        with self.store.reading() as connection:
            rows = connection.execute(sa.select(users).order_by(users.c.seq)).all()
        return map(User.of_row, rows)

    def change(self, author: str, id: str, reason: str = "", *, role: str = "", state: str = "") -> None:
        """Change a user's role or state, and record who did it and why.

        Raises:
            AssentError: no owner would be left, or there is no such role or state.
        """
        user = self.get(id)
        if role:
            check_role(role)
        if state and state not in STATES:
            raise AssentError(f"no state '{state}'{did_you_mean(state, STATES)}")
        _check_not_erased(user)
        users = schema.users.c
        changes = {name: value for name, value in (("role", role), ("state", state)) if value}
        with self.store.writing() as connection:
            if role not in ("", "owner") or state not in ("", "active"):
                self.check_other_owner(connection, user)
            connection.execute(sa.update(schema.users).where(users.id == user.id).values(**changes))
            if role and role != user.role:  # whoever issued a reset link might not be allowed to for the new role
                self.credentials.delete(connection, user.id, "reset")
            self.audit_log.add(connection, author, "change", {"person": user.id, **changes, "why": reason})

    def check_other_owner(self, connection: sa.Connection, user: User) -> None:
        """Check that the store has an active owner besides this user, if this user is an owner.

        Raises:
            AssentError: the user is the only owner.
        """
        users = schema.users.c
        is_active_owner = (users.role == "owner", users.state == "active")
        num_owners = connection.scalar(sa.select(sa.func.count()).where(*is_active_owner))
        if user.role == "owner" and num_owners == 1:
            raise AssentError(f"'{user.name}' is the only owner; make another user an owner first")

    def _find_id(self, connection: sa.Connection, name: str) -> str:
        """Return the id of the user with this name in any case; empty if there is none.

        The names are compared here, because databases fold the case of ASCII letters only.
        """
        users = schema.users.c
        rows = connection.execute(sa.select(users.id, users.name)).all()
        return next((row.id for row in rows if normalise_name(row.name) == normalise_name(name)), "")


def open_accounts(folder: Path, store: Store) -> Accounts:
    """Return the accounts of a run: those in its store, or else those of the folder that contains the run."""
    own_accounts = Accounts(store)
    shared_file = folder.resolve().parent / ACCOUNTS_FILE
    if next(own_accounts.all(), None) or not shared_file.exists():
        return own_accounts
    return Accounts(Store.open(shared_file))


def _check_not_erased(user: User) -> None:
    if user.state == "erased":
        raise AssentError(f"{user.id} is erased; its account cannot be changed")
