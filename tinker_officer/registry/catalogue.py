"""The index that search asks: a row a version, and a fact a figure, made from the records.

It is no part of the record: whatever stands in it can be made anew, and every migration does so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tinker_officer.registry.prepared import Prepared
from tinker_officer.registry.schema import DERIVED, catalogue, facts, keys, moves, scorecards, versions


if TYPE_CHECKING:
    from tinker_officer.evals.scorecard import Scorecard

# Which JSON objects of a version can be asked about, as `<prefix>.<entry>`.
PREFIXES = ("data", "engine", "evals", "git", "lora", "metrics", "packages", "plan", "weights")

# What every version has, as columns of the catalogue.
COLUMNS = {
    "base_model": str, "created": str, "id": str, "name": str, "notes": str, "number": int,
    "renderer_name": str, "step": int, "stopped": str,
}  # fmt: skip


_LAST_PLACE = Prepared(sa.select(sa.func.max(catalogue.c.place)))
_INSERT, _INSERT_FACT = Prepared(catalogue.insert()), facts.insert()


def add_version(connection: sa.Connection, record: dict[str, Any]) -> None:
    """Add a version that was recorded."""
    (last,) = _LAST_PLACE.first(connection)
    place = (last or 0) + 1
    row = {name: _held(record.get(name, kind())) for name, kind in COLUMNS.items()}
    _INSERT.run(connection, place=place, **row)
    _add(connection, place, _described(record))


def add_scorecard(connection: sa.Connection, version: str, card: Scorecard) -> None:
    """Add the figures of a card; those of an older card of the same evals go."""
    place = connection.scalar(sa.select(catalogue.c.place).where(catalogue.c.id == version))
    if place is None:
        return
    found = [(indexed(f"evals.{name.replace('/', '.')}"), value) for name, value in _figures(card)]
    old = facts.delete().where(facts.c.place == place, facts.c.key.in_([name for name, _ in found]))
    connection.execute(old)
    _add(connection, place, found)


def rebuild(connection: sa.Connection) -> None:
    """Make the index anew from the records, in the transaction of `connection`."""
    from tinker_officer.evals.scorecard import Scorecard

    for table in DERIVED:
        connection.execute(table.delete())
    order = (versions.c.created, versions.c.name, versions.c.number)
    for record in connection.scalars(sa.select(versions.c.record).order_by(*order)).all():
        add_version(connection, json.loads(record))
    query = sa.select(scorecards.c.version, scorecards.c.record).order_by(scorecards.c.seq)
    for version, record in connection.execute(query).all():
        add_scorecard(connection, version, Scorecard.from_json(record))
    for seq, record in connection.execute(sa.select(moves.c.seq, moves.c.record)).all():
        key = json.loads(record).get("key")
        if key:
            connection.execute(keys.insert().values(key=key, move=seq))


def indexed(text: str) -> str:
    """Return text as the index holds it and is asked for it: PostgreSQL's text has no NUL character."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _held(value: Any) -> Any:
    return indexed(value) if isinstance(value, str) else value


def _add(connection: sa.Connection, place: int, found: Iterable[tuple[str, Any]]) -> None:
    rows = [
        {
            "place": place,
            "key": indexed(key),
            "number": None if isinstance(value, str) else float(value),
            "text": indexed(value) if isinstance(value, str) else None,
        }
        for key, value in found
    ]
    if rows:
        connection.execute(_INSERT_FACT, rows)


def _figures(card: Scorecard) -> Iterator[tuple[str, float]]:
    for name, value in card.metrics().items():
        if math.isfinite(value):
            yield name, value
    for result in card.evals:
        yield f"{result.name}/n", result.n


def _described(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every scalar of a version that can be asked about, by its key."""
    plan = record.get("plan") or {}
    sources = {**record, "plan": plan.get("computed") or {}}
    for prefix in PREFIXES:
        for name, value in (sources.get(prefix) or {}).items():
            if isinstance(value, str | int | float):
                yield f"{prefix}.{name}", value
    for parent in record.get("parents", ()):
        yield "parent", parent
