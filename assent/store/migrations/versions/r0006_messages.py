"""Messages keep their other keys, prompts their tools, and responses the tokens that were drawn."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("prompts", sa.Column("tools", sa.JSON(none_as_null=True)))
    op.add_column("responses", sa.Column("extra", sa.JSON(none_as_null=True)))
    op.add_column("responses", sa.Column("token_ids", sa.JSON(none_as_null=True)))
    op.add_column("responses", sa.Column("tokenizer", sa.Text, nullable=False, server_default=""))
