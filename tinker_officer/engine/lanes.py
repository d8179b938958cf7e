"""Two pieces of work at once, each on half of the threads; knows nothing of what they compute.

Threads that share a product wait for each other after it, and what lies between two products is mostly done
by one of them. Two products beside each other wait for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch


T = TypeVar("T")


def lanes() -> int:
    """Return how many pieces of work the threads of this process can do side by side: 1 or 2."""
    return 1 if torch.get_num_threads() % 2 else 2


def side_by_side(first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Do both at once, the second in a thread of its own, and return what they return.

    Which threads compute what never depends on a timing. Afterwards this thread has all of them again.

    Raises:
        Exception: what one of them raised, the first one's if both did, once both have ended.
    """
    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    torch.set_num_threads(half)
    try:
        beside = _thread().submit(_with_threads, half, second)
        try:
            one = first()
        finally:
            beside.exception()  # waits
        return one, beside.result()
    finally:
        torch.set_num_threads(threads)


def _with_threads(count: int, work: Callable[[], T]) -> T:
    torch.get_num_threads()  # at its first question a thread takes the process's number; then it has its own
    torch.set_num_threads(count)
    return work()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="compute-beside")
