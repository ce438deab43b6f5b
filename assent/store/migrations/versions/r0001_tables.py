"""Prompts, responses, queries and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "prompts",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
    )
    op.create_index("prompts_by_source", "prompts", ["source", "seq"])
    op.create_table(
        "responses",
        _seq(),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, sa.ForeignKey("prompts.id"), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.Column("sampling", sa.Text, nullable=False),
        sa.UniqueConstraint("id", "policy"),
    )
    op.create_index("responses_by_prompt", "responses", ["prompt", "seq"])
    op.create_index("responses_by_policy", "responses", ["policy", "seq"])
    op.create_table(
        "queries",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, sa.ForeignKey("prompts.id"), nullable=False),
        sa.Column("items", sa.JSON, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("instruction", sa.Text, nullable=False),
    )
    op.create_index("queries_by_purpose", "queries", ["purpose", "seq"])
    op.create_index("queries_by_prompt", "queries", ["prompt", "seq"])
    op.create_table(
        "feedback",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("query", sa.Text, sa.ForeignKey("queries.id"), nullable=False),
        sa.Column("annotator", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("shown", sa.JSON, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("supersedes", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
    )
    op.create_index("feedback_by_query", "feedback", ["query", "annotator"])
    op.create_index("feedback_by_annotator", "feedback", ["annotator", "seq"])


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
