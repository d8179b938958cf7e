"""Run a coroutine from synchronous code, also where an event loop already runs (a notebook)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from functools import cache
from typing import Any, TypeVar


T = TypeVar("T")
_LOOK_S = 0.2  # a signal that another thread took is seen by the main one when it next wakes


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="tinker-officer", daemon=True).start()
    return loop


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, run on one background loop; KeyboardInterrupt cancels it.

    Never call it from a coroutine that runs on that same loop: it would wait for itself.
    """
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        while not wait([future], _LOOK_S).done:
            pass
        return future.result()
    except BaseException:
        future.cancel()
        raise
