"""Where a registry is kept: what every kind of database gives, and which kind a path or URL means."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry.schema import REVISIONS


class Database(ABC):
    """A registry's database, which is there and ours.

    Args:
        where: how it is named to people; it holds no password.
        read_only: whether `write` is refused.
    """

    def __init__(self, where: str, *, read_only: bool = False) -> None:
        self.where, self.read_only = where, read_only

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Hand out a connection that sees one state of the database.

        Raises:
            RegistryError: the database is gone, damaged or locked for too long.
        """
        with self._readable(), self.transaction(writing=False) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Hand out the one connection that may write; on leaving, all of it is on the disk, or none.

        Raises:
            RegistryError: the database is gone, damaged, opened to be read only, or locked for too long, or
                the disk is full.
        """
        if self.read_only:
            raise RegistryError(
                "the registry was opened to be read only",
                got=self.where,
                need="a registry that was opened for changes too",
                fix='Registry.open("models.db")  # without read_only=True',
            )
        with self._readable(), self.transaction(writing=True) as connection:
            yield connection

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Say which text no database can hold, and that a record is none any more."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise RegistryError(
                "text holds half a character (a lone surrogate), which UTF-8 cannot write",
                got=ascii(error.object[max(0, error.start - 20) : error.end + 20]),
                need="text that can be written as UTF-8",
                fix='text.encode("utf-8", "replace").decode()  # puts ? in its place',
            ) from error
        except json.JSONDecodeError as error:
            what = f"a record that is no JSON ({error}); registry.verify() names the first bad entry"
            raise damaged(self.where, what) from error

    def close(self) -> None:  # noqa: B027 - where nothing is kept, nothing is to be done
        """Let go of what is kept for the next change."""

    def uri(self, connection: sa.Connection) -> str:  # noqa: ARG002 - what kind it is may be a setting
        """Return the URI at which other processes read the same SQLite file while `connection` reads it.

        Empty for another kind of database.
        """
        return ""

    @abstractmethod
    def transaction(self, *, writing: bool) -> AbstractContextManager[sa.Connection]:
        """Return a context that hands out a connection in a transaction, and commits on leaving."""


def open_database(where: str | Path, *, timeout_s: float = 30.0, read_only: bool = False) -> Database:
    """Return the registry's database at `where`, made if there is none yet, unless it is only to be read.

    Raises:
        RegistryError: what is there is not a registry, or is of a later version; it is then left untouched.
    """
    scheme, separator, _ = str(where).partition("://")
    if separator and scheme.partition("+")[0] in {"postgresql", "postgres"}:
        from tinker_officer.registry import postgres

        return postgres.open_postgres(str(where), timeout_s=timeout_s, read_only=read_only)
    from tinker_officer.registry import sqlite

    return sqlite.open_sqlite(where, timeout_s=timeout_s, read_only=read_only)


def check_revision(revision: object, where: str) -> bool:
    """Return whether `revision` is the last one; False where the schema must be brought up to date.

    Raises:
        RegistryError: it is none of ours: a later tinker_officer wrote it.
    """
    if revision not in REVISIONS:
        raise RegistryError(
            "this registry was written by a later tinker_officer",
            got=f"{where}: schema {revision}",
            need=f"schema {REVISIONS[-1]} or earlier",
            fix="python -m pip install --upgrade tinker-officer  # the registry was left untouched",
        )
    return revision == REVISIONS[-1]


def outdated(where: str) -> RegistryError:
    """Return the error for a registry of an older schema that is only to be read."""
    return RegistryError(
        "the registry has an older schema",
        got=f"{where}, to be read only",
        need=f"schema {REVISIONS[-1]}",
        fix='Registry.open("models.db")  # once for changes: that brings it up to date, and keeps a copy',
    )


def damaged(where: str, what: str) -> RegistryError:
    """Return the error for a database that is ours and cannot be made sense of."""
    return RegistryError(
        "the registry is damaged",
        got=f"{where}: {what}",
        need="what Registry.open made",
        fix="restore it from a backup",
    )


def busy(where: str, error: object, timeout_s: float) -> RegistryError:
    """Return the error for a lock that was not to be had in time."""
    return RegistryError(
        "the registry is busy",
        got=f"{where}: {error}",
        need=f"another process to finish its change within {timeout_s:g} s",
        fix='Registry.open("models.db", timeout_s=120)',
    )
