"""Alembic calls this file; the connection, already inside a transaction, comes from `Store.open`."""

from alembic import context

from assent.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
