"""The registry's SQLite file: found, made once, checked to be ours, and written in durable transactions.

SQLite 3.7.0 to 3.51.2 can corrupt a file in WAL mode, and Python often bundles one of these, so the file
keeps a rollback journal, with `synchronous=EXTRA`. Writers take their lock at the start (BEGIN IMMEDIATE), so
that what a decision was based on cannot change under it. No connection outlives its transaction: nothing is
carried over a fork, and nothing stays locked.

A new file is built beside its place and linked into it, whole: of many processes that start at once, one
wins, and none sees a half-made file.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import sqlalchemy as sa

from tinker_officer._files import sync_folder
from tinker_officer.errors import RegistryError
from tinker_officer.registry.schema import APPLICATION_ID, REVISIONS


logger = logging.getLogger(__name__)

_TRIES = 20
_PAUSE_S = 0.05
_POLL_S = (0.002, 0.012)


class Database:
    """A registry's file, which is there and ours.

    Args:
        path: the file.
        timeout_s: how long a transaction waits for others before it gives up.
    """

    def __init__(self, path: Path, *, timeout_s: float = 30.0) -> None:
        self.path, self.timeout_s = path, timeout_s
        self._engine = _engine(path, timeout_s)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Hand out a connection that sees one state of the file.

        Raises:
            RegistryError: the file is gone, damaged or locked for longer than `timeout_s`.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Hand out the one connection that may write; on leaving, all of it is on the disk, or none.

        Raises:
            RegistryError: the file is gone, damaged, read-only, or locked for too long, or the disk is full.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                _begin(connection, begin, self.timeout_s)
                yield connection
                connection.commit()
        except sa.exc.DatabaseError as error:
            raise _explained(self.path, error, error.orig, self.timeout_s) from error
        except sqlite3.Error as error:
            raise _explained(self.path, error, error, self.timeout_s) from error


def _begin(connection: sa.Connection, begin: str, timeout_s: float) -> None:
    """Begin a transaction; for the writer's lock, ask often: SQLite's own waits grow to 100 ms a time."""
    if begin == "BEGIN":
        connection.exec_driver_sql(begin)
        return
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError(f"the registry needs the sqlite3 driver, got {raw!r}")
    raw.execute("PRAGMA busy_timeout=0")
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            raw.execute(begin)
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(*_POLL_S))
    raw.execute(f"PRAGMA busy_timeout={round(timeout_s * 1000)}")


def locate(where: str | Path) -> Path:
    """Return the file that a path or an SQLAlchemy URL names.

    Raises:
        RegistryError: it is another kind of database, no file at all, or a folder.
    """
    text = str(where)
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "sqlite":
        raise RegistryError(
            "the registry cannot be opened",
            got=f"a URL that begins with {scheme}://",
            need="the path of an SQLite file, or sqlite:///models.db",
            fix='Registry.open("models.db")',
        )
    path = Path(unquote(rest.removeprefix("/"))) if separator else Path(where)
    if not path.name or text == ":memory:" or path.is_dir():
        raise RegistryError(
            "the registry cannot be opened",
            got=f"{text!r}, which is {'a folder' if path.is_dir() else 'not a file'}",
            need="the path of a file, there or to be made",
            fix='Registry.open("models.db")',
        )
    return path.expanduser()


def open_database(where: str | Path, *, timeout_s: float = 30.0) -> Database:
    """Return the registry's database at `where`, made if there is no file (and folder) yet.

    Raises:
        RegistryError: the file is not a registry, or is of a later version; it is then left untouched.
    """
    path = locate(where)
    try:
        if not path.exists():
            _create(path)
    except OSError as error:
        raise RegistryError(
            "the registry cannot be made",
            got=f"{path}: {error.strerror or error}",
            need="a folder on a local disk that can be written to, with room, and with hard links",
            fix='Registry.open("models.db")  # in such a folder',
        ) from error
    _check_ours(path)
    database = Database(path, timeout_s=timeout_s)
    with database.read() as connection:
        _check_revision(connection, path)
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if journal == "wal":
        _leave_wal(path, timeout_s)
    return database


def _engine(path: Path, timeout_s: float) -> sa.Engine:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=timeout_s, isolation_level=None
        )
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)


def _create(path: Path) -> None:
    """Build a registry beside `path` and link it there, unless another process was first."""
    from tinker_officer.registry.migrations import upgrade

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        with Database(draft).write() as connection:
            upgrade(connection)
        try:
            os.link(draft, path)
        except FileExistsError:
            logger.debug("registry.create.raced", extra={"officer.path": str(path)})
        else:
            sync_folder(path.parent)
    except sqlite3.Error as error:
        raise OSError(None, str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _check_ours(path: Path) -> None:
    """Look at the file's header without a lock or a journal, so that a stranger's file is not touched."""
    found = 0
    problem = "an SQLite database of another program"
    for _ in range(_TRIES):
        try:
            uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                found = int(connection.execute("PRAGMA application_id").fetchone()[0])
            break
        except sqlite3.OperationalError as error:
            problem = f"a file that cannot be read ({error})"
            break
        except sqlite3.DatabaseError as error:
            problem = f"a file that is not an SQLite database ({error})"
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                break
            time.sleep(_PAUSE_S)  # a commit was half-way through the first page
    if found != APPLICATION_ID:
        raise RegistryError(
            "this is not a registry",
            got=f"{path}: {problem if path.stat().st_size else 'an empty file'}",
            need="a file that Registry.open made, or a path where there is none yet",
            fix='Registry.open("models.db")  # the file was left untouched',
        )


def _leave_wal(path: Path, timeout_s: float) -> None:
    """Take back the rollback journal; see the top of this module for why."""
    with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as connection:
        try:
            journal = connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
        except sqlite3.OperationalError as error:
            journal = f"wal ({error})"
    if journal != "delete":
        raise RegistryError(
            "the registry is in WAL mode, in which this SQLite may corrupt it",
            got=f"{path}: journal mode {journal}, SQLite {sqlite3.sqlite_version}",
            need="a rollback journal",
            fix="close the other program that has the file open, then open the registry again",
        )


def _check_revision(connection: sa.Connection, path: Path) -> None:
    try:
        revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    except (sa.exc.OperationalError, sa.exc.NoResultFound) as error:
        raise _damaged(path, "it does not say which schema it has") from error
    if revision not in REVISIONS:
        raise RegistryError(
            "this registry was written by a later tinker_officer",
            got=f"{path}: schema {revision}",
            need=f"schema {REVISIONS[-1]} or earlier",
            fix="python -m pip install --upgrade tinker-officer  # the file was left untouched",
        )


def _damaged(path: Path, what: str) -> RegistryError:
    return RegistryError(
        "the registry is damaged",
        got=f"{path}: {what}",
        need="a file that Registry.open made",
        fix="restore the file from a backup",
    )


def _explained(path: Path, error: Exception, orig: BaseException | None, timeout_s: float) -> Exception:
    code = getattr(orig, "sqlite_errorcode", 0) & 0xFF
    got = f"{path}: {orig}"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return RegistryError(
            "the registry is busy",
            got=got,
            need=f"another process to finish its change within {timeout_s:g} s",
            fix='Registry.open("models.db", timeout_s=120)',
        )
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
        return RegistryError(
            "the change was not recorded",
            got=got,
            need="a file that can be written, on a disk with room",
            fix="make room or restore access, and do it again: nothing was half-written",
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return _damaged(path, str(orig))
    return error
