"""The registry in PostgreSQL: the same answers, the same refusals, the same safety among processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry.gate import Gate
from tinker_officer.registry.refusal import PromotionRefused
from tinker_officer.registry.registry import Registry


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from pg_server import Server, binaries  # noqa: E402 - a neighbour, which no package holds


pytest.importorskip("psycopg")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        binaries() is None, reason="no PostgreSQL binaries: apt-get install postgresql, or set PATH"
    ),
]


@pytest.fixture(scope="module")
def server():
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        running = Server(Path(folder))
        running.start()
        yield running
        running.stop()


@pytest.fixture
def database(server, request):
    return server.create(f"d{abs(hash(request.node.name))}")


def test_the_main_job_runs_in_postgres_as_in_sqlite(database, tmp_path, three):
    """Register, refuse, promote, roll back, search, verify: then moved to SQLite and back, hash for hash."""
    with Registry.open(database) as registry:
        fair, bad, good = three(registry)
        gate = Gate.not_worse(margin=0.02)
        registry.promote(fair, to="production", gate=gate, actor="ci", key="k")
        assert registry.promote(fair, to="production", gate=gate, actor="ci", key="k").kind == "promoted"
        with pytest.raises(PromotionRefused):
            registry.promote(bad, to="production", gate=gate, actor="ci")
        registry.promote(good, to="production", gate=gate, actor="ci")
        registry.rollback("production", actor="ada", reason="slow")
        assert registry.current("production") == fair
        query = "evals.tickets.accuracy > 0.6 AND base_model LIKE 'GO%' AND created > '2020-01-01'"
        assert [one.label for one in registry.search(query)] == ["tickets@3"]
        assert [one.number for one in registry.search(order_by="evals.tickets.accuracy desc")] == [3, 1, 2]
        assert "Registry" in repr(registry)
        head = registry.verify()
        registry.to_json(tmp_path / "all.json")
    moved = Registry.from_json(tmp_path / "all.json", at=tmp_path / "moved.db")
    assert moved.verify() == head
    assert moved.history().moves == registry.history().moves
    assert moved.search(query)[0] == registry.search(query)[0]
    assert moved.card(good) == registry.card(good)


def test_text_that_postgres_or_utf_8_cannot_hold_comes_back_or_is_refused(database, odd_text):
    """As in SQLite; and a name that no model can have gives our error, not the server's."""
    with Registry.open(database) as registry:
        odd_text(registry)
        with pytest.raises(RegistryError, match="nothing of this name"):
            registry.history("a\0b")


def test_no_row_can_be_changed_deleted_or_truncated(database):
    """Triggers refuse it, for the owner of the tables too."""
    registry = Registry.open(database)
    registry.register("tiny")
    for change in ("UPDATE versions SET notes = ''", "DELETE FROM events", "TRUNCATE moves"):
        with pytest.raises((sa.exc.DBAPIError, RegistryError)), registry._database.write() as connection:
            connection.exec_driver_sql(change)
    assert registry.verify().entries == 1


def test_what_is_not_ours_is_left_untouched(server, database):
    """A schema with other tables, a later schema, a server that is not there: four-part errors, no change."""
    import psycopg

    with psycopg.connect(database.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute("CREATE TABLE diary (day text)")
        with pytest.raises(RegistryError, match="not a registry"):
            Registry.open(database)
        connection.execute("DROP TABLE diary")
        with pytest.raises(RegistryError, match="no registry to read"):
            Registry.open(database, read_only=True)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert connection.execute(tables).fetchone() == (0,)
        Registry.open(database).register("tiny")
        reader = Registry.open(database, read_only=True)
        assert reader.get("tiny@1").number == 1
        with pytest.raises(RegistryError, match="read only"):
            reader.register("other")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryError, match="later tinker_officer"):
        Registry.open(database)
    with pytest.raises(RegistryError, match=r"(?s)cannot be reached.*got:.*need:.*fix:") as error:
        Registry.open("postgresql://ada:secret@127.0.0.1:9/models", timeout_s=2)
    assert "secret" not in str(error.value)


WRITER = """
import os, sys, time
from tinker_officer.errors import RegistryError
from tinker_officer.registry.registry import Registry
where, name, count, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

def insist(call):
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            return call()
        except RegistryError as error:
            if "cannot be reached" not in str(error):
                raise
            time.sleep(0.05)
    raise SystemExit("gave up")

registry = insist(lambda: Registry.open(where))
for number in range(count):
    if os.path.exists(stop):
        break
    version = insist(lambda: registry.register(f"{name}-{number}", name="shared"))
    key = f"{name}-{number}"
    move = insist(lambda: registry.promote(version, to="staging", actor=name, key=key))
    print(version.id, move.seq, flush=True)
"""


def writers(where, count, *, each, told, stop=""):
    """Start `count` writers of at most `each` versions, who tell of each in a file of their own in `told`."""
    processes = []
    for n in range(count):
        command = [sys.executable, "-c", WRITER, where, f"w{n}", str(each), str(stop)]
        with (told / f"told-{n}").open("wb") as file:
            processes.append(subprocess.Popen(command, stdout=file))
    return processes


def check(where, processes, told):
    """Wait for the writers, hold what they were promised against what is there; return how much it was."""
    for process in processes:
        process.wait(timeout=300)
    lines = [line for n in range(len(processes)) for line in (told / f"told-{n}").read_text().splitlines()]
    assert [one.returncode for one in processes] == [0] * len(processes)
    registry = Registry.open(where)
    versions = registry.versions("shared")
    moves = {move.seq: move for move in registry.history("shared")}
    for line in lines:
        version, seq = line.split()
        assert moves[int(seq)].version == version
    assert sorted(one.number for one in versions) == list(range(1, len(lines) + 1))
    assert len(moves) == len(lines)
    assert registry.verify().entries == 2 * len(lines)
    return len(lines)


def test_processes_that_start_at_once_make_one_registry_and_lose_nothing(database, tmp_path):
    """All meet an empty database: one makes the tables, and every version is numbered without a gap."""
    assert check(database, writers(database, 4, each=5, told=tmp_path), tmp_path) == 20


@pytest.mark.soak
def test_twenty_restarts_under_load_lose_no_acknowledged_event(database, server, tmp_path):
    """The server dies (immediate shutdown) and comes back twenty times; keys make every retry safe."""
    stop = tmp_path / "stop"
    processes = writers(database, 8, each=10_000, told=tmp_path, stop=stop)
    try:
        for _ in range(20):
            time.sleep(1.0)
            server.restart()
            assert [process.poll() for process in processes] == [None] * 8, "a writer gave up"
    finally:
        stop.touch()
    total = check(database, processes, tmp_path)
    print(json.dumps({"restarts": 20, "acknowledged": total, "lost": 0}))
    assert total
