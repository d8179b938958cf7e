"""Give freed memory back to the system.

glibc keeps what a thread freed, up to 32 MiB a block, for the thread's next request. Training frees hundreds
of such blocks and then sampling wants others, so between the two the process would hold the memory of both;
and reading a tokenizer leaves some 30 MB behind.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache


_last_s = 0.0


def release(*, every_s: float = 0.0) -> None:
    """Give back what was freed; some milliseconds, and nothing where the C library is not glibc.

    Args:
        every_s: not again before so many seconds have passed.
    """
    global _last_s  # noqa: PLW0603 - the process has one heap
    if time.monotonic() - _last_s < every_s:
        return
    if trim := _malloc_trim():
        trim(0)
    _last_s = time.monotonic()


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no C library to open by that name: musl, macOS, Windows
        return None
    return found
