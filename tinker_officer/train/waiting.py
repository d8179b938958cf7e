"""Waiting for the server: never without a word, and never beyond an abort."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import attrs


logger = logging.getLogger(__name__)
T = TypeVar("T")
_POLL_S = 0.5  # how soon an abort is noticed; an answer is noticed at once


class Aborted(Exception):  # noqa: N818 - it ends the loop's thread, and is no error of the run
    """The run was aborted: nobody waits for its answers any more."""


@attrs.define
class Waiter:
    """Waits for futures.

    Args:
        stall_warning_s: seconds without an answer between warnings.
        aborted: set when nobody waits any more.
        waited_s: seconds waited so far, by all calls.
    """

    stall_warning_s: float
    aborted: threading.Event
    waited_s: float = attrs.field(init=False, default=0.0)

    def __call__(self, future: Any, what: str, *, step: int) -> Any:
        """Return the result of `future`; say so in the log when it takes long.

        Args:
            future: the SDK's `APIFuture`, or one of `concurrent.futures`.
            what: what is waited for, in words.
            step: the step that it belongs to.

        Raises:
            Aborted: the run was aborted meanwhile.
            Exception: whatever the SDK raised.
        """
        waited: concurrent.futures.Future[Any] = (
            future if isinstance(future, concurrent.futures.Future) else future.future()
        )
        began = warned = time.monotonic()
        while not waited.done():
            if self.aborted.is_set():
                waited.cancel()
                raise Aborted
            concurrent.futures.wait([waited], timeout=min(_POLL_S, self.stall_warning_s or _POLL_S))
            now = time.monotonic()
            if not waited.done() and self.stall_warning_s and now - warned >= self.stall_warning_s:
                warned = now
                logger.warning(
                    "run.waits: %s of step %d has not come for %.0f s",
                    what,
                    step,
                    now - began,
                    extra={
                        "officer.waits_for": what,
                        "officer.step": step,
                        "officer.waited_s": round(now - began, 1),
                    },
                )
        self.waited_s += time.monotonic() - began
        return waited.result()


def apart(ask: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Return a future of the result of the SDK's future that `ask` returns, asked for on a thread.

    The first request of a service client waits for its session before there is a future of it. No abort and
    no exit waits for the thread.
    """
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(ask().result())
        except BaseException as error:  # noqa: BLE001 - it is raised where the future is waited for
            future.set_exception(error)

    threading.Thread(target=work, name="ask", daemon=True).start()
    return future
