"""The schema's history, run by alembic: `upgrade` brings a connection to the last revision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import sqlalchemy as sa
    from alembic.config import Config


def config(connection: sa.Connection | None = None) -> Config:
    """Return alembic's configuration for the packaged scripts, which then run on `connection`."""
    from alembic.config import Config

    found = Config()
    found.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    found.attributes["connection"] = connection
    return found


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to the last revision inside the transaction that `connection` is in."""
    from alembic import command

    command.upgrade(config(connection), "head")
