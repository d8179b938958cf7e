"""The registry in PostgreSQL (extra `postgres`), for a team whose machines share no disk.

Writers take turns by an advisory lock, as they do by SQLite's, so that what a decision was based on cannot
change under it; readers see one snapshot and wait for nobody. The tables live in the first schema of the
connection's search path, which must be empty or hold a registry.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry.database import Database, busy, check_revision, outdated
from tinker_officer.registry.schema import APPLICATION_ID


logger = logging.getLogger(__name__)

_MARK = "tinker_officer registry"
_LOCK_NOT_AVAILABLE = "55P03"
_EXAMPLE = 'Registry.open("postgresql://user@host/models")'


class PostgresDatabase(Database):
    """A registry's PostgreSQL schema, which is there and ours.

    Args:
        url: of the database; its password is shown nowhere.
        timeout_s: how long a transaction waits for others before it gives up.
        read_only: whether it is only to be read.
    """

    def __init__(self, url: sa.URL, *, timeout_s: float, read_only: bool) -> None:
        super().__init__(url.render_as_string(hide_password=True), read_only=read_only)
        self.timeout_s = timeout_s
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool, connect_args={"connect_timeout": max(2, round(timeout_s))}
        )

    @contextmanager
    def transaction(self, *, writing: bool) -> Iterator[sa.Connection]:
        """Hand out a connection in a transaction; on leaving, all of it is on the disk, or none."""
        level = "READ COMMITTED" if writing else "REPEATABLE READ"
        try:
            with self._engine.connect().execution_options(isolation_level=level) as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(self.timeout_s * 1000)}")
                if writing:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})")
                else:
                    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                yield connection
                connection.commit()
        except sa.exc.DBAPIError as error:
            raise self._explained(error, error.orig) from error
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._explained(error, error) from error

    def _explained(self, error: Exception, orig: BaseException | None) -> Exception:
        driver = self._engine.dialect.loaded_dbapi
        first = str(orig).strip().partition("\n")[0]
        if getattr(orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            return busy(self.where, first, self.timeout_s)
        if isinstance(orig, driver.OperationalError | driver.InterfaceError):
            return RegistryError(
                "the registry cannot be reached",
                got=f"{self.where}: {first}",
                need="a PostgreSQL server that answers, and lets us in",
                fix="do it again: give a change a key=, and it is made once even where its reply was lost",
            )
        if isinstance(orig, driver.DataError) and "NUL" in first:
            return RegistryError(
                "there is nothing of this name",
                got="a name with a NUL character",
                need="printable text, as every name in the registry is",
                fix='registry.history("tickets")',
            )
        return error


def open_postgres(where: str, *, timeout_s: float, read_only: bool) -> PostgresDatabase:
    """Return the registry at the URL `where`; its tables are made if the schema is empty.

    Raises:
        RegistryError: psycopg is missing, the server cannot be reached, or the schema holds something else,
            which is then left untouched.
    """
    database = PostgresDatabase(_url(where), timeout_s=timeout_s, read_only=read_only)
    with database.read() as connection:
        revision = _revision(connection, database.where)
    newest = revision is not None and check_revision(revision, database.where)
    if read_only and revision is None:
        raise RegistryError(
            "there is no registry to read",
            got=f"{database.where}, whose schema is empty",
            need="a schema that Registry.open filled",
            fix=f"{_EXAMPLE}  # without read_only=True makes one",
        )
    if read_only and not newest:
        raise outdated(database.where)
    if not newest:
        _upgrade(database)
    return database


def _url(where: str) -> sa.URL:
    import importlib.util

    if importlib.util.find_spec("psycopg") is None:
        raise RegistryError(
            "the registry cannot be opened",
            got="a postgresql:// URL, without psycopg",
            need="the extra postgres",
            fix='python -m pip install "tinker-officer[postgres]"',
        )
    try:
        return sa.make_url(where).set(drivername="postgresql+psycopg")
    except (sa.exc.ArgumentError, ValueError):
        raise RegistryError(
            "the registry cannot be opened",
            got="a malformed postgresql:// URL",
            need="postgresql://user:password@host:port/database",
            fix=_EXAMPLE,
        ) from None


def _upgrade(database: PostgresDatabase) -> None:
    from tinker_officer.registry import catalogue
    from tinker_officer.registry.migrations import upgrade

    with database.write() as connection:
        revision = _revision(connection, database.where)
        if revision is not None and check_revision(revision, database.where):
            return  # another process was first
        upgrade(connection)
        catalogue.rebuild(connection)
    logger.info("registry.migrated", extra={"officer.database": database.where})


def _revision(connection: sa.Connection, where: str) -> str | None:
    """Return the schema's revision; None where there is nothing yet.

    Raises:
        RegistryError: what is there is not a registry.
    """
    names = set(
        connection.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"))
    )
    if not names:
        return None
    mark = None
    if {"events", "alembic_version"} <= names:
        mark = connection.scalar(sa.text("SELECT obj_description('events'::regclass, 'pg_class')"))
    if mark != _MARK:
        raise RegistryError(
            "this is not a registry",
            got=f"{where}: a schema with other tables, such as {min(names)!r}",
            need="an empty schema, or one that Registry.open filled",
            fix='Registry.open("postgresql://host/models?options=-csearch_path%3Dmine")',
        )
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))
