"""A run's folder: one owner, one spec, files that survive a torn tail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinker_officer import RunResult
from tinker_officer.errors import RunError
from tinker_officer.train.failing import explained
from tinker_officer.train.folder import RunFolder, differences, merged


def test_a_changed_spec_is_refused_with_the_difference_named(tmp_path: Path) -> None:
    """The message names each field that differs, old and new, and nothing is overwritten."""
    folder = RunFolder(tmp_path)
    folder.claim({"run": {"rank": 16, "name": "a", "pipeline": {"depth": 1}}}, ignoring=("run.pipeline",))
    folder.claim({"run": {"rank": 16, "name": "a", "pipeline": {"depth": 9}}}, ignoring=("run.pipeline",))
    before = folder.spec_path.read_bytes()
    with pytest.raises(RunError) as caught:
        folder.claim({"run": {"rank": 32, "name": "a", "pipeline": {"depth": 1}}}, ignoring=("run.pipeline",))
    assert "run.rank: 16 -> 32" in caught.value.got
    assert "name" not in caught.value.got
    assert folder.spec_path.read_bytes() == before


def test_differences_name_every_kind_of_change() -> None:
    """Changed, added and removed leaves are named, also within lists; equal ones are not."""
    known = {"a": 1, "b": [1, {"c": 2}], "gone": True, "same": None, "flag": True}
    wanted = {"a": 2, "b": [1, {"c": 3}], "new": 1.5, "same": None, "flag": 1}
    assert list(differences(known, wanted)) == [
        "a: 1 -> 2",
        "b[1].c: 2 -> 3",
        "gone: true -> (absent)",
        "flag: true -> 1",
        "new: (absent) -> 1.5",
    ]


def test_a_second_owner_is_refused_and_a_dead_one_is_not_missed(tmp_path: Path) -> None:
    """While one process holds the folder another is refused; a killed holder leaves nothing behind."""
    code = (
        "import sys, time; from pathlib import Path; from tinker_officer.train.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).owned(): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="the run folder is in use"), RunFolder(tmp_path).owned():
            pass
        holder.kill()
        holder.wait()
        with RunFolder(tmp_path).owned():
            pass


def test_a_folder_that_lost_its_spec_is_refused(tmp_path: Path) -> None:
    """Metrics without a spec may be anybody's: they are not written over."""
    (tmp_path / "metrics.jsonl").write_text('{"step":1}\n')
    with pytest.raises(RunError, match="lost its spec"):
        RunFolder(tmp_path).claim({"run": {}}, ignoring=("run.pipeline",))


@pytest.mark.parametrize("content", ["{}", '{"run": {}}'])
def test_the_spec_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    """A folder whose spec.json is of another program is no run's, to a start and to a reader."""
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(RunError, match="belongs to another run"):
        RunFolder(tmp_path).claim({"run": {"name": "a"}}, ignoring=("run.pipeline",))
    with pytest.raises(RunError, match=r"has no spec\.json of a run"):
        RunResult.open(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x00"])
def test_a_damaged_spec_is_refused(tmp_path: Path, content: str) -> None:
    """A spec that is cut off or not an object is an error in four parts."""
    (tmp_path / "spec.json").write_text(content)
    with pytest.raises(RunError, match=r"spec\.json is not a run's spec"):
        RunFolder(tmp_path).claim({"run": {}}, ignoring=("run.pipeline",))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """`at=` a file, or below one, is an error in four parts."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="the run folder cannot be made"), RunFolder(path).owned():
            pass


def test_a_full_disk_leaves_a_fresh_folder_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the spec the start is refused in four parts, and a later one may claim the folder."""

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spec = {"run": {}, "data": {}, "identity": {}}
    folder = RunFolder(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left on device"):
            folder.claim(spec, ignoring=("run.pipeline",))
    assert list(tmp_path.iterdir()) == []
    folder.claim(spec, ignoring=("run.pipeline",))
    assert folder.read_spec() == spec


def test_only_a_file_of_the_run_folder_is_said_to_be_one(tmp_path: Path) -> None:
    """A full disk is the folder's trouble; a file elsewhere that is gone keeps its own error, with a note."""
    folder = RunFolder(tmp_path)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    inside = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "metrics.jsonl"))
    for error in (full, inside):
        assert isinstance(explained(error, name="a", step=3, folder=folder), RunError)
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/tickets.jsonl")
    assert explained(gone, name="a", step=3, folder=folder) is gone
    assert "while step 4 of run 'a'" in gone.__notes__[0]


def test_rolling_back_drops_later_steps_and_a_torn_tail(tmp_path: Path) -> None:
    """Records after the step go, attempts and earlier steps stay, and a torn last line stops nothing."""
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step":1}\n{"step":2}\n{"step":3}\n{"st')
    (tmp_path / "ledger.jsonl").write_text('{"attempt":1,"resumed_at":0}\n{"step":1,"rows":[0]}\n{"step":2')
    folder.roll_back(2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step":1}\n{"step":2}\n'
    assert (tmp_path / "ledger.jsonl").read_text() == (
        '{"attempt":1,"resumed_at":0}\n{"step":1,"rows":[0]}\n'
    )


def test_history_merges_records_of_a_step() -> None:
    """A step's training and evaluation records become one, ascending by step."""
    records = [{"step": 2, "a": 1}, {"step": 1, "a": 3}, {"step": 2, "b": 2}]
    assert merged(records) == [{"step": 1, "a": 3}, {"step": 2, "a": 1, "b": 2}]
