"""A time limit for one block of Python that works in any thread.

`inspect_evals/math` limits sympy with a signal, which only a main thread can have. Inspect runs in a thread
of its own here, and there the task's scorer takes the refusal for a wrong answer: every item, without a word.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType


class Deadline:
    """Raise `TimeoutError` in the block when it has run for `seconds`; it interrupts Python, not C.

    Args:
        seconds: how long the block may take.
        error_message: what the error says.
    """

    def __init__(self, seconds: float = 1, error_message: str = "Timeout") -> None:
        self._seconds, self._thread = seconds, threading.get_ident()
        self.error_message = error_message
        self._lock, self._over = threading.Lock(), False

    def __enter__(self) -> None:
        self._timer = threading.Timer(self._seconds, self._interrupt)
        self._timer.daemon = True
        self._timer.start()

    def _interrupt(self) -> None:
        with self._lock:  # the block may end at this very moment: then nothing is interrupted
            if not self._over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(TimeoutError)
                )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._over = True
        self._timer.cancel()


def install() -> None:
    """Give `inspect_evals/math` this time limit in place of its own."""
    import inspect_evals.math.utils as theirs

    theirs.timeout = Deadline
