"""Killed writers and lost power: minutes of what the tests only touch. `nox -s soak -- tests/registry`."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.sqlite import SqliteDatabase, settle


HERE = Path(__file__).parent


@pytest.mark.soak
@pytest.mark.parametrize("writers", [16, 64])
def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path, writers):
    """500 SIGKILLs at random moments: every acknowledged event is there, no gap, never two in production."""
    command = [
        sys.executable,
        str(HERE / "soak_writers.py"),
        str(tmp_path / "models.db"),
        str(writers),
        "500",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)


def test_a_few_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    """The small sister of the soak: four writers, six SIGKILLs."""
    command = [sys.executable, str(HERE / "soak_writers.py"), str(tmp_path / "models.db"), "4", "6"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["lost"] == 0


def recorded(path, log, *, synchronous):  # noqa: C901 - a VFS and a driver in one place
    """Return a registry on `path` whose every write, sync and deletion is added to `log`, in order."""
    apsw = pytest.importorskip("apsw")
    if "recording" in apsw.vfs_names():
        apsw.unregister_vfs("recording")

    class File(apsw.VFSFile):
        def __init__(self, name, flags):
            self.name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
            super().__init__("", name, flags)

        def xWrite(self, data, offset):  # noqa: N802 - apsw's name
            log.append(("write", self.name, offset, bytes(data)))
            super().xWrite(data, offset)

        def xTruncate(self, size):  # noqa: N802 - apsw's name
            log.append(("truncate", self.name, size, b""))
            super().xTruncate(size)

        def xSync(self, flags):  # noqa: N802 - apsw's name
            log.append(("sync", self.name, 0, b""))
            super().xSync(flags)

    class Recording(apsw.VFS):
        def __init__(self):
            super().__init__("recording", "")

        def xOpen(self, name, flags):  # noqa: N802 - apsw's name
            return File(name, flags)

        def xDelete(self, name, sync_folder):  # noqa: N802 - apsw's name
            log.append(("delete", Path(name).name, int(sync_folder), b""))
            super().xDelete(name, sync_folder)

    class Cursor:
        arraysize, rowcount, lastrowid, description = 1, -1, None, None

        def __init__(self, connection):
            self._cursor, self._rows = connection.cursor(), []
            self._cursor.exec_trace = self._look

        def _look(self, cursor, _sql, _bindings):
            found = cursor.get_description()
            self.description = tuple((name, *[None] * 6) for name, _ in found) or None
            return True

        def execute(self, sql, parameters=()):
            self.description = None
            self._rows = list(self._cursor.execute(sql, tuple(parameters)))
            return self

        def executemany(self, sql, many):
            self._cursor.executemany(sql, [tuple(one) for one in many])
            self.description = None

        def fetchone(self):
            return self._rows.pop(0) if self._rows else None

        def fetchmany(self, size=1):
            taken, self._rows = self._rows[:size], self._rows[size:]
            return taken

        def fetchall(self):
            return self.fetchmany(len(self._rows))

        def close(self):
            self._cursor.close()

    class Connection:
        def __init__(self):
            self.raw = apsw.Connection(str(path), vfs="recording", flags=apsw.SQLITE_OPEN_READWRITE)

        def cursor(self):
            return Cursor(self.raw)

        def execute(self, sql, parameters=()):
            return self.cursor().execute(sql, parameters)

        def create_function(self, *_arguments, **_more):
            """The dialect adds REGEXP, which we do not use."""

        def commit(self):
            if self.raw.in_transaction:
                self.raw.execute("COMMIT")

        def rollback(self):
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")

        def close(self):
            self.raw.close()

    vfs = Recording()

    def connect():
        connection = Connection()
        settle(connection)
        if synchronous is not None:
            connection.execute(f"PRAGMA synchronous={synchronous}")
        return connection

    database = SqliteDatabase(path)
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    database._reader = database._writer = engine
    registry = Registry(database)
    registry._vfs = vfs  # lives as long as the registry
    return registry


def after_power_loss(base, log, place, chance):  # noqa: C901 - one kind of operation a branch
    """Return the files as a disk may hold them when the power goes before operation `place`.

    What was synced is there. Of what was not, each write is there, missing, or torn at a sector, by chance; a
    deletion that did not sync the folder may not have happened.
    """
    synced, waiting, exists = {name: bytearray(found) for name, found in base.items()}, {}, set(base)

    def apply(content, kind, offset, data):
        if kind == "write":
            content.extend(b"\0" * (offset - len(content)))
            content[offset : offset + len(data)] = data
        else:
            del content[offset:]

    for kind, name, offset, data in log[:place]:
        if kind in {"write", "truncate"}:
            waiting.setdefault(name, []).append((kind, offset, data))
        elif kind == "sync":
            for one in waiting.pop(name, ()):
                apply(synced.setdefault(name, bytearray()), *one)
            exists.add(name)
        elif kind == "delete" and (offset or chance.random() < 0.5):
            waiting.pop(name, None)
            synced.pop(name, None)
            exists.discard(name)
    for name, ones in waiting.items():
        if name not in exists and chance.random() < 0.5:
            continue  # its entry in the folder never reached the disk
        for kind, offset, data in ones:
            fate = chance.random()
            if fate < 0.4:
                continue
            torn = (
                512 * chance.randrange(len(data) // 512 + 1) if fate < 0.6 and kind == "write" else len(data)
            )
            apply(synced.setdefault(name, bytearray()), kind, offset, data[:torn])
    return {name: bytes(content) for name, content in synced.items()}


def damaged(folder, files, acknowledged):
    """Return what is wrong with a registry that comes up with these files; empty when nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        registry = Registry.open(folder / "models.db")
        entries = registry.verify().entries
        with closing(sqlite3.connect(folder / "models.db")) as connection:
            whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
    except (RegistryError, sqlite3.Error) as error:
        return str(error).partition("\n")[0]
    if whole != "ok":
        return f"integrity: {whole[:60]}"
    return "" if entries >= acknowledged else f"{acknowledged - entries} acknowledged events lost"


def power_losses(tmp_path, synchronous, losses, changes):
    """Return how many of `losses` simulated power losses did damage, and an example."""
    path = tmp_path / "work" / "models.db"
    registry = Registry.open(path)
    for number in range(3):
        registry.register(f"base-{number}", name="m")
    base = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    log, acknowledged = [], []
    writing = recorded(path, log, synchronous=synchronous)
    for number in range(changes):
        writing.promote(f"m@{number % 3 + 1}", to="staging", actor="ci")
        acknowledged.append((len(log), 4 + number))
    assert log
    chance, found = random.Random(5), []
    for _ in range(losses):
        place = chance.randrange(1, len(log) + 1)
        told = max((count for at, count in acknowledged if at <= place), default=3)
        files = after_power_loss(base, log, place, chance)
        problem = damaged(tmp_path / "after", files, told)
        found += [problem] if problem else []
    return found


@pytest.mark.soak
def test_four_hundred_power_losses_do_no_damage(tmp_path):
    """Whatever of the unsynced writes is dropped or torn, it comes up whole, with what it promised."""
    found = power_losses(tmp_path, None, 400, 120)
    print(json.dumps({"losses": 400, "damaged": len(found)}))
    assert found == []


@pytest.mark.soak
def test_the_control_without_syncs_is_damaged(tmp_path):
    """With `synchronous=OFF` the same losses do damage, so the test above is known to bite."""
    found = power_losses(tmp_path, "OFF", 400, 120)
    print(json.dumps({"losses": 400, "damaged": len(found), "such as": sorted(set(found))[:3]}))
    assert len(found) > 100


def test_a_few_power_losses_do_no_damage_and_the_control_is_damaged(tmp_path):
    """The small sister of the soak: twenty losses each."""
    assert power_losses(tmp_path, None, 20, 12) == []
    assert len(power_losses(tmp_path / "control", "OFF", 20, 12)) >= 5
