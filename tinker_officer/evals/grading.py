"""Runs a grader on one answer: whatever it does, it costs no other item.

A Python function of the user's may be slow, hang, raise, or be a coroutine. A plain function runs in a
thread of its own, so that one that hangs holds up nobody; a coroutine runs beside the others. Both have a
time limit.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from tinker_officer.evals.graders import Answer, Grader


TIMEOUT_S = 60.0


class GradingError(Exception):
    """A grader raised, returned no score, or took too long; the text says which."""


class UnscoredError(Exception):
    """No grade could be had, though nothing broke: a judge that will not give one."""


async def grade(grader: Grader, answer: Answer, target: Any, *, timeout_s: float = TIMEOUT_S) -> float:
    """Return the score of `answer` against `target`, from 0 to 1.

    Args:
        grader: how to grade.
        answer: what the model wrote.
        target: what is wanted.
        timeout_s: how long a function of the user's may take, in seconds.

    Raises:
        GradingError: the grader raised, returned no score, or took too long.
    """
    limit = asyncio.timeout(timeout_s)
    try:
        if not grader.foreign:
            return grader(answer, target)
        async with limit:
            raw = await _in_thread(grader, answer, target)
            while inspect.isawaitable(raw):
                raw = await raw
        return grader.checked(raw)
    except (Exception, SystemExit) as error:  # a grader is the user's code: it may raise anything
        if limit.expired():
            raise GradingError(f"the grader took longer than {timeout_s:g} s") from None
        raise GradingError(f"the grader raised {type(error).__name__}: {error}"[:500]) from error


async def _in_thread(grader: Grader, answer: Answer, target: Any) -> Any:
    """Return what the grading function returns, a coroutine perhaps; a thread that hangs is left behind."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(value)

    def work() -> None:
        value, error = None, None
        try:
            value = grader.raw(answer, target)
        except BaseException as raised:  # noqa: BLE001 - also SystemExit: it must not end the thread unseen
            error = raised if isinstance(raised, Exception) else GradingError(repr(raised))
        loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="tinker-officer-grader", daemon=True).start()
    return await done
