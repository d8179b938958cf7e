"""A lock file that its owner's death releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self


fcntl: Any
try:
    import fcntl
except ImportError:  # not POSIX: nothing tells whether an owner lives, so nothing is taken for abandoned
    fcntl = None


class Lock:
    """An exclusive lock on `path`, held until `release` or the end of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if fcntl is not None:
            fcntl.flock(self._handle, fcntl.LOCK_EX)

    def release(self) -> None:
        """Give the lock up and remove its file."""
        self.path.unlink(missing_ok=True)
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @staticmethod
    def abandoned(path: Path) -> bool:
        """Return whether `path` is a lock whose owner is gone."""
        if fcntl is None:
            return False
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(handle)
