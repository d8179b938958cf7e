"""The audit log and every row compared in bulk: quick, and no more than whether all of it agrees."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import attrs
import sqlalchemy as sa

from tinker_officer.registry import hashing
from tinker_officer.registry.hashing import GENESIS, chained, row_digest
from tinker_officer.registry.schema import RECORDED, events


# So many entries take as long to hash as three processes take to start.
LARGE = 20_000

_ENTRIES = sa.select(events).order_by(events.c.seq)
_AT_ONCE = 1000
_HEX = 64


@attrs.frozen
class Chain:
    """A log whose entries agree with one another and with the rows.

    Attributes:
        entries: how many there are.
        head: the hash of the last.
        known: whether the head that was asked about is among them.
    """

    entries: int
    head: str
    known: bool


def rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[list[Any]]:
    """Yield the rows of a query as the driver gives them, a thousand at a time: there may be a million."""
    cursor: Any = connection.execute(query).cursor
    while some := cursor.fetchmany(_AT_ONCE):
        yield some


def agreed(connection: sa.Connection, known_head: str, uri: str) -> Chain | None:
    """Return the chain if every entry and row agrees with what was hashed; None if one does not.

    Args:
        connection: inside a transaction that has read already.
        known_head: a head, or its first digits.
        uri: at which other processes find the same SQLite file, to hash its rows beside this one; they do
            not see what `connection` changed. Empty where there is none.
    """
    last = connection.scalar(sa.select(sa.func.max(events.c.seq))) or 0
    queries = {name: sa.select(table) for name, (table, _) in RECORDED.items()}
    with ExitStack() as stack:
        apart: dict[str, subprocess.Popen[str]] = {}
        if uri and last >= LARGE:
            with suppress(OSError):  # a limit or a sandbox lets none start: then it is done here
                for name, query in queries.items():
                    text = str(query.compile(dialect=connection.dialect))
                    apart[name] = stack.enter_context(_apart(uri, text))
        chain, vouched = _chain(connection, known_head)
        if chain is None or vouched.keys() - queries.keys():
            return None
        for name, query in queries.items():
            found = _collected(apart[name]) if name in apart else ""
            if not _same(vouched[name], found or _hashed(connection, query)):
                return None
    return chain


def _chain(connection: sa.Connection, known_head: str) -> tuple[Chain | None, dict[str, list[str]]]:
    """Return the chain, None if it is broken, and the digests that it vouches for, by table."""
    prev, count, known = GENESIS, 0, not known_head
    vouched: dict[str, list[str]] = defaultdict(list)
    for some in rows(connection, _ENTRIES):
        for seq, link, stored, body in some:
            count += 1
            if seq != count or link != prev or stored != chained(seq, link, body):
                return None, {}
            prev = stored
            # {..., "row": "<64 digits>", "table": "<name>"}
            rest, _, table = body[:-2].rpartition('","table":"')
            vouched[table].append(rest[-_HEX:])
            known = known or stored.startswith(known_head)
    return Chain(count, prev, known), vouched


def _same(vouched: list[str], found: str) -> bool:
    """Return whether the digests are those of the rows, which mostly lie as they were written."""
    if "".join(vouched) == found:
        return True
    each = {found[place : place + _HEX] for place in range(0, len(found), _HEX)}
    return len(vouched) * _HEX == len(found) and set(vouched) == each


def _hashed(connection: sa.Connection, query: sa.Select[Any]) -> str:
    return "".join(row_digest(row) for some in rows(connection, query) for row in some)


@contextmanager
def _apart(uri: str, query: str) -> Iterator[subprocess.Popen[str]]:
    """Hash the rows of a query in a process of its own, which ends with the context."""
    command = [sys.executable, "-I", "-S", hashing.__file__, uri, query]
    with subprocess.Popen(  # noqa: S603 - our own file, by this Python
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _collected(process: subprocess.Popen[str]) -> str:
    """Return the digests that a process wrote; nothing where it failed."""
    text = process.communicate()[0]
    return "" if process.returncode else text
