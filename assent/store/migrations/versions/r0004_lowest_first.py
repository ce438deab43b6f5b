"""The most wanted query has the lowest priority: the index finds it without looking at all that are open."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("UPDATE asks SET priority = -priority")
