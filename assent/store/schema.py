"""The tables: what can be judged, what was asked, and what people said, which the database itself never lets change."""

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

HEAD = "0006"
"""The newest migration; revisions are numbers, so that a larger one is from a newer assent."""
VERSION_TABLE = "assent_version"

OPEN = text("given < wanted")
metadata = MetaData()


def _seq() -> Column[int]:
    """The order of arrival: pages of a long reading are cut by it."""
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


prompts = Table(
    "prompts",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("messages", JSON, nullable=False),
    _text("mode"),
    _text("source"),
    Column("tools", JSON(none_as_null=True)),
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
    # What the policy drew, and the fingerprint of its tokenizer.
    Column("token_ids", JSON(none_as_null=True)),
    Column("tokenizer", Text, nullable=False, server_default=""),
    # Two policies may write the same answer: one item to judge, but each of them said it.
    UniqueConstraint("id", "policy"),
    Index("responses_by_prompt", "prompt", "seq"),
    Index("responses_by_policy", "policy", "seq"),
)

queries = Table(
    "queries",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    _text("kind"),
    Column("prompt", Text, ForeignKey("prompts.id"), nullable=False),
    Column("items", JSON, nullable=False),
    _text("purpose"),
    _text("instruction"),
    Index("queries_by_purpose", "purpose", "seq"),
    Index("queries_by_prompt", "prompt", "seq"),
)

feedback = Table(
    "feedback",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("query", Text, ForeignKey("queries.id"), nullable=False),
    _text("annotator"),
    _text("kind"),
    Column("answer", JSON, nullable=False),
    _text("at"),
    Column("seconds", Float, nullable=False),
    Column("shown", JSON, nullable=False),
    _text("note"),
    _text("supersedes"),
    Column("flags", JSON(none_as_null=True)),
    # SHA-256 of the digest before it and of this row: an edit behind the triggers' back breaks the chain.
    _text("digest"),
    Index("feedback_by_query", "query", "annotator"),
    Index("feedback_by_annotator", "annotator", "seq"),
    Index("feedback_by_superseded", "supersedes"),
)

asks = Table(
    "asks",
    metadata,
    _seq(),
    Column("query", Text, ForeignKey("queries.id"), nullable=False, unique=True),
    # The stage that wants to know (`label-2`), or who asked.
    _text("batch"),
    _text("rule"),
    Column("propensity", Float),
    # How many people are to answer, and how many did.
    Column("wanted", Integer, nullable=False),
    Column("given", Integer, nullable=False),
    # The lowest first.
    Column("priority", Float, nullable=False),
    Index("asks_by_batch", "batch"),
    Index("asks_open", "priority", "seq", sqlite_where=OPEN, postgresql_where=OPEN),
)

leases = Table(
    "leases",
    metadata,
    _seq(),
    Column("query", Text, ForeignKey("queries.id"), nullable=False),
    _text("person"),
    # Items in the order in which they stand on this person's screen.
    Column("shown", JSON, nullable=False),
    # What the query is called on this person's page: its id would tell what it is for.
    Column("name", Text, nullable=False, unique=True),
    # out, aside (not asked again), done, skipped, back (sent back by a reviewer)
    _text("state"),
    Column("until", Float, nullable=False),
    # What the reviewer said.
    Column("remark", Text, nullable=False, server_default=""),
    UniqueConstraint("query", "person"),
    Index("leases_by_person", "person", "state"),
)

gold = Table(
    "gold",
    metadata,
    _seq(),
    Column("query", Text, ForeignKey("queries.id"), nullable=False, unique=True),
    # practice, test, hidden
    _text("use"),
    Column("answer", JSON, nullable=False),
    _text("explanation"),
)

people = Table(
    "people",
    metadata,
    _seq(),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    _text("role"),
    # An argon2id hash; empty: nobody can sign in so.
    _text("secret"),
    # Who that is on the platform they came from.
    _text("external"),
    # new, active, paused, erased
    _text("state"),
    _text("at"),
    Index("people_by_external", "external"),
)

keys = Table(
    "keys",
    metadata,
    _seq(),
    # SHA-256 of the secret that its holder has.
    Column("digest", Text, nullable=False, unique=True),
    # session, invite, token, setup, reset
    _text("kind"),
    _text("person"),
    _text("role"),
    _text("note"),
    Column("until", Float, nullable=False),
    # When an invite or reset link was used; the day on which a token was used last.
    _text("used"),
    Index("keys_by_person", "person", "kind"),
)

settings = Table(
    "settings",
    metadata,
    _seq(),
    # The newest row of a name holds; the older ones say what held when.
    _text("name"),
    Column("value", JSON, nullable=False),
    _text("by"),
    _text("at"),
    Index("settings_by_name", "name", "seq"),
)

acts = Table(
    "acts",
    metadata,
    _seq(),
    _text("at"),
    _text("by"),
    _text("what"),
    _text("about"),
)
