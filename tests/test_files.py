"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from tinker_officer._files import home, write_atomic


def test_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    """After two writes the folder holds one file with the second content."""
    write_atomic(tmp_path / "sub" / "spec.json", "old")
    write_atomic(tmp_path / "sub" / "spec.json", b"new")
    assert [(p.name, p.read_text()) for p in (tmp_path / "sub").iterdir()] == [("spec.json", "new")]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    """A write that the disk refuses raises, and leaves the old file and no temporary one."""
    path = tmp_path / "spec.json"
    write_atomic(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("spec.json", "old")]


def test_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TINKER_OFFICER_HOME wins, then XDG_CACHE_HOME, then ~/.cache."""
    monkeypatch.setenv("TINKER_OFFICER_HOME", str(tmp_path / "named"))
    assert home() == tmp_path / "named"
    monkeypatch.delenv("TINKER_OFFICER_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "tinker_officer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert home() == tmp_path / ".cache" / "tinker_officer"
