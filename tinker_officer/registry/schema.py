"""The tables. What is recorded is append-only: what changes is added, and triggers refuse the rest.

`record` holds a row's full content as canonical JSON; the columns beside it are copies to search by. Where a
version is deployed is never stored: it is the last move of its channel. `catalogue`, `facts` and `keys` are
indexes, made from the records and made anew by every migration; `readers` says which event each hook had
last.
"""

from __future__ import annotations

import sqlalchemy as sa


# "TOFR": what tells our SQLite files from others (PRAGMA application_id); PostgreSQL has a comment instead.
APPLICATION_ID = 0x544F4652

# Every revision that was ever released, oldest first. Alembic is imported only to make a new file.
REVISIONS = ("0001", "0002")

metadata = sa.MetaData()

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("base_model", sa.Text, nullable=False),
    sa.Column("training_fingerprint", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.UniqueConstraint("name", "number", name="versions_name_number"),
)

scorecards = sa.Table(
    "scorecards",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("suite_digest", sa.Text, nullable=False),
    sa.Column("training_fingerprint", sa.Text, nullable=False),
    sa.Column("attached", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.UniqueConstraint("version", "digest", name="scorecards_version_digest"),
)

moves = sa.Table(
    "moves",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("previous", sa.Text, sa.ForeignKey("versions.id")),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("moves_channel_name", "channel", "name", "seq"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("prev", sa.Text, nullable=False, unique=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.Text, nullable=False),
)

catalogue = sa.Table(
    "catalogue",
    metadata,
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
    sa.Index("catalogue_base_model", "base_model"),
    sa.Index("catalogue_name", "name", "number"),
    sa.Index("catalogue_created", "created"),
)

facts = sa.Table(
    "facts",
    metadata,
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("number", sa.Float),
    sa.Column("text", sa.Text),
    sa.Index("facts_place", "place", "key", "number"),
    sa.Index("facts_number", "key", "number", "place"),
    sa.Index("facts_text", "key", "text", "place"),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("move", sa.Integer, nullable=False),
)

readers = sa.Table(
    "readers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
)

# The tables that are made from the records, and can be made anew.
DERIVED = (catalogue, facts, keys)

# The tables whose rows the audit log vouches for, with the column that names a row.
RECORDED = {"versions": (versions, "id"), "scorecards": (scorecards, "seq"), "moves": (moves, "seq")}
