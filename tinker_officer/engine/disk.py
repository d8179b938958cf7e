"""What the store asks of the file system: to swap two folders in one step, and a lock that death releases."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import time
import uuid
from pathlib import Path

from tinker_officer._files import lock


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_TRIES = 100


def exchange(one: Path, other: Path) -> None:
    """Swap `one` and `other`, both there, on the same file system.

    On Linux in one step (`renameat2`), so that a crash leaves the one or the other. Elsewhere in three
    renames: a crash between them leaves both whole, but `other` under a temporary name.

    Raises:
        OSError: a rename failed.
    """
    if sys.platform == "linux" and _exchange_at_once(one, other):
        return
    aside = one.with_name(uuid.uuid4().hex)
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def _exchange_at_once(one: Path, other: Path) -> bool:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    done = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(done == 0)


class Lock:
    """An exclusive lock on the file `path`, held until `release` or the end of this process.

    Raises:
        OSError: the file cannot be made, or the file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for _ in range(_TRIES):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if lock(self._handle) and path.exists():
                return
            os.close(self._handle)  # another process is sweeping just now
            time.sleep(0.01)
        raise OSError(errno.ENOLCK, "the file system gives no locks", str(path))

    def release(self) -> None:
        """Give the lock up and remove its file."""
        os.close(self._handle)
        self.path.unlink(missing_ok=True)


def sweep(scratch: Path) -> None:
    """Remove the folders in `scratch` whose lock, `<folder>.lock`, nobody holds any more."""
    for path in scratch.glob("*.lock"):
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            continue  # its owner has just removed it
        try:
            if lock(handle):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)
