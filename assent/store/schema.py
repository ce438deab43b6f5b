"""The tables of a store: prompts, responses, tasks, feedback, and the queue and accounts of the label pages.

The database itself refuses to change or delete rows of `feedback`.
"""

import sqlalchemy as sa
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0007"
"""The newest migration; revisions are numbers, so that a larger one is from a newer assent."""
VERSION_TABLE = "assent_version"

OPEN = text("received < required")
metadata = MetaData()


def _seq() -> Column[int]:
    """Return the column of the order of arrival; pages of a long query are cut by it."""
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


prompts = Table(
    "prompts",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("messages", JSON, nullable=False),
    _text("category"),
    _text("source"),
    Column("tools", JSON(none_as_null=True)),
    # Reference answers and other facts that annotators never see.
    Column("meta", JSON(none_as_null=True)),
    Index("prompts_by_source", "source", "seq"),
)

responses = Table(
    "responses",
    metadata,
    _seq(),
    _text("id"),
    Column("prompt", Text, ForeignKey("prompts.id"), nullable=False),
    _text("text"),
    _text("policy"),
    Column("finished", Boolean, nullable=False),
    _text("sampling"),
    # Other keys of the message: reasoning_content, tool_calls.
    Column("extra", JSON(none_as_null=True)),
    # The tokens that the policy sampled, and the fingerprint of its tokenizer.
    Column("token_ids", JSON(none_as_null=True)),
    Column("tokenizer", Text, nullable=False, server_default=""),
    # Two policies may write the same text: it is one item to judge, and a response of each.
    UniqueConstraint("id", "policy"),
    Index("responses_by_prompt", "prompt", "seq"),
    Index("responses_by_policy", "policy", "seq"),
)

tasks = Table(
    "tasks",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    _text("kind"),
    Column("prompt", Text, ForeignKey("prompts.id"), nullable=False),
    Column("items", JSON, nullable=False),
    _text("purpose"),
    _text("instruction"),
    Index("tasks_by_purpose", "purpose", "seq"),
    Index("tasks_by_prompt", "prompt", "seq"),
)

feedback = Table(
    "feedback",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False),
    _text("annotator"),
    _text("kind"),
    Column("judgement", JSON, nullable=False),
    _text("created_at"),
    Column("duration", Float, nullable=False),
    Column("display_order", JSON, nullable=False),
    _text("comment"),
    _text("supersedes"),
    Column("flags", JSON(none_as_null=True)),
    # human, simulated, model, scorer
    Column("source", Text, nullable=False, server_default="human"),
    # SHA-256 of the digest before it and of this row: an edit that evades the triggers breaks the chain.
    _text("digest"),
    Index("feedback_by_task", "task", "annotator"),
    Index("feedback_by_annotator", "annotator", "seq"),
    Index("feedback_by_superseded", "supersedes"),
)

IS_HUMAN = feedback.c.source == "human"
"""The judgement is a human's: a condition on a row of `feedback`."""


def is_current() -> sa.ColumnElement[bool]:
    """Return the condition that no other row of `feedback` supersedes a row."""
    newer = feedback.alias("newer").c
    return ~sa.exists().where(newer.supersedes == feedback.c.id)


queue = Table(
    "queue",
    metadata,
    _seq(),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False, unique=True),
    # The stage (`label-2`) or the user that requested it.
    _text("batch"),
    _text("acquisition"),
    Column("propensity", Float),
    # How many annotators are to judge it, and how many did.
    Column("required", Integer, nullable=False),
    Column("received", Integer, nullable=False),
    # The lowest first.
    Column("priority", Float, nullable=False),
    Index("queue_by_batch", "batch"),
    Index("queue_open", "priority", "seq", sqlite_where=OPEN, postgresql_where=OPEN),
)

assignments = Table(
    "assignments",
    metadata,
    _seq(),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False),
    _text("annotator"),
    # Item ids in the order of this annotator's screen.
    Column("display_order", JSON, nullable=False),
    # The task's name on this annotator's page: its id would tell its purpose.
    Column("alias", Text, nullable=False, unique=True),
    # out, aside (not offered again), done, skipped, back (returned by a reviewer)
    _text("state"),
    Column("expires_at", Float, nullable=False),
    # The reviewer's words.
    Column("remark", Text, nullable=False, server_default=""),
    UniqueConstraint("task", "annotator"),
    Index("assignments_by_annotator", "annotator", "state"),
)

gold = Table(
    "gold",
    metadata,
    _seq(),
    Column("task", Text, ForeignKey("tasks.id"), nullable=False, unique=True),
    # practice, test, hidden
    _text("use"),
    Column("judgement", JSON, nullable=False),
    _text("explanation"),
)

users = Table(
    "users",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    _text("role"),
    # argon2id; empty: no password opens this account.
    _text("password_hash"),
    # The user's id on the platform that sent them.
    _text("external_id"),
    # new, active, paused, erased
    _text("state"),
    _text("created_at"),
    Index("users_by_external_id", "external_id"),
)

credentials = Table(
    "credentials",
    metadata,
    _seq(),
    # SHA-256 of the secret, which only its holder has.
    Column("digest", Text, nullable=False, unique=True),
    # session, invite, token, setup, reset
    _text("kind"),
    _text("user_id"),
    _text("role"),
    _text("comment"),
    Column("expires_at", Float, nullable=False),
    # When an invite or reset link was used; the day on which a token was used last.
    _text("used_at"),
    Index("credentials_by_user_id", "user_id", "kind"),
)

settings = Table(
    "settings",
    metadata,
    _seq(),
    # The newest row of a name is in force; the older ones are its history.
    _text("name"),
    Column("value", JSON, nullable=False),
    _text("author"),
    _text("created_at"),
    Index("settings_by_name", "name", "seq"),
)

audit_log = Table(
    "audit_log",
    metadata,
    _seq(),
    _text("created_at"),
    _text("author"),
    _text("action"),
    _text("details"),
)
