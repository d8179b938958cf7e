"""The journal keeps what it acknowledged, and nothing that it did not."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_officer._journal import Journal
from tinker_officer.errors import OfficerError


def test_records_come_back_in_order(tmp_path: Path) -> None:
    """What was appended is read again, oldest first, by any journal on the same file."""
    journal = Journal(tmp_path / "deep" / "j.jsonl")
    for step in range(3):
        journal.append({"step": step, "text": "Zürich\n"}, sync=True)
    assert list(Journal(journal.path)) == [{"step": step, "text": "Zürich\n"} for step in range(3)]


def test_a_missing_file_is_an_empty_journal(tmp_path: Path) -> None:
    """Reading before the first append yields nothing and makes no file."""
    assert list(Journal(tmp_path / "j.jsonl")) == []
    assert not (tmp_path / "j.jsonl").exists()


@given(cut=st.integers(min_value=0, max_value=60), tail=st.sampled_from([0, 70_000]))
def test_a_torn_tail_loses_only_the_torn_record(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: int
) -> None:
    """Cut anywhere in its last record, the file yields all the others, and takes new ones after them."""
    path = tmp_path_factory.mktemp("j") / "j.jsonl"
    first = Journal(path)
    first.append({"step": 0})
    whole = path.read_bytes()
    first.append({"step": 1, "text": "x" * (40 + tail)})
    torn = path.read_bytes()
    path.write_bytes(torn[: len(whole) + min(cut + tail, len(torn) - len(whole) - 1)])
    again = Journal(path)
    assert list(again) == [{"step": 0}]
    again.append({"step": 2})
    assert list(again) == [{"step": 0}, {"step": 2}]


def test_damage_before_the_last_line_is_named(tmp_path: Path) -> None:
    """An unreadable line in the middle is an error with its number, never skipped in silence."""
    path = tmp_path / "j.jsonl"
    path.write_text('{"step":0}\n{"ste\n{"step":2}\n')
    with pytest.raises(OfficerError, match=r"j\.jsonl is damaged at line 2"):
        list(Journal(path))


def test_a_full_disk_leaves_only_whole_records(tmp_path: Path) -> None:
    """When the disk refuses more bytes, the error is raised and the file still ends in a whole record."""
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"step": 0})
    size = journal.path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append({"step": 1, "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.path.stat().st_size == size
    journal.append({"step": 1})
    assert list(journal) == [{"step": 0}, {"step": 1}]
