"""The file: made once, ours or left untouched, and whole whatever happens."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tinker_officer.errors import RegistryError
from tinker_officer.registry import schema
from tinker_officer.registry.database import open_database
from tinker_officer.registry.migrations import config
from tinker_officer.registry.registry import Registry
from tinker_officer.registry.sqlite import SqliteDatabase, safe_in_wal


FOUR_PARTS = r"(?s)got:.*need:.*fix:"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fingerprint(path):
    return (
        hashlib.sha256(path.read_bytes()).hexdigest(),
        path.stat().st_mtime_ns,
        names(path.parent),
    )


def foreign(path, kind):
    if kind == "text":
        path.write_text("hello, I am a diary\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "torn":
        path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 84)
    else:
        with closing(sqlite3.connect(path)) as connection:
            if kind == "sqlite in WAL mode":
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE diary (day TEXT)")
            if kind == "ours by its mark alone":
                connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
            if kind == "later":
                connection.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
                connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
                connection.execute("INSERT INTO alembic_version VALUES ('9999')")
            connection.commit()


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("text", "not a registry"),
        ("empty", "an empty file"),
        ("torn", "not a registry"),
        ("sqlite", "another program"),
        ("sqlite in WAL mode", "another program"),
        ("ours by its mark alone", "damaged"),
        ("later", "later tinker_officer"),
    ],
)
def test_a_file_that_is_not_ours_is_left_untouched_byte_for_byte(tmp_path, kind, problem):
    """A stranger's file gives a four-part error; its bytes, its time and its folder stay as they were."""
    path = tmp_path / "models.db"
    foreign(path, kind)
    before = fingerprint(path)
    with pytest.raises(RegistryError, match=problem) as error:
        Registry.open(path)
    assert error.match(FOUR_PARTS)
    assert fingerprint(path) == before


@pytest.mark.parametrize("where", ["postgresql://db/models", ":memory:", "", "sqlite://", "."])
def test_what_names_no_sqlite_file_is_refused(where):
    """Another database, no file, a folder: each says what would do."""
    with pytest.raises(RegistryError, match=FOUR_PARTS):
        Registry.open(where)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """Where a file stands in the way of the folder, the error says so and leaves nothing behind."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(RegistryError, match="cannot be made"):
        Registry.open(tmp_path / "file" / "models.db")
    assert names(tmp_path) == ["file"]


def test_the_migrations_make_exactly_the_tables_of_the_schema(tmp_path):
    """The packaged revisions and the tables that the code speaks to do not drift apart."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    database = open_database(tmp_path / "models.db")
    with database.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    assert found == []
    revisions = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]
    assert tuple(reversed(revisions)) == schema.REVISIONS


@pytest.mark.parametrize("table", ["versions", "scorecards", "moves", "events"])
@pytest.mark.parametrize("change", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_no_row_can_be_changed_or_deleted(registry, card, binary, table, change):
    """Triggers refuse it, also for another program that opens the file."""
    version = registry.register("tiny", card(binary([1, 0])))
    registry.promote(version, to="staging", actor="ci")
    connection = sqlite3.connect(registry._database.path)
    with closing(connection), pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change.format(table))


def test_a_current_registry_opens_without_alembic(tmp_path):
    """Alembic, which takes longer to import than the registry to open, is only loaded to make a file."""
    path = tmp_path / "models.db"
    Registry.open(path)
    code = (
        "import sys\n"
        "from tinker_officer.registry.registry import Registry\n"
        f"Registry.open({str(path)!r})\n"
        "print('alembic' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.40.1", False), ("3.44.5", False), ("3.44.6", True), ("3.45.0", False), ("3.50.6", False),
        ("3.50.7", True), ("3.51.2", False), ("3.51.3", True), ("3.52.0", True), ("4.0.0", True),
    ],
)  # fmt: skip
def test_wal_mode_is_for_the_sqlites_that_were_mended(version, safe):
    """3.7.0 to 3.51.2 can corrupt a file in WAL mode, but for the two branches that were mended."""
    assert safe_in_wal(tuple(map(int, version.split(".")))) is safe


RELEASED = Path(__file__).parent / "released"


def released(path, revision):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((RELEASED / f"{revision}.sql").read_text("utf-8"))
    return path


@pytest.mark.parametrize("revision", schema.REVISIONS[:-1])
def test_a_registry_of_every_released_schema_is_brought_up_to_date_and_a_copy_kept(tmp_path, revision):
    """The record and its log stay as they were, search works, and the old file lies beside the new one."""
    path = released(tmp_path / "models.db", revision)
    with pytest.raises(RegistryError, match="older schema"):
        Registry.open(path, read_only=True)
    registry = Registry.open(path)
    assert registry.verify().entries == 7
    assert registry.current("production").label == "tickets@1"
    assert registry.search("evals.tickets.accuracy = 1")[0].label == "tickets@2"
    registry.promote("tickets@2", to="staging", actor="ci", key="k")
    backup = f"models.db.schema-{revision}.backup"
    assert names(tmp_path) == ["models.db", "models.db-journal", backup]
    with closing(sqlite3.connect(tmp_path / backup)) as old:
        assert old.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)
        assert old.execute("SELECT count(*) FROM events").fetchone() == (7,)
    with SqliteDatabase(path).read() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == schema.REVISIONS[-1]


def test_many_processes_that_meet_an_old_file_at_once_migrate_it_once(tmp_path):
    """All of them end with the new schema and an intact log; none sees it half-way."""
    path = released(tmp_path / "models.db", "0001")
    code = (
        "import sys; from tinker_officer.registry.registry import Registry\n"
        "registry = Registry.open(sys.argv[1]); registry.register('m' + sys.argv[2], name='m')"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    registry = Registry.open(path)
    assert registry.verify().entries == 11
    assert len(registry.search("name = 'm'")) == 4


def test_a_registry_that_was_put_in_wal_mode_is_taken_out_of_it(tmp_path):
    """Opening goes back to the rollback journal and loses nothing, or says who is in the way."""
    path = tmp_path / "models.db"
    Registry.open(path).register("tiny")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    registry = Registry.open(path)
    with registry._database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "persist"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 3
    assert registry.verify().entries == 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("SELECT count(*) FROM versions").fetchone()
        with pytest.raises(RegistryError, match="WAL mode"):
            Registry.open(path, timeout_s=0.1)


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    """What was written before an error in the same transaction is gone."""
    database = open_database(tmp_path / "models.db")
    row = {"seq": 1, "prev": "0", "hash": "1", "body": "{}"}

    def fail_half_way():
        with database.write() as connection:
            connection.execute(schema.events.insert().values(row))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.events)) == 0


def test_a_registry_that_another_process_holds_says_that_it_is_busy(tmp_path):
    """The wait for a lock is bounded, and its end is a four-part error."""
    path = tmp_path / "models.db"
    database = open_database(path)
    with database.write(), pytest.raises(RegistryError, match="busy"):
        Registry.open(path, timeout_s=0.1).register("tiny")


def test_a_full_disk_loses_only_the_change(registry, card, binary):
    """When the file cannot grow, the error says that nothing was recorded, and the chain still verifies."""
    first = registry.register("tiny", card(binary([1, 0])))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (registry._database.path.stat().st_size + 4096, hard))
    try:
        with pytest.raises(RegistryError, match="not recorded"):
            registry.register("big", card(binary([1, 0] * 50_000), target="big"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert registry.versions() == (first,)
    assert registry.verify().entries == 2
    assert registry.register("big", card(binary([1, 0]), target="big")).number == 1


def test_a_file_that_went_away_is_not_made_anew(tmp_path):
    """A registry deleted under a running process gives an error, not an empty registry."""
    registry = Registry.open(tmp_path / "models.db")
    (tmp_path / "models.db").unlink()
    with pytest.raises(RegistryError, match=FOUR_PARTS):
        registry.versions()
    assert not (tmp_path / "models.db").exists()


def test_a_file_cut_short_is_said_to_be_damaged(registry, card, binary):
    """Half a file is no registry: reading it is refused as damage."""
    registry.register("tiny", card(binary([1, 0] * 5000)))
    path = registry._database.path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RegistryError, match="damaged"):
        registry.scorecards("tiny@1")


WRITER = """
import sys
from tinker_officer.registry.registry import Registry
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
registry = Registry.open(path)
for number in range(count):
    version = registry.register(f"{name}-{number}", name="shared")
    registry.promote(version, to="staging", actor=name)
    print(version.id, flush=True)
"""


def writers(path, count, *, each):
    return [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"writer{number}", str(each)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def test_a_forked_process_writes_with_a_connection_of_its_own(tmp_path):
    """Parent and child each go on after a fork, at the same time; every version is there, the log whole."""
    path = tmp_path / "models.db"
    registry = Registry.open(path)
    registry.register("before", name="m")  # and now a connection is kept
    child = os.fork()
    if child == 0:
        try:
            for number in range(5):
                registry.register(f"child-{number}", name="m")
            registry.close()
        finally:
            os._exit(0)
    for number in range(5):
        registry.register(f"parent-{number}", name="m")
    os.waitpid(child, 0)
    assert [version.number for version in registry.versions("m")] == list(range(1, 12))
    assert registry.verify().entries == 11


def test_a_file_that_was_replaced_is_the_one_that_is_written_to(tmp_path):
    """After a backup was put back, moved or copied into place, a registry that was open goes on with it."""
    path, backup = tmp_path / "models.db", tmp_path / "backup.db"
    registry = Registry.open(path)
    registry.register("first", name="m")
    shutil.copyfile(path, backup)
    registry.register("lost", name="m")
    backup.replace(path)
    assert registry.register("second", name="m").number == 2
    shutil.copyfile(path, backup)
    registry.register("lost", name="m")
    shutil.copyfile(
        backup, path
    )  # into the very same file, whose change counter then comes to the same again
    Registry.open(path).register("third", name="m")
    registry.register("fourth", name="m")
    assert [one.base_model for one in registry.versions("m")] == ["first", "second", "third", "fourth"]
    assert registry.verify().entries == 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.skipif(safe_in_wal(sqlite3.sqlite_version_info), reason="this SQLite keeps WAL mode")
def test_an_open_registry_does_not_hold_a_file_in_wal_mode(tmp_path):
    """Put into WAL mode and written to, the file is still taken out of it by the next who opens it."""
    path = tmp_path / "models.db"
    registry = Registry.open(path)
    registry.register("first", name="m")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
        registry.register("second", name="m")
    assert len(Registry.open(path).versions("m")) == 2
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert registry.register("third", name="m").number == 3


def test_threads_share_a_registry(tmp_path):
    """Four threads register at once with one registry; all is there, and closing lets go of the file."""
    path = tmp_path / "models.db"
    with Registry.open(path) as registry, ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: registry.register(f"t-{number}", name="m"), range(16)))
        assert sorted(version.number for version in made) == list(range(1, 17))
    open_files = {os.path.realpath(one) for one in Path("/proc/self/fd").glob("*")}
    assert str(path.resolve()) not in open_files or not Path("/proc/self/fd").is_dir()


@pytest.mark.slow
def test_eight_processes_that_start_at_once_lose_nothing(tmp_path):
    """All make the same new file, register and promote: every version is there, numbered without a gap."""
    path = tmp_path / "models.db"
    processes = writers(path, 8, each=6)
    acknowledged = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0] * 8
    with Registry.open(path) as registry:
        versions = registry.versions("shared")
        assert sorted(version.id for version in versions) == sorted(acknowledged)
        assert [version.number for version in versions] == list(range(1, 49))
        assert registry.verify().entries == 96
        assert registry.current("staging").id == registry.history()[-1].version
    assert names(tmp_path) == ["models.db", "models.db-journal"]


@pytest.mark.slow
def test_killed_writers_lose_no_acknowledged_event_and_leave_a_whole_chain(tmp_path):
    """SIGKILL at any moment: what was acknowledged is there, and what is there verifies."""
    path = tmp_path / "models.db"
    Registry.open(path)
    acknowledged = []
    for round_ in range(3):
        processes = writers(path, 3, each=400)
        acknowledged += [process.stdout.readline().strip() for process in processes]  # all are at work
        time.sleep(0.2 + 0.17 * round_)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            whole = process.communicate(timeout=30)[0].rpartition("\n")[0]
            acknowledged += whole.split()
    with Registry.open(path) as registry:
        known = {version.id for version in registry.versions("shared")}
        assert acknowledged
        assert known >= set(acknowledged)
        assert registry.verify().entries >= len(set(acknowledged))
    with SqliteDatabase(path).read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
