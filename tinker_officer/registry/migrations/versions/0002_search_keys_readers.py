"""The indexes behind search and idempotency keys, and the place of each hook in the log.

They are filled by `catalogue.rebuild`, which runs after every migration.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; nothing that was recorded is touched."""
    op.create_table(
        "catalogue",
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("base_model", sa.Text, nullable=False),
        sa.Column("renderer_name", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("stopped", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
    )
    op.create_index("catalogue_base_model", "catalogue", ["base_model"])
    op.create_index("catalogue_name", "catalogue", ["name", "number"])
    op.create_index("catalogue_created", "catalogue", ["created"])
    op.create_table(
        "facts",
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("number", sa.Float),
        sa.Column("text", sa.Text),
    )
    op.create_index("facts_place", "facts", ["place", "key", "number"])
    op.create_index("facts_number", "facts", ["key", "number", "place"])
    op.create_index("facts_text", "facts", ["key", "text", "place"])
    op.create_table(
        "keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("move", sa.Integer, nullable=False),
    )
    op.create_table(
        "readers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
    )
