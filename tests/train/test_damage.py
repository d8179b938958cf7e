"""A disk that fills or fails at a write of the run folder, and checkpoints that are damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tinker_officer import LocalEngine, Run, RunResult
from tinker_officer.errors import RunError


Digests = Callable[[str], dict[str, str]]


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Run]) -> Run:
    """Eight steps, with checkpoints at 3, 6 and 8."""
    return make_run(count=16, epochs=2).checkpoint(every=3)


@pytest.fixture(scope="module")
def whole(run: Run, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The result of the run, undisturbed."""
    return run.run(on=engine, at=tmp_path_factory.mktemp("whole") / "run", progress=False)


class Disk:
    """Counts what is written in a folder, and fails at one of the calls, as a disk does."""

    def __init__(self, folder: Path, code: int, fails_at: int) -> None:
        self.folder, self.code, self.fails_at, self.calls = str(folder), code, fails_at, 0

    def touch(self, path: str) -> None:
        """Count a call on `path`; fail at the one that is to fail."""
        if path.startswith(self.folder):
            self.calls += 1
            if self.calls == self.fails_at:
                raise OSError(self.code, os.strerror(self.code))

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Stand below os.write, os.fsync and renaming."""
        write, fsync, replace = os.write, os.fsync, os.replace

        def named(handle: int) -> str:
            return str(Path(f"/proc/self/fd/{handle}").readlink())

        def counted_write(handle: int, data: bytes) -> int:
            self.touch(named(handle))
            return write(handle, data)

        def counted_fsync(handle: int) -> None:
            self.touch(named(handle))
            fsync(handle)

        def counted_replace(source: Any, target: Any) -> None:
            self.touch(os.fspath(target))
            replace(source, target)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", counted_write)
            patch.setattr(os, "fsync", counted_fsync)
            patch.setattr(os, "replace", counted_replace)
            yield


def writes(run: Run, engine: LocalEngine, folder: Path) -> int:
    """Return how many calls a whole run makes."""
    disk = Disk(folder, errno.EIO, 0)
    with disk.mounted():
        run.run(on=engine, at=folder, progress=False)
    return disk.calls


def fails_and_goes_on(
    run: Run, whole: RunResult, engine: LocalEngine, digests: Digests, folder: Path, code: int, call: int
) -> None:
    """Fail at one call: an error in four parts; then go on to the same bits and order."""
    with Disk(folder, code, call).mounted(), pytest.raises(RunError) as caught:
        run.run(on=engine, at=folder, progress=False)
    assert os.strerror(code) in caught.value.got
    assert "written" in str(caught.value)
    result = run.run(on=engine, at=folder, progress=False)
    assert digests(result.final.state_path) == digests(whole.final.state_path)
    ledger = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert [one["step"] for one in ledger if "step" in one] == list(range(1, 9))


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_a_write_stops_the_run_resumably(
    code: int, run: Run, whole: RunResult, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """Full or broken at the first, the last or between: it says so, and goes on to the same bits."""
    total = writes(run, engine, tmp_path / "count")
    assert total > 30
    for call in (1, total // 4, total // 2, total - 5, total):
        fails_and_goes_on(run, whole, engine, digests, tmp_path / f"call-{call}", code, call)


@pytest.mark.soak
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_write_stops_the_run_resumably(
    code: int, run: Run, whole: RunResult, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """Each write, fsync and rename of a run in turn, the disk full or broken there."""
    for call in range(1, writes(run, engine, tmp_path / "count") + 1):
        fails_and_goes_on(run, whole, engine, digests, tmp_path / f"call-{call}", code, call)


def flip(data: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda _data: b"",
    "flipped": flip,
}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(
    run: Run, whole: RunResult, engine: LocalEngine, digests: Digests, tmp_path: Path
) -> None:
    """Each file of the newest checkpoint, cut off, emptied or with one bit flipped: the run ends the same."""
    tokens = sum(record["train/total_tokens"] for record in whole.history()[:7])
    newest = run.budget(tokens=tokens).run(on=engine, at=tmp_path / "run", progress=False).last
    assert newest.step == 7
    name, kind, save = newest.state_path.removeprefix("tinker://").split("/")
    files = sorted((engine.root / "runs" / name.replace(":", "+") / kind / save).iterdir())
    assert len(files) >= 3
    for file in files:
        good = file.read_bytes()
        for damage, change in DAMAGE.items():
            folder = tmp_path / f"{file.name}-{damage}"
            shutil.copytree(tmp_path / "run", folder)
            file.write_bytes(change(good))
            try:
                result = run.run(on=engine, at=folder, progress=False)
            finally:
                file.write_bytes(good)
            assert digests(result.final.state_path) == digests(whole.final.state_path)
            records = [json.loads(line) for line in (folder / "checkpoints.jsonl").read_text().splitlines()]
            gone = [one["withdrawn"] for one in records if one.get("reason", "").startswith("rejected")]
            assert gone == [newest.state_path], f"{file.name} {damage}"
