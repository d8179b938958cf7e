"""The audit log: a hash chain that names who did what, and vouches for every other row.

Each entry's hash covers its number, the hash before it and its content; its content covers, by digest, the
row that was added in the same transaction. So an edit, an insertion, a deletion or a change of order anywhere
shows. What a chain cannot show is a cut tail or a full rewrite: keep a head that you were once given (it
stands on every model card) and `verify` against it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import attrs
import sqlalchemy as sa

from tinker_officer._digest import canonical
from tinker_officer.errors import RegistryError
from tinker_officer.registry.bulk import Chain, agreed, rows
from tinker_officer.registry.hashing import GENESIS, chained, row_digest
from tinker_officer.registry.prepared import Prepared
from tinker_officer.registry.schema import RECORDED, events


_LAST = Prepared(sa.select(events.c.seq, events.c.hash, events.c.body).order_by(events.c.seq.desc()).limit(1))
_INSERT = {name: Prepared(target.insert()) for name, (target, _) in RECORDED.items()}
_INSERT_EVENT = Prepared(events.insert())


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


def end(connection: sa.Connection) -> End:
    """Return the last entry; one before the first where there is none."""
    row = _LAST.first(connection)
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
    _INSERT[table].run(connection, **values)
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
    _INSERT_EVENT.run(connection, seq=seq, prev=after.hash, hash=chained(seq, after.hash, body), body=body)


def verify(connection: sa.Connection, *, known_head: str = "", uri: str = "") -> Audit:
    """Check every entry, and every row against its entry.

    All is first compared in bulk, which is quick and says only whether it agrees. Where it does not, the
    entries are gone through one by one for the first that is wrong.

    Args:
        connection: inside a transaction.
        known_head: a head that was noted earlier; it must still be in the chain.
        uri: at which other processes find the same SQLite file; they then hash the rows of a large one.

    Returns:
        How many entries there are, and the head.

    Raises:
        RegistryError: names the first entry or row that is not as it was written; or `known_head` is no head.
    """
    if known_head and not re.fullmatch(r"[0-9a-f]{8,64}", known_head):
        raise RegistryError(
            "this is no head of an audit log",
            got=f"known_head={known_head!r}",
            need="a head, or at least its first 8 digits (0-9 and a-f), as every model card has it",
            fix="registry.verify(known_head=...) with the head of an earlier card",
        )
    found = agreed(connection, known_head, uri) or _one_by_one(connection, known_head)
    if found.known:
        return Audit(found.entries, found.head)
    raise _broken(
        "the audit log was cut or rewritten",
        f"head {known_head} is not in its {found.entries} entries",
        sound=0,
    )


def _one_by_one(connection: sa.Connection, known_head: str) -> Chain:
    """Return the chain, whose every entry and row was held against the other.

    Raises:
        RegistryError: names the first entry or row that is not as it was written.
    """
    import orjson

    vouched: defaultdict[str, dict[Any, str]] = defaultdict(dict)
    prev, count, known = GENESIS, 0, not known_head
    for seq, before, stored, body in _each(connection, sa.select(events).order_by(events.c.seq)):
        count += 1
        if seq != count or before != prev or stored != chained(seq, before, body):
            what = f"entry {count} is missing" if seq != count else "its content or its link was changed"
            raise _broken(f"the audit log is broken at entry {count}", what, sound=count - 1)
        entry = orjson.loads(body)
        vouched[entry["table"]][entry["key"]] = entry["row"]
        prev = stored
        known = known or stored.startswith(known_head)
    _verify_rows(connection, vouched)
    return Chain(count, prev, known)


def _each(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    return chain.from_iterable(rows(connection, query))


def _verify_rows(connection: sa.Connection, vouched: defaultdict[str, dict[Any, str]]) -> None:
    """Hold every row against the digest that an entry has of it, in whatever order the rows lie."""
    found: list[tuple[str, Any, str]] = []
    for name, (table, key) in RECORDED.items():
        place = [column.name for column in table.columns].index(key)
        left = vouched[name]
        for row in _each(connection, sa.select(table)):
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
    for seq, _, _, body in _each(connection, sa.select(events)):
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
