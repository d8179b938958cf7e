"""The audit log: whatever is changed behind the registry's back, `verify` names it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tinker_officer.errors import RegistryError
from tinker_officer.registry import bulk
from tinker_officer.registry.hashing import GENESIS, chained
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.schema import metadata


TABLES = ("versions", "scorecards", "moves", "events")


@pytest.fixture
def recorded(registry, card, binary):
    """A registry with three versions, their cards and four moves."""
    for name in ("a", "b", "c"):
        version = registry.register(name, card(binary([1, 0]), target=name), name="m")
        registry.promote(version, to="staging", actor="ci")
    registry.rollback("staging", actor="ada", reason="slow")
    return registry


def tamper(registry, *statements):
    """Do what an intruder with a file editor can: drop the triggers, change the rows."""
    with closing(sqlite3.connect(registry._database.path)) as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for table in TABLES:
            for change in ("update", "delete"):
                connection.execute(f"DROP TRIGGER {table}_no_{change}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


EDITS = [(table, column.name) for table in TABLES for column in metadata.tables[table].columns]


@pytest.mark.parametrize(("table", "column"), EDITS)
def test_every_edit_of_a_single_field_is_named(recorded, table, column):
    """Whichever column of whichever table is changed, the first bad entry is found."""
    tamper(
        recorded,
        f"UPDATE {table} SET {column} = CASE typeof({column}) WHEN 'integer' THEN {column} + 1000 "
        f"ELSE coalesce({column}, '') || 'x' END WHERE rowid = (SELECT max(rowid) - 1 FROM {table})",
    )
    with pytest.raises(RegistryError, match=r"(?s)(entry \d+|no entry).*restore the file"):
        recorded.verify()


@pytest.mark.parametrize("table", TABLES)
def test_a_row_that_was_removed_or_added_is_named(recorded, table):
    """A deletion, and an insertion that the log knows nothing of, both show."""
    columns = ", ".join(column.name for column in metadata.tables[table].columns)
    copies = ", ".join(
        f"'z' || {column.name}" if column.name in {"id", "prev", "hash", "digest"}
        else f"{column.name} + 90" if column.name in {"seq", "number"} else column.name
        for column in metadata.tables[table].columns
    )  # fmt: skip
    path = recorded._database.path
    original = path.read_bytes()
    tamper(recorded, f"INSERT INTO {table} ({columns}) SELECT {copies} FROM {table} LIMIT 1")
    with pytest.raises(RegistryError, match=r"outside the registry|broken at entry"):
        recorded.verify()
    path.write_bytes(original)
    tamper(recorded, f"DELETE FROM {table} WHERE rowid = (SELECT min(rowid) + 1 FROM {table})")
    with pytest.raises(RegistryError, match=r"removed|broken at entry 2|outside"):
        recorded.verify()


def test_the_first_bad_entry_is_the_one_that_is_named(recorded):
    """Of two edits, the earlier one is named, and how many entries before it are sound."""
    tamper(recorded, "UPDATE events SET body = body || ' ' WHERE seq IN (4, 7)")
    with pytest.raises(RegistryError, match=r"(?s)broken at entry 4.*first 3 entries"):
        recorded.verify()


def test_a_cut_tail_shows_against_a_head_that_was_noted(recorded):
    """A chain cannot see that its end was cut off, together with its rows; a head from a card can."""
    head = recorded.verify().head
    assert recorded.verify(known_head=head[:16]).head == head
    tamper(
        recorded,
        "DELETE FROM moves WHERE seq = (SELECT max(seq) FROM moves)",
        "DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)",
    )
    assert recorded.verify().head != head
    with pytest.raises(RegistryError, match="cut or rewritten"):
        recorded.verify(known_head=head)


@pytest.mark.parametrize("wrong", ["zz", "abc", "A" * 16, "0" * 65])
def test_what_is_no_head_is_not_called_a_damage(recorded, wrong):
    """A slip is met as one; and a digit or two would stand at the beginning of some entry anyway."""
    with pytest.raises(RegistryError, match="no head of an audit log"):
        recorded.verify(known_head=wrong)


def test_rows_hashed_by_other_processes_agree_and_an_edit_shows(recorded, monkeypatch):
    """As for a large file: their digests are enough to agree by, and a changed row is named all the same."""
    monkeypatch.setattr(bulk, "LARGE", 0)
    database = recorded._database
    with database.read() as connection:
        assert bulk.agreed(connection, "", database.uri(connection)).entries == recorded.verify().entries
        # They fail, and all is hashed here.
        assert bulk.agreed(connection, "", "file:/nowhere?mode=ro").entries == recorded.verify().entries
    tamper(recorded, "UPDATE moves SET channel = 'production' WHERE seq = 2")
    with database.read() as connection:
        assert bulk.agreed(connection, "", database.uri(connection)) is None
    with pytest.raises(RegistryError, match=r"moves row 2 was changed"):
        recorded.verify()


def test_where_no_process_can_start_the_rows_are_hashed_here(recorded, monkeypatch):
    """With no file handle left for a pipe, the log still verifies, and an edit still shows."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(bulk, "LARGE", 0)
    entries = recorded.verify().entries
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open() as one, Path(os.devnull).open() as other:
        few = max(one.fileno(), other.fileno()) + 1  # for the database, and to look at its journal
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with recorded._database.read(), pytest.raises(OSError, match="Too many open"), bulk._apart("", ""):
            pytest.fail("a process could be started")
        assert recorded.verify().entries == entries
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    tamper(recorded, "UPDATE moves SET channel = 'production' WHERE seq = 2")
    with pytest.raises(RegistryError, match="moves row 2 was changed"):
        recorded.verify()


def test_an_empty_log_verifies(tmp_path):
    """A new registry has no entries, and its head is the beginning."""
    found = Registry.open(tmp_path / "models.db").verify()
    assert (found.entries, found.head) == (0, GENESIS)
    assert "0 entries" in repr(found)


def test_the_hash_depends_on_every_part():
    """Number, previous hash and content each change the hash."""
    hashes = {chained(1, "a", "b"), chained(2, "a", "b"), chained(1, "b", "b"), chained(1, "a", "c")}
    assert len(hashes) == 4
