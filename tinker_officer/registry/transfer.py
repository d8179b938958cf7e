"""The whole registry as JSON, a row a line, and back: rows, hashes and all, in any kind of database.

The first line says what it is; every further one holds a table's name and a row, in the order in which the
log vouches for them. What is read back must verify, or nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tinker_officer._files import write_atomic
from tinker_officer.errors import RegistryError
from tinker_officer.registry import audit, catalogue
from tinker_officer.registry.schema import events, moves, scorecards, versions


FORMAT = 1
_KIND = "tinker_officer registry"
_TABLES = {"versions": versions, "scorecards": scorecards, "moves": moves, "events": events}
_ORDER = {"versions": "created", "scorecards": "seq", "moves": "seq", "events": "seq"}


def write_json(connection: sa.Connection, path: Path) -> Path:
    """Write every row of the record to `path`, and return it."""
    lines = [json.dumps({"kind": _KIND, "format": FORMAT})]
    for name, table in _TABLES.items():
        query = sa.select(table).order_by(table.c[_ORDER[name]], *table.primary_key.columns)
        lines += [
            json.dumps({"table": name, **row}, ensure_ascii=False, sort_keys=True)
            for row in connection.execute(query).mappings()
        ]
    write_atomic(path, "\n".join(lines) + "\n")
    return path


def read_json(connection: sa.Connection, path: Path) -> audit.Audit:
    """Add the rows of the file to a registry that is empty, verify it, and return what `verify` says.

    Raises:
        RegistryError: the registry is not empty, the file is not such JSON, or the log does not verify.
    """
    if connection.scalar(sa.select(sa.func.count()).select_from(events)):
        raise RegistryError(
            "the registry is not empty",
            got=f"{audit.head(connection).entries} entries",
            need="a new one: logs cannot be merged",
            fix='Registry.from_json("models.json", at="new.db")',
        )
    try:
        with path.open(encoding="utf-8") as file:
            _check_head(path, next(file, ""))
            for number, line in enumerate(file, start=2):
                _add(connection, path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise _not_ours(path, str(error)) from error
    catalogue.rebuild(connection)
    return audit.verify(connection)


def _check_head(path: Path, line: str) -> None:
    try:
        head = json.loads(line)
    except ValueError:
        head = None
    if head != {"kind": _KIND, "format": FORMAT}:
        raise _not_ours(path, f"its first line is {line[:60]!r}")


def _add(connection: sa.Connection, path: Path, number: int, line: str) -> None:
    try:
        row: dict[str, Any] = json.loads(line)
        table = _TABLES[row.pop("table")]
        _check_columns(row, table.columns.keys())
        connection.execute(table.insert().values(row))
    except (ValueError, KeyError, AttributeError, sa.exc.IntegrityError) as error:
        raise _not_ours(path, f"line {number} is no row of a registry ({type(error).__name__})") from error


def _check_columns(row: dict[str, Any], names: Iterable[str]) -> None:
    if row.keys() != set(names):
        raise ValueError(sorted(row))


def _not_ours(path: Path, what: str) -> RegistryError:
    return RegistryError(
        "this is not a registry's JSON",
        got=f"{path}: {what}",
        need=f"a file that Registry.to_json wrote (format {FORMAT})",
        fix='registry.to_json("models.json")',
    )
