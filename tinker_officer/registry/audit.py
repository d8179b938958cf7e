"""The audit log: a hash chain that names who did what, and vouches for every other row.

Each entry's hash covers its number, the hash before it and its content; its content covers, by digest, the
row that was added in the same transaction. So an edit, an insertion, a deletion or a change of order anywhere
shows. What a chain cannot show is a cut tail or a full rewrite: keep a head that you were once given (it
stands on every model card) and `verify` against it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import sqlalchemy as sa

from tinker_officer._digest import canonical
from tinker_officer.errors import RegistryError
from tinker_officer.registry.schema import RECORDED, events


GENESIS = "0" * 64
_AT_ONCE = 1000
_LAST = sa.select(events.c.seq, events.c.hash, events.c.body).order_by(events.c.seq.desc()).limit(1)
_INSERT = {name: target.insert() for name, (target, _) in RECORDED.items()}
_INSERT_EVENT = events.insert()


@attrs.frozen
class End:
    """The last entry, which the next one follows: its number, its hash and its content."""

    seq: int
    hash: str
    body: str

    @property
    def at(self) -> str:
        """When it was written; empty before the first."""
        return str(json.loads(self.body)["at"]) if self.body else ""


@attrs.frozen
class Audit:
    """A log that was verified: how many entries it has, and the hash of the last."""

    entries: int
    head: str

    def __repr__(self) -> str:
        return f"Audit({self.entries} entries, head {self.head[:16]})"


def row_digest(values: Iterable[str | int | None]) -> str:
    """Return the SHA-256 of a row's values, in the order of the table's columns.

    Each value is written with its kind and length before it, so that no two rows are written alike.
    """
    parts = [
        f"{len(value)}:{value}" if value.__class__ is str else "null" if value is None else f"i{value}"
        for value in values
    ]
    return hashlib.sha256(",".join(parts).encode()).hexdigest()


def chained(seq: int, prev: str, body: str) -> str:
    """Return an entry's hash, over its number, the hash before it, and its content."""
    return hashlib.sha256(f"{seq}\n{prev}\n{body}".encode()).hexdigest()


def end(connection: sa.Connection) -> End:
    """Return the last entry; one before the first where there is none."""
    row = connection.execute(_LAST).one_or_none()
    return End(*row) if row else End(0, GENESIS, "")


def head(connection: sa.Connection) -> Audit:
    """Return the last entry's number and hash, unverified."""
    last = end(connection)
    return Audit(last.seq, last.hash)


def record(
    connection: sa.Connection,
    table: str,
    values: dict[str, Any],
    *,
    after: End,
    action: str,
    actor: str,
    at: str,
) -> None:
    """Add a row to `table`, and the entry that vouches for it, inside the caller's transaction.

    Args:
        connection: the caller's.
        table: one of those that the log vouches for.
        values: the row.
        after: the last entry as it stands.
        action: what happened.
        actor: who did it.
        at: when.
    """
    target, key = RECORDED[table]
    connection.execute(_INSERT[table], values)
    row = [values[column.name] for column in target.columns]
    entry = {
        "action": action,
        "actor": actor,
        "at": at,
        "key": values[key],
        "row": row_digest(row),
        "table": table,
    }
    body = canonical(entry).decode()
    seq = after.seq + 1
    connection.execute(
        _INSERT_EVENT,
        {"seq": seq, "prev": after.hash, "hash": chained(seq, after.hash, body), "body": body},
    )


def verify(connection: sa.Connection, *, known_head: str = "") -> Audit:
    """Check every entry, and every row against its entry.

    Args:
        connection: inside a transaction.
        known_head: a head that was noted earlier; it must still be in the chain.

    Returns:
        How many entries there are, and the head.

    Raises:
        RegistryError: names the first entry or row that is not as it was written.
    """
    import orjson

    vouched: defaultdict[str, dict[Any, str]] = defaultdict(dict)
    prev, count, seen = GENESIS, 0, not known_head
    for seq, before, stored, body in _rows(connection, sa.select(events).order_by(events.c.seq)):
        count += 1
        if seq != count or before != prev or stored != chained(seq, before, body):
            what = f"entry {count} is missing" if seq != count else "its content or its link was changed"
            raise _broken(f"the audit log is broken at entry {count}", what, sound=count - 1)
        entry = orjson.loads(body)
        vouched[entry["table"]][entry["key"]] = entry["row"]
        prev = stored
        if not seen:
            seen = stored.startswith(known_head)
    _verify_rows(connection, vouched)
    if not seen:
        raise _broken(
            "the audit log was cut or rewritten", f"head {known_head} is not in its {count} entries", sound=0
        )
    return Audit(count, prev)


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    """Yield the rows of a query as the driver gives them: there may be a million."""
    cursor = connection.execute(query).cursor
    while rows := cursor.fetchmany(_AT_ONCE):
        yield from rows


def _verify_rows(connection: sa.Connection, vouched: defaultdict[str, dict[Any, str]]) -> None:
    """Hold every row against the digest that an entry has of it, in whatever order the rows lie."""
    found: list[tuple[str, Any, str]] = []
    for name, (table, key) in RECORDED.items():
        place = [column.name for column in table.columns].index(key)
        left = vouched[name]
        for row in _rows(connection, sa.select(table)):
            expected = left.pop(row[place], None)
            if row_digest(row) != expected:
                found.append(
                    (name, row[place], "was changed" if expected else "was added outside the registry")
                )
    found.extend((name, one, "was removed") for name, left in vouched.items() for one in left)
    if found:
        entries = _entries(connection)
        wrong = [
            (entries.get((name, key), 0), f"{name} row {key!r} {what}", name) for name, key, what in found
        ]
        seq, what, name = min(wrong)
        where = f"entry {seq}" if seq else f"no entry of the log names a row of {name}"
        raise _broken(f"the registry does not agree with its audit log: {what}", where, sound=max(0, seq - 1))


def _entries(connection: sa.Connection) -> dict[tuple[str, Any], int]:
    """Return which entry vouches for each row."""
    entries = {}
    for seq, _, _, body in _rows(connection, sa.select(events)):
        entry = json.loads(body)
        entries[entry["table"], entry["key"]] = seq
    return entries


def _broken(problem: str, got: str, *, sound: int) -> RegistryError:
    return RegistryError(
        problem,
        got=got,
        need="entries and rows as the registry wrote them",
        fix=f"restore the file from a backup; the first {sound} entries are as written",
    )
