"""Swap two folders in one step, where the system can."""

from __future__ import annotations

import ctypes
import os
import sys
import uuid
from pathlib import Path


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


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
