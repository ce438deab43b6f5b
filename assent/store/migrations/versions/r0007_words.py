"""Tables and columns get the names of the records; prompts get `meta` and feedback its `source`."""

import sqlalchemy as sa
from alembic import op

from assent.store.migrations.versions import r0002_append_only

revision = "0007"
down_revision = "0006"

TABLES = {
    "queries": "tasks",
    "asks": "queue",
    "leases": "assignments",
    "people": "users",
    "keys": "credentials",
    "acts": "audit_log",
}
COLUMNS = {
    "prompts": {"mode": "category"},
    "feedback": {
        "query": "task",
        "answer": "judgement",
        "at": "created_at",
        "seconds": "duration",
        "shown": "display_order",
        "note": "comment",
    },
    "queue": {"query": "task", "rule": "acquisition", "wanted": "required", "given": "received"},
    "assignments": {
        "query": "task",
        "person": "annotator",
        "shown": "display_order",
        "name": "alias",
        "until": "expires_at",
    },
    "gold": {"query": "task", "answer": "judgement"},
    "users": {"secret": "password_hash", "external": "external_id", "at": "created_at"},
    "credentials": {"person": "user_id", "note": "comment", "until": "expires_at", "used": "used_at"},
    "settings": {"by": "author", "at": "created_at"},
    "audit_log": {"at": "created_at", "by": "author", "what": "action", "about": "details"},
}
OLD_INDEXES = {
    "queries_by_purpose": "queries",
    "queries_by_prompt": "queries",
    "feedback_by_query": "feedback",
    "asks_by_batch": "asks",
    "asks_open": "asks",
    "leases_by_person": "leases",
    "people_by_external": "people",
    "keys_by_person": "keys",
}
SOURCES = {"ai:": "model", "judge:": "scorer", "simulated:": "simulated"}
"""Up to version 0006 the prefix of an annotator's name said what the annotator is."""


def upgrade() -> None:
    _rename()
    op.add_column("prompts", sa.Column("meta", sa.JSON(none_as_null=True)))
    op.add_column("feedback", sa.Column("source", sa.Text, nullable=False, server_default="human"))
    _fill_sources()
    # The policy that a run begins with is called `base` now.
    responses = sa.table("responses", sa.column("policy", sa.Text))
    renamed = sa.func.replace(responses.c.policy, ":start#", ":base#")
    op.execute(responses.update().where(responses.c.policy.like("%:start#______")).values(policy=renamed))
    op.execute(responses.update().where(responses.c.policy == "chat:start").values(policy="chat:base"))
    # So is the stage that sampled them.
    renamed = sa.func.replace(responses.c.policy, "rejection", "rejection_sampling")
    op.execute(responses.update().where(responses.c.policy.like("rejection%:%#______")).values(policy=renamed))


def _rename() -> None:
    for index, table in OLD_INDEXES.items():
        op.drop_index(index, table)
    for old, new in TABLES.items():
        op.rename_table(old, new)
    for table, columns in COLUMNS.items():
        for old, new in columns.items():
            op.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{old}" TO "{new}"')
    op.create_index("tasks_by_purpose", "tasks", ["purpose", "seq"])
    op.create_index("tasks_by_prompt", "tasks", ["prompt", "seq"])
    op.create_index("feedback_by_task", "feedback", ["task", "annotator"])
    op.create_index("queue_by_batch", "queue", ["batch"])
    is_open = sa.text("received < required")
    op.create_index("queue_open", "queue", ["priority", "seq"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_index("assignments_by_annotator", "assignments", ["annotator", "state"])
    op.create_index("users_by_external_id", "users", ["external_id"])
    op.create_index("credentials_by_user_id", "credentials", ["user_id", "kind"])


def _fill_sources() -> None:
    """Fill the new column; the triggers that refuse changes are away for that long, within this transaction."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for trigger in ("feedback_no_update",) if is_sqlite else ("feedback_no_change",):
        op.execute(f"DROP TRIGGER {trigger}" + ("" if is_sqlite else " ON feedback"))
    for prefix, source in SOURCES.items():
        op.execute(f"UPDATE feedback SET source = '{source}' WHERE SUBSTR(annotator, 1, {len(prefix)}) = '{prefix}'")
    statements = (r0002_append_only.SQLITE if is_sqlite else r0002_append_only.POSTGRESQL).split(";;")
    op.execute(statements[0] if is_sqlite else statements[1])
