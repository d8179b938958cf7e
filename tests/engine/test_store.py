"""Checkpoints on disk: whole or not there, checked when read, gone when their time is over."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from tinker_officer.engine import disk
from tinker_officer.engine.records import Meta, Run, TinkerPath, now
from tinker_officer.engine.refusal import Refused
from tinker_officer.engine.store import Store
from tinker_officer.errors import EngineError


PATH = TinkerPath("abc-1:train:0", "weights", "step-1")
FILES = {"adapter_model.safetensors": b"weights" * 1000, "optimizer.safetensors": b"moments" * 500}
META = Meta(str(PATH), "some/model", {"rank": 4}, now(), 3, {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


@contextlib.contextmanager
def files_no_longer_than(size_bytes: int) -> Iterator[None]:
    """As on a disk that is nearly full: no file of this process, or of one that it starts, grows beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_is_read(store: Store) -> None:
    """A checkpoint comes back with its record and its files, as they were saved."""
    meta = store.save(PATH, FILES, attrs.evolve(META, user_metadata={"a": "b"}), overwrite=False)
    assert store.read(PATH) == (meta, FILES)
    assert meta.size_bytes == sum(map(len, FILES.values()))
    assert (meta.steps, meta.user_metadata) == (3, {"a": "b"})


def test_a_path_round_trips() -> None:
    """A tinker:// path parses to its parts and back."""
    assert TinkerPath.parse(str(PATH)) == PATH
    assert str(PATH) == "tinker://abc-1:train:0/weights/step-1"


@pytest.mark.parametrize(
    "text",
    [
        "tinker://abc:train:0/weights/../x",
        "tinker://abc:train:0/weights/..",
        "tinker://../weights/x",
        "tinker://abc:train:0/elsewhere/x",
        "tinker://abc:train:0/weights/x/y",
        "tinker://abc/weights/x",
        "file:///etc/passwd",
        "tinker://abc:train:0/weights/x\n",
        "tinker://abc:train:٣/weights/x",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(text: str) -> None:
    """No path but one of the pattern is taken."""
    with pytest.raises(Refused, match=r"not the (path|name) of a checkpoint"):
        TinkerPath.parse(text)


def test_a_taken_name_is_kept_unless_overwritten(store: Store) -> None:
    """Without overwrite the old checkpoint stays; with it the new one is there, and nothing is left over."""
    store.save(PATH, FILES, META, overwrite=False)
    with pytest.raises(EngineError, match="of this name exists"):
        store.save(PATH, {"other": b"x"}, META, overwrite=False)
    assert store.read(PATH)[1] == FILES
    store.save(PATH, {"other": b"x"}, META, overwrite=True)
    assert store.read(PATH)[1] == {"other": b"x"}
    assert list(store.scratch.iterdir()) == []


def test_overwriting_works_without_renameat2(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two folders cannot be swapped at once, three renames do it."""
    monkeypatch.setattr(disk.sys, "platform", "darwin")
    store.save(PATH, FILES, META, overwrite=False)
    store.save(PATH, {"other": b"x"}, META, overwrite=True)
    assert store.read(PATH)[1] == {"other": b"x"}
    assert [path.name for path in (store.root / "runs" / "abc-1+train+0" / "weights").iterdir()] == ["step-1"]


def test_a_full_disk_keeps_the_old_checkpoint(store: Store) -> None:
    """When the disk is full the error names it, the old checkpoint is whole and the new one is not there."""
    store.save(PATH, FILES, META, overwrite=False)
    other = attrs.evolve(PATH, name="step-2")
    with files_no_longer_than(2048):
        for path in (PATH, other):
            with pytest.raises(EngineError, match="the disk is full") as caught:
                store.save(path, {"big": b"0" * 5000}, META, overwrite=True)
            assert str(store.root) in str(caught.value.got)
    assert store.read(PATH)[1] == FILES
    assert [meta.path for meta in store.checkpoints(PATH.run)] == [str(PATH)]
    assert list(store.scratch.iterdir()) == []


def test_a_full_disk_fails_one_request_of_the_engine(tmp_path: Path, tiny_model: Path) -> None:
    """Over the SDK: saving on a full disk fails with a message, training goes on, the saved one loads."""
    import tinker

    from tinker_officer import LocalEngine

    with files_no_longer_than(400_000):
        engine = LocalEngine(root=tmp_path / "engine").start()
    try:
        service = engine.service_client()
        small = service.create_lora_training_client(str(tiny_model), rank=1).result()
        path = small.save_state("fits").result().path
        large = service.create_lora_training_client(str(tiny_model), rank=256).result()
        with pytest.raises(tinker.RequestFailedError, match="the disk is full"):
            large.save_state("does-not").result()
        rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.token)
        assert rest.list_checkpoints(large.model_id).result().checkpoints == []
        assert service.create_training_client_from_state_with_optimizer(path).result().model_id
    finally:
        engine.stop()


def test_killed_at_any_moment_a_whole_checkpoint_is_there(tmp_path: Path) -> None:
    """A writer that is killed while it overwrites leaves the one or the other, each time whole."""
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tinker_officer.engine.records import Meta, TinkerPath, now
        from tinker_officer.engine.store import Store
        store, path = Store(Path(sys.argv[1])), TinkerPath("abc-1:train:0", "weights", "step-1")
        number = 0
        while True:
            number += 1
            files = {name: str(number).encode() * 50_000 for name in ("one", "two")}
            store.save(path, files, Meta(str(path), "m", {}, now(), number, {}), overwrite=True)
            print(number, flush=True)
        """
    )
    chance = random.Random(0)
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "1\n"
        time.sleep(chance.uniform(0.0, 0.05))
        writer.kill()
        said = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        store = Store(tmp_path)
        meta, files = store.read(PATH)
        assert int(said[-1] if said else 1) <= meta.steps <= int(said[-1] if said else 1) + 1
        assert files == {name: str(meta.steps).encode() * 50_000 for name in ("one", "two")}
        assert [path.name for path in (tmp_path / "scratch").iterdir() if path.is_dir()] == [
            store.scratch.name
        ]
        store.close()


@pytest.mark.parametrize("name", [*FILES, "meta.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_is_found(store: Store, name: str, harm: str) -> None:
    """A file that was changed, cut short or removed is found when the checkpoint is read, and named."""
    store.save(PATH, FILES, META, overwrite=False)
    file = store.root / "runs" / "abc-1+train+0" / "weights" / "step-1" / name
    data = bytearray(file.read_bytes())
    if harm == "flip":
        position = data.index(b"some/model") if name == "meta.json" else len(data) // 2
        data[position] ^= 1
        file.write_bytes(data)
    elif harm == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        file.unlink()
    problem = "no such checkpoint" if (name, harm) == ("meta.json", "remove") else "damaged"
    with pytest.raises(EngineError, match=problem) as caught:
        store.read(PATH)
    assert problem != "damaged" or name in str(caught.value)


def test_a_damaged_one_can_be_deleted_and_hides_no_other(store: Store) -> None:
    """A damaged checkpoint is left out of lists, and can be deleted."""
    good = attrs.evolve(PATH, name="good")
    for path in (PATH, good):
        store.save(path, FILES, attrs.evolve(META, path=str(path)), overwrite=False)
    (store.root / "runs" / "abc-1+train+0" / "weights" / "step-1" / "meta.json").write_text("{")
    assert [meta.path for meta in store.checkpoints(PATH.run)] == [str(good)]
    store.delete(PATH)
    with pytest.raises(Refused, match="no such checkpoint"):
        store.delete(PATH)


def test_time_to_live_ends(store: Store) -> None:
    """An expired checkpoint is not there for anyone, and housekeeping deletes it and no other."""
    store.begin_run(Run(PATH.run, "m", {}, now(), "s"))
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    lasting = attrs.evolve(PATH, name="lasting")
    store.save(PATH, FILES, attrs.evolve(META, expires=past), overwrite=False)
    store.save(lasting, FILES, attrs.evolve(META, path=str(lasting), expires=ahead), overwrite=False)
    with pytest.raises(Refused, match="no such checkpoint"):
        store.read(PATH)
    assert store.remove_expired() == 1
    assert [meta.path for meta in store.checkpoints(PATH.run)] == [str(lasting)]


def test_a_record_is_amended(store: Store) -> None:
    """Publishing changes the record and not the files."""
    store.save(PATH, FILES, META, overwrite=False)
    store.amend(PATH, public=True)
    meta, files = store.read(PATH)
    assert (meta.public, files) == (True, FILES)


def test_runs_are_listed_newest_first_and_strangers_passed_over(store: Store) -> None:
    """Runs come newest first; folders that are none, and records that are damaged, are passed over."""
    for number in range(3):
        store.begin_run(
            Run(f"abc:train:{number}", "m", {"rank": 1}, f"2026-01-0{number + 1}", "s", {"n": number})
        )
    (store.root / "runs" / "stranger").mkdir()
    (store.root / "runs" / "abc+train+1" / "run.json").write_text(json.dumps({"id": 3}))
    assert [run.id for run in store.runs()] == ["abc:train:2", "abc:train:0"]
    with pytest.raises(Refused, match="no such training run"):
        store.run("../..")


def test_a_checkpoint_that_is_missing_names_its_neighbours(store: Store) -> None:
    """The error for a wrong name offers the nearest ones."""
    store.save(PATH, FILES, META, overwrite=False)
    with pytest.raises(Refused, match="'step-1'"):
        store.meta(attrs.evolve(PATH, name="step-11"))


def test_scratch_is_swept_when_its_owner_is_gone_and_only_then(store: Store, tmp_path: Path) -> None:
    """A second store removes what a dead one left, not what a living one holds."""
    dead = tmp_path / "scratch" / "dead"
    dead.mkdir()
    dead.with_suffix(".lock").touch()
    (store.scratch / "draft").touch()
    other = Store(tmp_path)
    assert not dead.exists()
    assert (store.scratch / "draft").exists()
    other.close()


def test_a_record_is_amended_by_many_at_once(store: Store) -> None:
    """Publishing and giving time at the same moment: both changes are there, and the record is whole."""
    store.save(PATH, FILES, META, overwrite=False)
    later = "2999-01-01T00:00:00+00:00"

    def change(number: int) -> None:
        store.amend(PATH, **({"public": True} if number % 2 else {"expires": later}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(100)))
    meta = store.meta(PATH)
    assert (meta.public, meta.expires) == (True, later)


def test_what_is_overwritten_is_read_as_one_of_the_two(store: Store) -> None:
    """Reading while a checkpoint is overwritten gives the old or the new one, never a damaged mixture."""
    store.save(PATH, FILES, META, overwrite=False)
    name = next(iter(FILES))
    over = threading.Event()

    def overwrite() -> None:
        try:
            for number in range(100):
                store.save(PATH, {name: b"%d" % number * 1000}, META, overwrite=True)
        finally:
            over.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(overwrite)
        while not over.is_set():
            _, files = store.read(PATH)
            assert set(files) in ({name}, set(FILES))
        writing.result()


def test_engines_that_start_together_sweep_none_of_each_other(tmp_path: Path) -> None:
    """A store that is being opened while others sweep keeps its scratch folder and its lock."""
    together = threading.Barrier(8)

    def live(_: int) -> None:
        for _ in range(20):
            together.wait()
            own = Store(tmp_path)
            together.wait()
            assert own.scratch.is_dir()
            assert own.scratch.with_suffix(".lock").exists()
            together.wait()
            own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(8), timeout=60))
    assert list((tmp_path / "scratch").iterdir()) == []
