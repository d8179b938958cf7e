"""A writer's connection to an SQLite file, kept for the next change: what it knows of the schema costs time.

Nothing else is kept. It holds no lock and no page of the file, is given up where another file has taken the
place of the first, and is never used or closed by a process that was forked off its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path


_OTHERS: list[sqlite3.Connection] = []  # of the process that forked this one: not ours to close


class Lasting(sqlite3.Connection):
    """A connection that goes back to its keeper when it is closed, unless it is still in a transaction."""

    keeper: Keeper | None = None

    def close(self) -> None:
        """Hand the connection back, or close it."""
        if self.keeper is None or self.in_transaction or not self.keeper.keep(self):
            super().close()


class Keeper:
    """Keeps one connection to `path`; `connect` makes it."""

    def __init__(self, path: Path, connect: Callable[[], Lasting]) -> None:
        self._path, self._connect = path, connect
        self._idle: deque[tuple[tuple[int, int, int], Lasting]] = deque()

    def take(self) -> Lasting:
        """Return the connection that was kept, if it is of this process and this file, or a new one."""
        try:
            found, connection = self._idle.pop()
        except IndexError:
            return self._new()
        now = self._place()
        if found == now:
            return connection
        connection.keeper = None
        if found[0] != now[0]:
            _OTHERS.append(connection)
        else:
            connection.close()
        return self._new()

    def keep(self, connection: Lasting) -> bool:
        """Keep a connection, without the pages that it read; return False where one is kept already.

        In WAL mode none is: a file cannot be taken out of that mode while a connection is open.
        """
        if self._idle or self._path.with_name(f"{self._path.name}-wal").exists():
            return False
        connection.execute("PRAGMA shrink_memory")
        self._idle.append((self._place(), connection))
        return True

    def drop(self) -> None:
        """Close the connection that is kept."""
        while self._idle:
            found, connection = self._idle.pop()
            connection.keeper = None
            (_OTHERS.append if found[0] != os.getpid() else sqlite3.Connection.close)(connection)

    def _new(self) -> Lasting:
        connection = self._connect()
        connection.keeper = self
        return connection

    def _place(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return os.getpid(), 0, 0
        return os.getpid(), stat.st_dev, stat.st_ino
