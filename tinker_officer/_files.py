"""Where our own files live, and how one is replaced without ever being half-written."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the folder for caches and the engine's store.

    `$TINKER_OFFICER_HOME` when it is set, else `~/.cache/tinker_officer`.
    """
    named = os.environ.get("TINKER_OFFICER_HOME")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinker_officer"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` with `content`: written beside it, fsynced, renamed.

    After a crash or a full disk the old file is intact and no temporary one is taken for it.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in `folder` durable, where the platform can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock(handle: int) -> bool:
    """Take an open file's lock without waiting; return whether it was free.

    It is the kernel's: it goes with the process, however that ends, and never turns stale.
    """
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # Windows
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
