"""Users, their roles and what each role permits."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from assent.errors import AssentError, did_you_mean

Role = Literal["owner", "admin", "reviewer", "labeller", "viewer"]
Permission = Literal["label", "chat", "look", "review", "manage"]

PERMISSIONS: dict[str, frozenset[str]] = {
    "owner": frozenset(get_args(Permission)),
    "admin": frozenset(get_args(Permission)),
    "reviewer": frozenset({"label", "chat", "look", "review"}),
    "labeller": frozenset({"label", "chat"}),
    "viewer": frozenset({"look"}),
}
"""The permissions of each role; everything else is denied."""
STATES = ("new", "active", "paused")
"""The states that an admin may give a user."""


class AccessDenied(AssentError):
    """A name, password, link or role that does not give access."""


@dataclass(frozen=True)
class User:
    """An account; its judgements are stored under `id`, a pseudonym."""

    id: str
    name: str
    role: str
    external_id: str = ""
    """The user's id on the crowd platform that they came from."""
    state: str = "active"
    """`new` until screened, `active`, `paused` (no new tasks for now), `erased`."""
    created_at: str = ""  # ISO 8601, UTC

    def can(self, permission: str) -> bool:
        """Return whether the user's role has a permission; an erased user has none."""
        return permission in PERMISSIONS.get(self.role, frozenset()) and self.state != "erased"

    @classmethod
    def of_row(cls, row: sa.Row[Any]) -> "User":
        """Return the user in a row of the table of accounts."""
        return cls(row.id, row.name, row.role, row.external_id, row.state, row.created_at)


def check_role(role: str) -> None:
    """Check that a role exists.

    Raises:
        AssentError: it does not.
    """
    if role not in PERMISSIONS:
        raise AssentError(f"no role '{role}'{did_you_mean(role, PERMISSIONS)}")
