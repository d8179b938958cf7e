"""Hooks: each entry of the log handed to a function, at least once, also after a crash.

The log itself is the outbox: an entry is in it if and only if the change was made. A reader's place in it
moves on only after its function returned, so a process that dies in between hands the entry over again next
time; a function that must not act twice can tell by `Event.seq`.
"""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import sqlalchemy as sa

from tinker_officer.registry import audit, reads
from tinker_officer.registry.database import Database
from tinker_officer.registry.schema import events, readers, scorecards
from tinker_officer.registry.values import Move, Version


logger = logging.getLogger(__name__)

_AT_ONCE = 100


@attrs.frozen(kw_only=True)
class Event:
    """One entry of the audit log, as a hook receives it.

    Attributes:
        seq: its number: the same entry has the same one whenever it is handed over.
        action: "registered", "scored", or the kind of the move: "promoted", "refused", "rolled back", ...
        version: the version that it is about.
        actor: who did it; empty for what nobody had to answer for.
        at: when, ISO 8601 in UTC.
        move: the move, with its verdict, if it is one.
    """

    seq: int
    action: str
    version: Version
    actor: str
    at: str
    move: Move | None = None

    def __repr__(self) -> str:
        return f"Event({self.seq}: {self.version.label} {self.action})"

    def explain(self) -> str:
        """Return the event as text, the gate's evidence with it."""
        return self.move.explain() if self.move else f"{self.at}  {self.version.label} {self.action}"

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON values, for a webhook."""
        move = self.move
        return {
            "seq": self.seq, "action": self.action, "version": self.version.label, "id": self.version.id,
            "actor": self.actor, "at": self.at, "channel": move.channel if move else "",
            "reason": move.reason if move else "", "outcome": str(move.outcome or "") if move else "",
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


Hook: TypeAlias = Callable[[Event], object]


def subscribe(database: Database, name: str) -> None:
    """Let a reader that is new begin at the end of the log; one that is known goes on where it was.

    Raises:
        RegistryError: the registry was opened to be read only: no place in the log could be kept.
    """
    with database.read() as connection:
        known = connection.scalar(sa.select(readers.c.seq).where(readers.c.name == name))
    if known is not None and not database.read_only:
        return
    with database.write() as connection:
        if connection.scalar(sa.select(readers.c.seq).where(readers.c.name == name)) is None:
            connection.execute(readers.insert().values(name=name, seq=audit.head(connection).entries))


def deliver(database: Database, name: str, hook: Hook) -> int:
    """Hand every entry that reader `name` has not had to `hook`, and return how many it took.

    Where the hook raises, the entry stays for the next time; a warning is logged and nothing else stops.
    """
    taken = 0
    while True:
        with database.read() as connection:
            place = connection.scalar(sa.select(readers.c.seq).where(readers.c.name == name)) or 0
            query = sa.select(events.c.seq, events.c.body).where(events.c.seq > place).order_by(events.c.seq)
            found = [_event(connection, *row) for row in connection.execute(query.limit(_AT_ONCE)).all()]
        done = place
        try:
            for event in found:
                hook(event)
                done, taken = event.seq, taken + 1
        except Exception:
            logger.warning("registry.hook_failed", exc_info=True, extra={"officer.reader": name})
            return taken
        finally:
            if done > place:
                _move_on(database, name, done)
        if len(found) < _AT_ONCE:
            return taken


def _move_on(database: Database, name: str, seq: int) -> None:
    with database.write() as connection:
        after = readers.update().where(readers.c.name == name, readers.c.seq < seq)
        connection.execute(after.values(seq=seq))


def _event(connection: sa.Connection, seq: int, body: str) -> Event:
    entry = json.loads(body)
    move = reads.move(connection, entry["key"]) if entry["table"] == "moves" else None
    owner = entry["key"]
    if move is not None:
        owner = move.version
    elif entry["table"] == "scorecards":
        owner = connection.scalar(sa.select(scorecards.c.version).where(scorecards.c.seq == entry["key"]))
    return Event(
        seq=seq,
        action=entry["action"],
        version=reads.find(connection, str(owner)),
        actor=entry["actor"],
        at=entry["at"],
        move=move,
    )
