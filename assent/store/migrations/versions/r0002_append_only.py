"""The database itself refuses to change or delete what people said."""

from alembic import op

revision = "0002"
down_revision = "0001"

REFUSAL = "feedback is append-only: add an event that supersedes"

SQLITE = f"""
CREATE TRIGGER feedback_no_update BEFORE UPDATE ON feedback BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
;;
CREATE TRIGGER feedback_no_delete BEFORE DELETE ON feedback BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
;;
-- INSERT OR REPLACE deletes the old row without firing the trigger above.
CREATE TRIGGER feedback_no_replace BEFORE INSERT ON feedback
WHEN EXISTS (SELECT 1 FROM feedback WHERE id = NEW.id OR seq = NEW.seq)
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""
POSTGRESQL = f"""
CREATE FUNCTION feedback_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$
;;
CREATE TRIGGER feedback_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON feedback
FOR EACH STATEMENT EXECUTE FUNCTION feedback_refuse()
"""


def upgrade() -> None:
    for statement in (SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL).split(";;"):
        op.execute(statement)
