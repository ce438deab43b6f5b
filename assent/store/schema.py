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
)

HEAD = "0002"
"""The newest migration; revisions are numbers, so that a larger one is from a newer assent."""
VERSION_TABLE = "assent_version"

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
    # SHA-256 of the digest before it and of this row: an edit behind the triggers' back breaks the chain.
    _text("digest"),
    Index("feedback_by_query", "query", "annotator"),
    Index("feedback_by_annotator", "annotator", "seq"),
)
