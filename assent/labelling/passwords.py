"""Passwords: only slow, salted hashes of them are stored (argon2id, the second recommendation of RFC 9106)."""

import secrets
from functools import cache
from typing import Any

from assent.errors import AssentError

MIN_PASSWORD_LENGTH = 8


def hash_password(password: str) -> str:
    """Return the hash of a new password; it is slow on purpose, so compute it before a transaction.

    Raises:
        AssentError: the password is too short.
    """
    if len(password) < MIN_PASSWORD_LENGTH:
        raise AssentError(f"a password needs at least {MIN_PASSWORD_LENGTH} characters, got {len(password)}")
    return str(_hasher().hash(password))


def is_password(password: str, hashed: str | None) -> bool:
    """Return whether a password has this hash; None for an unknown user takes as long as a wrong password."""
    from argon2.exceptions import VerificationError

    try:
        _hasher().verify(hashed or dummy_hash(), password)
    except VerificationError:
        return False
    return hashed is not None


@cache
def dummy_hash() -> str:
    """Return the hash of a random password, computed once per process."""
    return str(_hasher().hash(secrets.token_hex()))


def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher()
