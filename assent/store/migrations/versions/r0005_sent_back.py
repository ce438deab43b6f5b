"""Answers can be sent back with a remark, and what an answer supersedes is looked up."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("leases", sa.Column("remark", sa.Text, nullable=False, server_default=""))
    op.create_index("feedback_by_superseded", "feedback", ["supersedes"])
    people = " AND ".join(f"annotator NOT LIKE '{machine}:%'" for machine in ("ai", "judge", "simulated"))
    count = f"SELECT COUNT(DISTINCT annotator) FROM feedback WHERE feedback.query = asks.query AND {people}"
    op.execute(sa.text(f"UPDATE asks SET given = ({count})"))  # programs do not count any more
