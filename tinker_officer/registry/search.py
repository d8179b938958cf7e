"""What a query asks of the index: a tree made into one statement, with every value bound."""

from __future__ import annotations

import html
import operator
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa

from tinker_officer._text import nearest, table
from tinker_officer.errors import RegistryError
from tinker_officer.registry import reads
from tinker_officer.registry.catalogue import COLUMNS, PREFIXES, indexed
from tinker_officer.registry.query import Both, Compare, Not, Query, parse, parse_order
from tinker_officer.registry.schema import catalogue, facts
from tinker_officer.registry.values import Version
from tinker_officer.registry.writes import iso


MOST = 1000
_FEW = 5000
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
_DATE_LENGTH = 10


@attrs.frozen
class Page:
    """Versions that a search found, in the order that was asked for; prints as a table.

    Attributes:
        versions: those of this page.
        offset: how many were passed over.
        more: whether there are more after them.
    """

    versions: tuple[Version, ...]
    offset: int = 0
    more: bool = False

    def __iter__(self) -> Iterator[Version]:
        return iter(self.versions)

    def __len__(self) -> int:
        return len(self.versions)

    def __getitem__(self, place: int) -> Version:
        return self.versions[place]

    def __repr__(self) -> str:
        return f"Page({len(self.versions)} versions{', and more' if self.more else ''})"

    def __str__(self) -> str:
        return self.explain()

    def explain(self) -> str:
        """Return the versions as a table."""
        rows = [(one.label, one.base_model, one.step or "", one.created[:19], one.notes) for one in self]
        shown = table(rows, header=("version", "base model", "steps", "registered", "notes"))
        after = f"\nmore: registry.search(..., offset={self.offset + len(self)})" if self.more else ""
        return (shown if rows else "no version fits") + after

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.explain())}</pre>"


def search(connection: sa.Connection, text: str, *, order_by: str, limit: int, offset: int) -> Page:
    """Return a page of the versions that fit; what `Registry.search` does, which documents it."""
    for name, value, most in (("limit", limit, MOST), ("offset", offset, None)):
        low = 1 if most else 0
        if type(value) is not int or value < low or value > (most or value):
            raise RegistryError(
                f"{name} is out of range",
                got=repr(value),
                need=f"an integer from {low} to {most}" if most else "an integer of at least 0",
                fix='registry.search("...", limit=100, offset=0)',
            )
    query = parse(indexed(text))
    condition = sa.true() if query is None else _condition(connection, query)
    ids = _ids(connection, condition, parse_order(indexed(order_by)), limit + 1, offset)
    found = reads.by_ids(connection, ids[:limit])
    return Page(found, offset, more=len(ids) > limit)


def _condition(connection: sa.Connection, query: Query, *, holds: bool = True) -> sa.ColumnElement[bool]:
    """Return that a query holds, or does not; a NOT is handed down to what it is said of."""
    if isinstance(query, Not):
        return _condition(connection, query.part, holds=not holds)
    if isinstance(query, Compare):
        return _compared(connection, query, holds=holds)
    parts = [_condition(connection, part, holds=holds) for part in query.parts]
    return sa.and_(*parts) if isinstance(query, Both) == holds else sa.or_(*parts)


def _compared(connection: sa.Connection, asked: Compare, *, holds: bool) -> sa.ColumnElement[bool]:
    if asked.field in COLUMNS or asked.field == "channel":
        found = _of_catalogue(connection, asked)
        return found if holds else sa.not_(found)
    _check_known(connection, asked.field)
    is_text = isinstance(asked.value, str)
    column, other = (facts.c.text, facts.c.number) if is_text else (facts.c.number, facts.c.text)
    value = _parent(connection, asked) if asked.field == "parent" else asked
    mine = facts.c.key == asked.field
    known = sa.select(facts.c.place).where(mine, column.is_not(None)).limit(1)
    if connection.scalar(known) is None and _has(connection, asked.field):
        _check_kind(asked, float if is_text else str)
    # Where every version has one such value, those that do not fit are those that fit the opposite.
    turned = not holds and _all_have_one(connection, asked.field, column, other)
    related = _related(connection, column, value)
    found = _with_fact(connection, sa.and_(mine, sa.not_(related) if turned else related))
    return found if holds or turned else sa.not_(found)


def _of_catalogue(connection: sa.Connection, asked: Compare) -> sa.ColumnElement[bool]:
    if asked.field == "created":
        return _dated(asked)
    if asked.field == "channel":
        return _deployed(connection, asked)
    kind = COLUMNS[asked.field]
    _check_kind(asked, str if kind is str else float)
    return _related(connection, catalogue.c[asked.field], asked)


def _with_fact(connection: sa.Connection, fits: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    few = sa.select(facts.c.place).where(fits).limit(_FEW + 1).subquery()
    if (connection.scalar(sa.select(sa.func.count()).select_from(few)) or 0) <= _FEW:
        return catalogue.c.place.in_(sa.select(facts.c.place).where(fits))
    # Where many fit, a page is soon full: looking each up costs less than listing them all.
    return sa.exists().where(facts.c.place == catalogue.c.place, fits)


def _all_have_one(connection: sa.Connection, key: str, column: Any, other: Any) -> bool:
    """Return whether each version has exactly one fact of that key, in that column."""
    mine = sa.select(facts.c.place).where(facts.c.key == key)
    if connection.scalar(mine.where(column.is_(None)).limit(1)) is not None:
        return False
    each = mine.where(other.is_(None)).distinct().subquery()  # an index has these in order
    counts = {
        connection.scalar(sa.select(sa.func.count()).select_from(one))
        for one in (catalogue, mine.subquery(), each)
    }
    return len(counts) == 1


def _related(connection: sa.Connection, column: Any, asked: Compare) -> sa.ColumnElement[bool]:
    if asked.sign == "LIKE":
        _check_kind(asked, str)
        # SQLite's LIKE knows no case as it is, and `lower()` doubles what a search through all notes takes.
        like = column.like if connection.dialect.name == "sqlite" else column.ilike
        fitting: sa.ColumnElement[bool] = like(str(asked.value), escape="\\")
        return fitting
    found: sa.ColumnElement[bool] = _SIGNS[asked.sign](column, asked.value)
    return found


def _dated(asked: Compare) -> sa.ColumnElement[bool]:
    """Compare with a moment; a day alone means all of it."""
    try:
        start = datetime.fromisoformat(str(asked.value))
    except ValueError:
        start = None
    if start is None or asked.sign == "LIKE" or not isinstance(asked.value, str):
        raise RegistryError(
            "this is not a comparison with a time",
            got=f"created {asked.sign} {asked.value!r}",
            need="=, !=, <, <=, > or >= and ISO 8601 text, UTC if it says no zone",
            fix="registry.search(\"created >= '2026-10-01'\")",
        )
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    whole_day = len(asked.value) == _DATE_LENGTH
    last = start + (timedelta(days=1, microseconds=-1) if whole_day else timedelta())
    low, high, column = iso(start), iso(last), catalogue.c.created
    inside = sa.and_(column >= low, column <= high)
    return {
        "=": inside, "!=": sa.not_(inside), "<": column < low, "<=": column <= high, ">": column > high,
        ">=": column >= low,
    }[asked.sign]  # fmt: skip


def _deployed(connection: sa.Connection, asked: Compare) -> sa.ColumnElement[bool]:
    _check_kind(asked, str)
    if asked.sign not in {"=", "!="}:
        raise RegistryError(
            "a channel can only be equal or not",
            got=f"channel {asked.sign} {asked.value!r}",
            need="= or !=",
            fix="registry.search(\"channel = 'production'\")",
        )
    held = reads.deployed(connection)
    ids = [stack[-1] for (_, channel), stack in held.items() if channel == asked.value and stack]
    inside = catalogue.c.id.in_(ids)
    return inside if asked.sign == "=" else sa.not_(inside)


def _parent(connection: sa.Connection, asked: Compare) -> Compare:
    _check_kind(asked, str)
    return attrs.evolve(asked, value=reads.find(connection, str(asked.value)).id)


def _has(connection: sa.Connection, key: str) -> bool:
    return connection.scalar(sa.select(facts.c.key).where(facts.c.key == key).limit(1)) is not None


def _check_known(connection: sa.Connection, field: str) -> None:
    """Refuse a field that no version has, and offer the nearest."""
    if field == "parent" or _has(connection, field):
        return
    if connection.scalar(sa.select(catalogue.c.place).limit(1)) is None:
        return  # an empty registry: nothing fits, whatever the field
    fields = [*COLUMNS, "channel", "parent", *connection.scalars(sa.select(facts.c.key).distinct())]
    near = nearest(field, fields)
    raise RegistryError(
        "no version has such a field",
        got=field,
        need=f"a field of the registry: {', '.join((*COLUMNS, 'channel', 'parent'))}, or an entry of"
        f" {', '.join(PREFIXES)}" + (f" (did you mean {near}?)" if near else ""),
        fix=f'registry.search("{near.partition(", ")[0].strip(chr(39)) or "base_model"} = ...")',
    )


def _check_kind(asked: Compare, kind: type) -> None:
    if isinstance(asked.value, kind):
        return
    raise RegistryError(
        f"{asked.field} is {'text' if kind is str else 'a number'}",
        got=f"{asked.field} {asked.sign} {asked.value!r}",
        need="text in single quotes" if kind is str else "a number, without quotes",
        fix=f"{asked.field} {asked.sign} {repr(str(asked.value)) if kind is str else 0.5}",
    )


def _ids(
    connection: sa.Connection,
    condition: sa.ColumnElement[bool],
    order: tuple[tuple[str, bool], ...],
    limit: int,
    offset: int,
) -> list[str]:
    """Return the ids of a page: what has the fact that leads the order first, then what lacks it."""
    (first, falls), *rest = order
    chosen = sa.select(catalogue.c.id).where(condition)
    if first in COLUMNS:
        chosen = _then(connection, chosen, order)
        return list(connection.scalars(chosen.limit(limit).offset(offset)))
    _check_known(connection, first)
    lead = facts.alias()
    mine = sa.and_(lead.c.place == catalogue.c.place, lead.c.key == first)
    is_number = sa.select(lead.c.place).where(lead.c.key == first, lead.c.number.is_not(None)).limit(1)
    column = lead.c.text if connection.scalar(is_number) is None else lead.c.number
    having = sa.select(catalogue.c.id).join(lead, mine).where(condition)
    having = _then(connection, having.order_by(column.desc() if falls else column), tuple(rest))
    ids = list(connection.scalars(having.limit(limit).offset(offset)))
    if len(ids) < limit:
        passed = connection.scalar(
            sa.select(sa.func.count()).select_from(catalogue.join(lead, mine)).where(condition)
        )
        lacking = _then(connection, chosen.where(sa.not_(sa.exists().where(mine))), tuple(rest))
        skip = max(0, offset - (passed or 0))
        ids += connection.scalars(lacking.limit(limit - len(ids)).offset(skip))
    return ids


def _then(
    connection: sa.Connection, chosen: sa.Select[Any], order: tuple[tuple[str, bool], ...]
) -> sa.Select[Any]:
    """Order by columns and facts; ties are broken by age, the newest first."""
    for field, falls in order:
        if field == "created":  # the order of registration, which an integer keeps
            column: Any = catalogue.c.place
            return chosen.order_by(column.desc() if falls else column)
        if field in COLUMNS:
            column = catalogue.c[field]
            chosen = chosen.order_by(column.desc() if falls else column)
            continue
        _check_known(connection, field)
        one = facts.alias()
        chosen = chosen.outerjoin(one, sa.and_(one.c.place == catalogue.c.place, one.c.key == field))
        has = sa.and_(one.c.number.is_(None), one.c.text.is_(None))
        for column in (one.c.number, one.c.text):
            chosen = chosen.order_by(has, column.desc() if falls else column)
    return chosen.order_by(catalogue.c.place.desc())
