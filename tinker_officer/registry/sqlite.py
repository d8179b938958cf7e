"""The registry's SQLite file: found, made once, checked to be ours, and written in durable transactions.

SQLite 3.7.0 to 3.51.2 can corrupt a file in WAL mode, and Python often bundles one of these. Where the SQLite
at hand is mended a new file is in WAL mode, with `synchronous=FULL`; elsewhere it keeps a rollback journal,
with `synchronous=EXTRA`, and a file in WAL mode is taken out of it. Writers take their lock at the start
(BEGIN IMMEDIATE), so that what a decision was based on cannot change under it. No lock outlives its
transaction; readers open the file each time, and of a writer one idle connection is kept (`kept`).

A new file is built beside its place and linked into it, whole: of many processes that start at once, one
wins, and none sees a half-made file. An older file is brought up to date under the writer's lock, after a
copy of it was laid beside it.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa

from tinker_officer._files import sync_folder
from tinker_officer.errors import RegistryError
from tinker_officer.registry.database import Database, busy, check_revision, damaged, outdated
from tinker_officer.registry.kept import Keeper, Lasting
from tinker_officer.registry.schema import APPLICATION_ID


logger = logging.getLogger(__name__)

_TRIES = 20
_PAUSE_S = 0.05
_POLL_S = (0.002, 0.012)
_JOURNAL_BYTES = 1 << 20
_UNREACHABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


class SqliteDatabase(Database):
    """A registry's SQLite file, which is there and ours.

    Args:
        path: the file.
        timeout_s: how long a transaction waits for others before it gives up.
        read_only: whether the file is only to be read.
    """

    def __init__(self, path: Path, *, timeout_s: float = 30.0, read_only: bool = False) -> None:
        super().__init__(str(path), read_only=read_only)
        self.path, self.timeout_s = path, timeout_s
        self._reader = _engine(lambda: _connect(path, timeout_s, read_only=read_only))
        self._keeper = Keeper(path, lambda: _connect(path, timeout_s, kind=Lasting))
        self._writer = _engine(self._keeper.take)

    @contextmanager
    def transaction(self, *, writing: bool) -> Iterator[sa.Connection]:
        """Hand out a connection in a transaction; on leaving, all of it is on the disk, or none."""
        try:
            with (self._writer if writing else self._reader).connect() as connection:
                connection.begin()  # SQLAlchemy's word for it; the driver is left to us, and so is the lock
                _begin(connection, "BEGIN IMMEDIATE" if writing else "BEGIN", self.timeout_s)
                yield connection
                connection.commit()
        except sa.exc.DatabaseError as error:
            raise self._explained(error, error.orig, writing=writing) from error
        except sqlite3.Error as error:
            raise self._explained(error, error, writing=writing) from error

    def close(self) -> None:
        """Close the connection that is kept for the next change."""
        self._keeper.drop()

    def _explained(self, error: Exception, orig: BaseException | None, *, writing: bool) -> Exception:
        """Return our error for one of the driver's; the driver's own where we know no better."""
        code = getattr(orig, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return busy(self.where, orig, self.timeout_s)
        if code in _UNREACHABLE:
            return RegistryError(
                "the change was not recorded" if writing else "the registry cannot be read",
                got=f"{self.where}: {orig}",
                need="a file that can be written, on a disk with room"
                if writing
                else "the file that was opened",
                fix="make room or restore access, and do it again: nothing was half-written"
                if writing
                else "restore the file or the access to it, and do it again",
            )
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} or "Could not decode" in str(orig):
            return damaged(self.where, str(orig))
        return error

    def uri(self, connection: sa.Connection) -> str:
        """Return the URI at which other processes read the file while `connection` reads it.

        With a rollback journal the file cannot change meanwhile, so they need no lock: they would wait for a
        writer that waits for us.
        """
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        return _uri(self.path, "mode=ro" if journal == "wal" else "mode=ro&immutable=1")


def safe_in_wal(version: tuple[int, ...]) -> bool:
    """Return whether the SQLite of `version` cannot corrupt a file in WAL mode: 3.44.6, 3.50.7, 3.51.3 on.

    Source:
        SQLite's "WAL-reset bug" (sqlite.org/wal.html): every release since 3.7.0 but those mended.
    """
    mended = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
    return version >= (3, 52) or version[2] >= mended.get((version[0], version[1]), 1 << 30)


def _begin(connection: sa.Connection, begin: str, timeout_s: float) -> None:
    """Begin a transaction; for the writer's lock, ask often: SQLite's own waits grow to 100 ms a time."""
    if begin == "BEGIN":
        connection.exec_driver_sql(begin)
        return
    raw: Any = connection.connection.driver_connection
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
            need="the path of an SQLite file, sqlite:///models.db, or a postgresql:// URL",
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


def open_sqlite(where: str | Path, *, timeout_s: float = 30.0, read_only: bool = False) -> SqliteDatabase:
    """Return the registry in the file `where`, made if there is no file (and folder) yet.

    Raises:
        RegistryError: the file is not a registry, or is of a later version; it is then left untouched.
    """
    path = locate(where)
    try:
        if not path.exists() and not read_only:
            _create(path)
    except OSError as error:
        raise RegistryError(
            "the registry cannot be made",
            got=f"{path}: {error.strerror or error}",
            need="a folder on a local disk that can be written to, with room, and with hard links",
            fix='Registry.open("models.db")  # in such a folder',
        ) from error
    if not path.exists():
        raise RegistryError(
            "there is no registry to read",
            got=f"{path}, which is not there",
            need="a file that Registry.open made",
            fix='Registry.open("models.db")  # without read_only=True makes one',
        )
    _check_ours(path)
    database = SqliteDatabase(path, timeout_s=timeout_s, read_only=read_only)
    with database.read() as connection:
        newest = check_revision(_revision(connection, path), database.where)
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if journal == "wal" and not read_only and not safe_in_wal(sqlite3.sqlite_version_info):
        _leave_wal(path, timeout_s)
    if not newest and read_only:
        raise outdated(database.where)
    if not newest:
        _migrate(database)
    return database


def _connect(
    path: Path, timeout_s: float, *, read_only: bool = False, kind: type = sqlite3.Connection
) -> Any:
    connection: Any = sqlite3.connect(
        _uri(path, f"mode={'ro' if read_only else 'rw'}"),
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,  # one at a time has it
        factory=kind,
    )
    settle(connection)
    return connection


def _engine(creator: Callable[[], sqlite3.Connection]) -> sa.Engine:
    return sa.create_engine("sqlite://", creator=creator, poolclass=sa.NullPool)


def _uri(path: Path, query: str) -> str:
    return f"file:{quote(str(path.absolute()))}?{query}"


def settle(connection: sqlite3.Connection) -> None:
    """Have every commit of a new connection be on the disk before it returns, and keep what rows refer to.

    The rollback journal is not deleted after a commit: its header is overwritten and synced, which ends the
    transaction as surely, and spares the disk a new file and an entry in the folder at each one.
    """
    wal = connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    if not wal:
        connection.execute("PRAGMA journal_mode=PERSIST")
        connection.execute(f"PRAGMA journal_size_limit={_JOURNAL_BYTES}")
    safe = wal and safe_in_wal(sqlite3.sqlite_version_info)
    connection.execute(f"PRAGMA synchronous={'FULL' if safe else 'EXTRA'}")
    connection.execute("PRAGMA foreign_keys=ON")


def _migrate(database: SqliteDatabase) -> None:
    """Bring an older file to the last schema under the writer's lock, with a copy of it laid beside it."""
    from tinker_officer.registry import catalogue
    from tinker_officer.registry.migrations import upgrade

    with database.write() as connection:
        before = _revision(connection, database.path)
        if check_revision(before, database.where):
            return  # another process was first
        copy = database.path.with_name(f"{database.path.name}.schema-{before}.backup")
        draft = copy.with_name(f".{copy.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            with closing(sqlite3.connect(database.path, timeout=database.timeout_s)) as reader:
                reader.execute("VACUUM INTO ?", (str(draft),))
            _sync(draft)
            draft.replace(copy)
            sync_folder(copy.parent)
        finally:
            draft.unlink(missing_ok=True)
        upgrade(connection)
        catalogue.rebuild(connection)
    logger.info("registry.migrated", extra={"officer.path": database.where, "officer.backup": str(copy)})


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _create(path: Path) -> None:
    """Build a registry beside `path` and link it there, unless another process was first."""
    from tinker_officer.registry.migrations import upgrade

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with closing(sqlite3.connect(draft)) as connection:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        with SqliteDatabase(draft).write() as connection:
            upgrade(connection)
        if safe_in_wal(sqlite3.sqlite_version_info):
            with closing(sqlite3.connect(draft)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        try:
            os.link(draft, path)
        except FileExistsError:
            logger.debug("registry.create.raced", extra={"officer.path": str(path)})
        else:
            sync_folder(path.parent)
    except sqlite3.Error as error:
        raise OSError(None, str(error)) from error
    finally:
        for name in (draft.name, f"{draft.name}-journal"):
            draft.with_name(name).unlink(missing_ok=True)


def _check_ours(path: Path) -> None:
    """Look at the file's header without a lock or a journal, so that a stranger's file is not touched."""
    found = 0
    problem = "an SQLite database of another program"
    for _ in range(_TRIES):
        try:
            with closing(sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True)) as connection:
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
    if found != APPLICATION_ID and not _ours_once_rolled_back(path):
        raise RegistryError(
            "this is not a registry",
            got=f"{path}: {problem if path.stat().st_size else 'an empty file'}",
            need="a file that Registry.open made, or a path where there is none yet",
            fix='Registry.open("models.db")  # the file was left untouched',
        )


def _ours_once_rolled_back(path: Path) -> bool:
    """Return whether the file is ours once its journal is rolled back, which is tried on a copy.

    Where the power went in the midst of a commit, the first page may be torn: the journal beside it has the
    old one, and the next opening puts it back.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists() or not journal.stat().st_size:
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        try:
            shutil.copyfile(path, copy)
            shutil.copyfile(journal, copy.with_name(journal.name))
            with closing(sqlite3.connect(copy)) as connection:
                found = connection.execute("PRAGMA application_id").fetchone()[0]
        except (OSError, sqlite3.Error):
            return False
    return bool(found == APPLICATION_ID)


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


def _revision(connection: sa.Connection, path: Path) -> str:
    try:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
    except (sa.exc.OperationalError, sa.exc.NoResultFound) as error:
        raise damaged(str(path), "it does not say which schema it has") from error
