"""Who is asked what: flags on feedback, and the tables of people, of what they hold, and of what they may do."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("feedback", sa.Column("flags", sa.JSON))
    op.create_table(
        "asks",
        _seq(),
        sa.Column("query", sa.Text, sa.ForeignKey("queries.id"), nullable=False, unique=True),
        *_texts("batch", "rule"),
        sa.Column("propensity", sa.Float),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("given", sa.Integer, nullable=False),
        sa.Column("priority", sa.Float, nullable=False),
    )
    op.create_index("asks_by_batch", "asks", ["batch"])
    unfinished = sa.text("given < wanted")
    op.create_index("asks_open", "asks", ["priority", "seq"], sqlite_where=unfinished, postgresql_where=unfinished)
    op.create_table(
        "leases",
        _seq(),
        sa.Column("query", sa.Text, sa.ForeignKey("queries.id"), nullable=False),
        *_texts("person"),
        sa.Column("shown", sa.JSON, nullable=False),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        *_texts("state"),
        sa.Column("until", sa.Float, nullable=False),
        sa.UniqueConstraint("query", "person"),
    )
    op.create_index("leases_by_person", "leases", ["person", "state"])
    op.create_table(
        "gold",
        _seq(),
        sa.Column("query", sa.Text, sa.ForeignKey("queries.id"), nullable=False, unique=True),
        *_texts("use"),
        sa.Column("answer", sa.JSON, nullable=False),
        *_texts("explanation"),
    )
    op.create_table(
        "people",
        _seq(),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        *_texts("role", "secret", "external", "state", "at"),
    )
    op.create_index("people_by_external", "people", ["external"])
    op.create_table(
        "keys",
        _seq(),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        *_texts("kind", "person", "role", "note"),
        sa.Column("until", sa.Float, nullable=False),
        *_texts("used"),
    )
    op.create_index("keys_by_person", "keys", ["person", "kind"])
    value = sa.Column("value", sa.JSON, nullable=False)
    op.create_table("settings", _seq(), *_texts("name"), value, *_texts("by", "at"))
    op.create_index("settings_by_name", "settings", ["name", "seq"])
    op.create_table("acts", _seq(), *_texts("at", "by", "what", "about"))


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
