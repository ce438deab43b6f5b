"""Who may do what: people with roles, and the secrets that let them in, of which only hashes are kept."""

import hashlib
import json
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

import sqlalchemy as sa

from assent.errors import AssentError, did_you_mean
from assent.store import schema
from assent.store.database import Store

Role = Literal["owner", "admin", "reviewer", "labeller", "viewer"]
Right = Literal["label", "chat", "look", "review", "manage"]

RIGHTS: dict[str, frozenset[str]] = {
    "owner": frozenset(get_args(Right)),
    "admin": frozenset(get_args(Right)),
    "reviewer": frozenset({"label", "chat", "look", "review"}),
    "labeller": frozenset({"label", "chat"}),
    "viewer": frozenset({"look"}),
}
"""What each role may do; what is not named is denied."""
FILE = "people.db"
"""Where the accounts of a folder of runs lie; those of a run that is served alone lie in its own store."""
SESSION_DAYS = 30
INVITE_DAYS = 14
RESET_DAYS = 2
NAME = 60
"""Letters that a name may have."""
PASSWORD = 8
"""Letters that a password needs."""
LOOK_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK"})
"""Scripts with letters of one shape: a word in two of them can pass for somebody else's name."""
UNSEEN = re.compile(
    r"(?<![\u0590-\u1fff])[\u200c](?![\u0590-\u1fff])|(?<![\u0590-\u1fff\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d|"
    r"[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ud800-\udfff\ue000-\uf8ff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U0010ffff]"
)
"""Characters that nobody sees; joiners are seen in Persian or Indic names and in emoji."""
DAY = 86400.0


class Denied(AssentError):
    """Not with this name, password, link or role."""


@dataclass(frozen=True)
class Person:
    """An account; what it says is stored under `id`, a pseudonym."""

    id: str
    name: str
    role: str
    external: str = ""
    """Who that is on the platform they came from."""
    state: str = "active"
    """`new` until screened, `active`, `paused` (asked nothing more for now), `erased`."""
    at: str = ""

    def may(self, right: str) -> bool:
        return right in RIGHTS.get(self.role, frozenset()) and self.state != "erased"


@dataclass(frozen=True)
class Key:
    """A link or a token that is in somebody's hands; its secret is not kept."""

    seq: int
    kind: str
    """`invite`, `reset` or `token`."""
    person: str
    """Whose it is; empty for an invite that nobody has used."""
    role: str
    note: str
    external: str
    until: str
    """When it ends, ISO 8601 in UTC."""
    used: str
    """The day on which a token was used last; empty if never."""


class People:
    """The accounts of a store.

    Args:
        clock: seconds since 1970, for what expires.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store, self._clock = store, clock

    def setup(self) -> str:
        """A one-time secret that makes its bearer the owner; empty if there is an owner already."""
        p = schema.people.c
        with self.store.writing() as on:
            if on.scalar(sa.select(p.id).where(p.role == "owner", p.state != "erased").limit(1)):
                return ""
            on.execute(sa.delete(schema.keys).where(schema.keys.c.kind == "setup"))
            return self._key(on, "setup", "owner", days=1)

    def invite(self, by: Person, role: str, externals: Sequence[str] = ("",), note: str = "") -> list[str]:
        """Single-use secrets, one for each external id, that let somebody make an account with this role.

        Raises:
            AssentError: no such role, or one above the inviter's own.
        """
        _check_role(role)
        if not by.may("manage"):
            raise Denied(f"a {by.role} may not invite anybody")
        if role == "owner" and by.role != "owner":
            raise Denied("only an owner invites an owner")
        with self.store.writing() as on:
            made = [
                self._key(on, "invite", role, note=json.dumps({"external": who, "note": note}), days=INVITE_DAYS)
                for who in externals
            ]
            self._act(on, by.id, "invite", {"role": role, "count": len(made), "note": note})
            return made

    def invited(self, secret: str) -> str:
        """The role that an unused invite or set-up secret stands for.

        Raises:
            Denied: unknown, used, or too old.
        """
        with self.store.reading() as on:
            return cast(str, self._unused(on, secret).role)

    def join(self, secret: str, name: str, password: str, screened: bool = True) -> Person:
        """Make an account with an invite or the set-up secret, which is then used up.

        Args:
            screened: whether a labeller may start at once; if not, they are `new`.

        Raises:
            Denied: the secret is unknown, used or too old.
            AssentError: a name that is taken or too long, a password that is too short.
        """
        name = _check_name(" ".join(name.split()))
        hashed = _hashed(password)
        with self.store.writing() as on:
            key = self._unused(on, secret)
            if self._named(on, name):
                raise AssentError(f"the name '{name}' is taken: choose another")
            external = json.loads(key.note)["external"] if key.kind == "invite" else ""
            state = "active" if screened or key.role != "labeller" else "new"
            person = Person("person-" + secrets.token_hex(5), name, key.role, external, state, _now())
            row = {**vars(person), "secret": hashed}
            on.execute(sa.insert(schema.people), row)
            on.execute(sa.update(schema.keys).where(schema.keys.c.seq == key.seq).values(used=_now(), person=person.id))
            self._act(on, person.id, "join", {"role": person.role})
            return person

    def sign_in(self, name: str, password: str) -> Person:
        """The person of this name and password.

        Raises:
            Denied: there is none; it does not say which of the two was wrong.
        """
        from argon2.exceptions import VerificationError

        p = schema.people
        with self.store.reading() as on:
            wanted = p.c.id == self._named(on, name)
            row = on.execute(sa.select(p).where(wanted, p.c.state != "erased", p.c.secret != "")).first()
        try:
            _hasher().verify(row.secret if row else _nobody(), password)
        except VerificationError:
            row = None
        if row is None:
            raise Denied("no account with this name and password")
        return _person(row)

    def change_password(self, person: Person, old: str, new: str) -> None:
        """Give somebody a new password, and end their other sessions.

        Raises:
            Denied: the old password is another one.
            AssentError: the new one is too short.
        """
        self.sign_in(person.name, old)
        hashed = _hashed(new)
        with self.store.writing() as on:
            self._set_password(on, person.id, hashed)
            on.execute(sa.delete(schema.keys).where(schema.keys.c.person == person.id, schema.keys.c.kind == "reset"))
            self._act(on, person.id, "change password", {"person": person.id})

    def invite_reset(self, by: str, id: str) -> str:
        """A single-use secret with which somebody chooses a new password.

        Raises:
            AssentError: nobody has this pseudonym or name, or they are erased.
        """
        person = self.get(id)
        if person.state == "erased":
            raise AssentError(f"{person.id} is erased: nobody is there any more")
        with self.store.writing() as on:
            k = schema.keys.c
            on.execute(sa.delete(schema.keys).where(k.kind == "reset", k.person == person.id))
            self._act(on, by, "reset link", {"person": person.id})
            return self._key(on, "reset", person.role, person.id, days=RESET_DAYS)

    def resetting(self, secret: str) -> Person:
        """Whose password a reset secret changes.

        Raises:
            Denied: unknown, used, or too old.
        """
        with self.store.reading() as on:
            owner = self._unused(on, secret, "reset").person
        return self.get(owner)

    def reset_password(self, secret: str, password: str) -> Person:
        """Choose a new password with a reset secret, which is then used up; sessions and tokens end.

        Raises:
            Denied: the secret is unknown, used or too old.
            AssentError: the password is too short.
        """
        hashed = _hashed(password)
        with self.store.writing() as on:
            key = self._unused(on, secret, "reset")
            on.execute(sa.update(schema.keys).where(schema.keys.c.seq == key.seq).values(used=_now()))
            self._set_password(on, key.person, hashed, tokens=True)
            self._act(on, key.person, "reset password", {"person": key.person})
        return self.get(key.person)

    def _set_password(self, on: sa.Connection, id: str, hashed: str, tokens: bool = False) -> None:
        k = schema.keys.c
        on.execute(sa.update(schema.people).where(schema.people.c.id == id).values(secret=hashed))
        kinds = ("session", "token") if tokens else ("session",)
        on.execute(sa.delete(schema.keys).where(k.person == id, k.kind.in_(kinds)))

    def credentials(self, person: str = "") -> list[Key]:
        """Links and tokens that still open something, the newest first; those of a person if one is named."""
        k = schema.keys.c
        alive = sa.or_(k.kind == "token", sa.and_(k.kind.in_(("invite", "reset")), k.used == ""))
        where = [alive, k.until > self._clock(), *([k.person == person] if person else [])]
        with self.store.reading() as on:
            rows = on.execute(sa.select(schema.keys).where(*where).order_by(k.seq.desc())).all()
        return [_as_key(row) for row in rows]

    def withdraw(self, by: Person, seqs: Iterable[int]) -> int:
        """Take links and tokens back, and return how many there were.

        Whoever may not manage takes back their own; those of owners are for owners.
        """
        k = schema.keys.c
        mine = (k.seq.in_(list(seqs)), k.kind.in_(("invite", "reset", "token")))
        owners = sa.select(schema.people.c.id).where(schema.people.c.role == "owner")
        theirs = [] if by.role == "owner" else [k.role != "owner", k.person.not_in(owners)]
        own = theirs if by.may("manage") else [k.person == by.id]
        with self.store.writing() as on:
            rows = on.execute(sa.select(k.seq, k.kind, k.person).where(*mine, *own)).all()
            on.execute(sa.delete(schema.keys).where(k.seq.in_([row.seq for row in rows])))
            for kind in sorted({row.kind for row in rows}):
                whose = sorted({row.person for row in rows if row.kind == kind and row.person})
                count = sum(row.kind == kind for row in rows)
                self._act(on, by.id, f"withdraw {kind}", {"count": count, "person": ", ".join(whose)})
        return len(rows)

    def record(self, by: str, what: str, about: Mapping[str, Any]) -> None:
        """Remember something that somebody who runs the project did."""
        with self.store.writing() as on:
            self._act(on, by, what, dict(about))

    def open_session(self, person: Person) -> str:
        """A secret for this person's cookie."""
        with self.store.writing() as on:
            self._forget_old(on)
            return self._key(on, "session", person.role, person.id, days=SESSION_DAYS)

    def issue_token(self, person: Person, note: str, days: float = 365) -> str:
        """A secret for programs that act as this person."""
        with self.store.writing() as on:
            self._act(on, person.id, "token", {"note": note})
            return self._key(on, "token", person.role, person.id, note, days)

    def who(self, secret: str, kind: Literal["session", "token"] = "session") -> Person | None:
        """Whose session or token this is; None for a stranger's, and for one that has expired."""
        k, p = schema.keys, schema.people
        with self.store.reading() as on:
            held = (k.c.digest == _digest(secret), k.c.kind == kind, k.c.until > self._clock(), p.c.state != "erased")
            key = sa.select(p, k.c.used.label("day")).join(k, k.c.person == p.c.id)
            row = on.execute(key.where(*held)).first() if secret else None
        if row is not None and kind == "token" and row.day != (day := _now()[:10]):
            with self.store.writing() as on:
                on.execute(sa.update(k).where(k.c.digest == _digest(secret)).values(used=day))
        return _person(row) if row else None

    def revoke(self, secret: str) -> None:
        """End one session or token."""
        with self.store.writing() as on:
            on.execute(sa.delete(schema.keys).where(schema.keys.c.digest == _digest(secret)))

    def get(self, id: str) -> Person:
        """The person with this pseudonym, or else with this name.

        Raises:
            AssentError: there is none.
        """
        p = schema.people
        with self.store.reading() as on:
            row = on.execute(sa.select(p).where(sa.or_(p.c.id == id, p.c.name == id))).first()
            if row is None:
                known = on.scalars(sa.select(p.c.name).where(p.c.state != "erased")).all()
                raise AssentError(f"nobody here is called '{id}'{did_you_mean(id, known)}")
            return _person(row)

    def all(self) -> Iterator[Person]:
        """Everybody, in the order in which they came."""
        with self.store.reading() as on:
            rows = on.execute(sa.select(schema.people).order_by(schema.people.c.seq)).all()
        return map(_person, rows)

    def change(self, by: str, id: str, why: str = "", *, role: str = "", state: str = "") -> None:
        """Give somebody another role or state, and remember who did it and why.

        Raises:
            AssentError: the last owner would be gone, or there is no such role or state.
        """
        p = schema.people
        person = self.get(id)
        if role:
            _check_role(role)
        if state and state not in ("new", "active", "paused"):
            raise AssentError(f"no state '{state}'{did_you_mean(state, ('new', 'active', 'paused'))}")
        if person.state == "erased":
            raise AssentError(f"{person.id} is erased: nobody is there any more")
        with self.store.writing() as on:
            owners = on.scalar(sa.select(sa.func.count()).where(p.c.role == "owner", p.c.state == "active"))
            if person.role == "owner" and owners == 1 and (role not in ("", "owner") or state not in ("", "active")):
                raise AssentError(f"'{person.name}' is the only owner: make another one first")
            new = {name: value for name, value in (("role", role), ("state", state)) if value}
            on.execute(sa.update(p).where(p.c.id == person.id).values(**new))
            if role and role != person.role:  # whoever made a reset link could not have made one for the new role
                k = schema.keys.c
                on.execute(sa.delete(schema.keys).where(k.person == person.id, k.kind == "reset"))
            self._act(on, by, "change", {"person": person.id, **new, "why": why})

    def let_in(self, id: str) -> str:
        """When somebody last became active by another person's hand or the screening; empty if never."""
        a = schema.acts.c
        with self.store.reading() as on:
            about = (a.what == "change", a.about.contains(f'"{id}"', autoescape=True))
            rows = on.execute(sa.select(a.at, a.about).where(*about).order_by(a.seq.desc())).all()
        told = ((row.at, json.loads(row.about)) for row in rows)
        return next((str(at) for at, it in told if it["person"] == id and it.get("state") == "active"), "")

    def export(self, id: str, others: Sequence[Store] = ()) -> dict[str, Any]:
        """Everything that is kept about somebody, as JSON-able values: the account, what they did, what they said.

        Args:
            others: stores of runs in which they may have answered, beside this one.
        """
        person = self.get(id)
        with self.store.reading() as on:
            a = schema.acts
            mine = sa.or_(a.c.by == person.id, a.c.about.contains(f'"{person.id}"', autoescape=True))
            acts = on.execute(sa.select(a.c.at, a.c.by, a.c.what, a.c.about).where(mine).order_by(a.c.seq)).all()
        f, said = schema.feedback, list[sa.Row[Any]]()
        for store in (self.store, *others):
            with store.reading() as on:
                said += on.execute(sa.select(f).where(f.c.annotator == person.id).order_by(f.c.seq)).all()
        return {
            "account": vars(person),
            "acts": [dict(row._mapping) for row in acts],
            "feedback": [{k: v for k, v in row._mapping.items() if k not in ("seq", "digest")} for row in said],
        }

    def erase(self, by: str, id: str) -> Person:
        """Forget who somebody is: name, password, external id, sessions; what they said stays, under the pseudonym."""
        person = self.get(id)
        p = schema.people
        with self.store.writing() as on:
            owners = on.scalar(sa.select(sa.func.count()).where(p.c.role == "owner", p.c.state == "active"))
            if person.role == "owner" and owners == 1:
                raise AssentError(f"'{person.name}' is the only owner: make another one first")
            gone = {"name": f"erased {person.id}", "secret": "", "external": "", "state": "erased"}
            on.execute(sa.update(p).where(p.c.id == person.id).values(**gone))
            on.execute(sa.delete(schema.keys).where(schema.keys.c.person == person.id))
            self._forget_words(on, person)
            self._act(on, by, "erase", {"person": person.id})
        self.store.flush()
        return self.get(person.id)

    def _forget_words(self, on: sa.Connection, person: Person) -> None:
        """Take name and external id out of notes, and out of invites that nobody used."""
        words = [word for word in (person.name, person.external) if word]
        k, a = schema.keys, schema.acts
        for row in on.execute(sa.select(k.c.seq, k.c.note).where(k.c.kind == "invite")).all():
            if person.external and json.loads(row.note)["external"] == person.external:
                on.execute(sa.delete(k).where(k.c.seq == row.seq))
        for row in on.execute(sa.select(a.c.seq, a.c.about)).all():
            about = json.loads(row.about)
            for name, value in about.items():
                for word in words:
                    about[name] = value = value.replace(word, person.id) if isinstance(value, str) else value
            told = json.dumps(about, ensure_ascii=False)
            if told != row.about:
                on.execute(sa.update(a).where(a.c.seq == row.seq).values(about=told))

    def _named(self, on: sa.Connection, name: str) -> str:
        """The pseudonym of who has this name, in capitals or not; databases know capitals of English only."""
        rows = on.execute(sa.select(schema.people.c.id, schema.people.c.name)).all()
        return next((row.id for row in rows if folded(row.name) == folded(name)), "")

    def _key(self, on: sa.Connection, kind: str, role: str, person: str = "", note: str = "", days: float = 1.0) -> str:
        secret = secrets.token_urlsafe(32)
        until = self._clock() + days * DAY
        row = {"digest": _digest(secret), "kind": kind, "person": person, "role": role, "note": note}
        on.execute(sa.insert(schema.keys), {**row, "until": until, "used": ""})
        return secret

    def _unused(self, on: sa.Connection, secret: str, *kinds: str) -> sa.Row[Any]:
        k = schema.keys
        of_kind = k.c.kind.in_(kinds or ("invite", "setup"))
        row = on.execute(sa.select(k).where(k.c.digest == _digest(secret), of_kind)).first()
        if row is None or row.used or row.until < self._clock():
            found = "is not known" if row is None else "was used already" if row.used else "is too old"
            raise Denied(f"this link {found}: ask for a new one")
        return row

    def _forget_old(self, on: sa.Connection) -> None:
        k = schema.keys.c
        on.execute(sa.delete(schema.keys).where(k.kind.in_(("session", "invite", "reset")), k.until < self._clock()))

    def _act(self, on: sa.Connection, by: str, what: str, about: dict[str, Any]) -> None:
        row = {"at": _now(), "by": by, "what": what, "about": json.dumps(about, ensure_ascii=False)}
        on.execute(sa.insert(schema.acts), row)

    def acts(self) -> Iterable[sa.Row[Any]]:
        """What was done to accounts, the newest first."""
        with self.store.reading() as on:
            return on.execute(sa.select(schema.acts).order_by(schema.acts.c.seq.desc()).limit(500)).all()


def people_of(folder: Path, store: Store) -> People:
    """The accounts of a run: its own, or else those of the folder in which it lies."""
    own, shared = People(store), folder.resolve().parent / FILE
    return own if next(own.all(), None) or not shared.exists() else People(Store.open(shared))


def folded(name: str) -> str:
    """A name without what two spellings of it may differ in."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def _check_name(name: str) -> str:
    """A name that others can tell from theirs.

    Raises:
        AssentError: it is too long, looks like another one, or like a pseudonym.
    """
    if not 1 <= len(name) <= NAME:
        raise AssentError(f"a name has 1 to {NAME} letters, not {len(name)}")
    if odd := UNSEEN.search(name):
        raise AssentError(f"a name has no characters that nobody sees, such as U+{ord(odd[0]):04X}")
    if name.startswith(("person-", "erased ")):
        raise AssentError("a name does not begin like a pseudonym: choose another")
    for word in re.split(r"[\W\d_]+", name):
        scripts = LOOK_ALIKE & {unicodedata.name(letter, "?").split()[0] for letter in word if letter.isalpha()}
        if len(scripts) > 1:
            mixed = " and ".join(script.title() for script in sorted(scripts))
            raise AssentError(
                f"'{word}' mixes letters of {mixed}, so that it can pass for another name: use one script"
            )
    return name


def _hashed(password: str) -> str:
    """A hash, slow on purpose: make it before the transaction.

    Raises:
        AssentError: the password is too short.
    """
    if len(password) < PASSWORD:
        raise AssentError(f"a password has at least {PASSWORD} letters, not {len(password)}")
    return str(_hasher().hash(password))


def _as_key(row: sa.Row[Any]) -> Key:
    about = json.loads(row.note) if row.kind == "invite" else {"note": row.note, "external": ""}
    until = datetime.fromtimestamp(row.until, UTC).isoformat(timespec="minutes")
    return Key(row.seq, row.kind, row.person, row.role, about["note"], about["external"], until, row.used)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _hasher() -> Any:
    from argon2 import PasswordHasher

    return PasswordHasher()  # argon2id, RFC 9106's second recommendation


_NOBODY: list[str] = []


def _nobody() -> str:
    """A hash of no password: an unknown name takes as long as a wrong password."""
    if not _NOBODY:
        _NOBODY.append(_hasher().hash(secrets.token_hex()))
    return _NOBODY[0]


def _check_role(role: str) -> None:
    if role not in RIGHTS:
        raise AssentError(f"no role '{role}'{did_you_mean(role, RIGHTS)}")


def _person(row: sa.Row[Any]) -> Person:
    return Person(row.id, row.name, row.role, row.external, row.state, row.at)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
