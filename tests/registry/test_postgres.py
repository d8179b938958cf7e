"""The registry in PostgreSQL: the same answers, the same refusals, the same safety among processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
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

GOOD, FAIR, BAD = [1] * 900 + [0] * 100, [1, 0] * 500, [0] * 900 + [1] * 100


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


def test_the_main_job_runs_in_postgres_as_in_sqlite(database, tmp_path, card, binary):
    """Register, refuse, promote, roll back, search, verify: then moved to SQLite and back, hash for hash."""
    with Registry.open(database) as registry:
        fair, bad, good = (
            registry.register(target, card(binary(scores), target=target), name="tickets")
            for target, scores in (("fair", FAIR), ("bad", BAD), ("good", GOOD))
        )
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
import sys, time
from tinker_officer.errors import RegistryError
from tinker_officer.registry.registry import Registry
where, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

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
    version = insist(lambda: registry.register(f"{name}-{number}", name="shared"))
    key = f"{name}-{number}"
    move = insist(lambda: registry.promote(version, to="staging", actor=name, key=key))
    print(version.id, move.seq, flush=True)
"""


def writers(where, count, *, each):
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, where, f"w{n}", str(each)], stdout=subprocess.PIPE, text=True
        )
        for n in range(count)
    ]


def check(where, processes, each):
    lines = [line for one in processes for line in one.communicate(timeout=300)[0].splitlines()]
    assert [one.returncode for one in processes] == [0] * len(processes)
    registry = Registry.open(where)
    versions = registry.versions("shared")
    moves = {move.seq: move for move in registry.history("shared")}
    assert len(lines) == len(processes) * each
    for line in lines:
        version, seq = line.split()
        assert moves[int(seq)].version == version
    assert sorted(one.number for one in versions) == list(range(1, len(lines) + 1))
    assert len(moves) == len(lines)
    assert registry.verify().entries == 2 * len(lines)
    return len(lines)


def test_processes_that_start_at_once_make_one_registry_and_lose_nothing(database):
    """All meet an empty database: one makes the tables, and every version is numbered without a gap."""
    assert check(database, writers(database, 4, each=5), 5) == 20


@pytest.mark.soak
def test_twenty_restarts_under_load_lose_no_acknowledged_event(database, server):
    """The server dies (immediate shutdown) and comes back twenty times; keys make every retry safe."""
    processes = writers(database, 8, each=60)
    restarts = 0

    def restart():
        nonlocal restarts
        while restarts < 20:
            time.sleep(1.0)
            server.restart()
            restarts += 1

    thread = threading.Thread(target=restart)
    thread.start()
    thread.join()
    still = sum(process.poll() is None for process in processes)
    total = check(database, processes, 60)
    print(json.dumps({"restarts": restarts, "acknowledged": total, "lost": 0, "writers still busy": still}))
