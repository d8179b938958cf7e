"""A full disk, or a folder that cannot be written, said in four parts."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from tinker_officer._text import count
from tinker_officer.errors import OfficerError


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@contextlib.contextmanager
def writing(what: str, folder: Path, *, error: type[OfficerError], fix: str) -> Iterator[None]:
    """Turn the operating system's refusal to write `what` into `folder` into our `error`.

    Only a full disk, a used-up quota and a folder that may not be written, or is none, are turned; any other
    `OSError` passes as it is. Who writes is who removes what is half-written.

    Args:
        what: what was being written, for people.
        folder: where.
        error: the room's error.
        fix: what else can be done, as code or a command to paste.
    """
    try:
        yield
    except OSError as caught:
        if caught.errno in _NO_ROOM:
            problem, need = f"the disk is full: {what} could not be written", "more free space there"
        elif caught.errno in _NOT_ALLOWED:
            problem, need = f"{what} may not be written", "a folder that can be written"
        else:
            raise
        raise error(
            problem, got=f"{caught.strerror} in {folder}{_free(folder)}", need=need, fix=fix
        ) from caught


def _free(folder: Path) -> str:
    try:
        return f", {count(shutil.disk_usage(folder).free)} bytes free"
    except OSError:
        return ""
